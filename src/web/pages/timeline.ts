// Converts a saga's events for people: each attempt, wait and compensation becomes one bar with its start, end and
// result. Pure; the page renders it.
import type { Direction, Saga } from '../../saga/saga.ts';
import { currentStep, directionOf, isAtRest } from '../../saga/saga.ts';
import type { Memo } from '../../saga/step.ts';
import type { StoredEvent } from '../../saga/events.ts';
import { attemptSince } from '../../saga/took.ts';
import { shortTextOf, shorten } from '../../platform/text.ts';

/** `mark`: a moment. `attempt`: a step ran or is running. `wait`: nothing ran. */
export type Entry = Readonly<{
  kind: 'mark' | 'attempt' | 'wait';
  tone: 'plain' | 'ok' | 'bad' | 'wait' | 'live';
  title: string;
  /** What was attempted, and which attempt it was; null: not an attempt at a step. */
  attempt: Readonly<{ of: string; nth: number }> | null;
  /** It is the pause between two attempts. */
  isBackOff: boolean;
  from: Date;
  /** Null: still in progress. */
  to: Date | null;
  /** The result: a note of the step, or the error in DigitalOcean's words. */
  text: string | null;
  /** DigitalOcean's id of the failed request; its support asks for it. */
  requestId: string | null;
  /** Number of polls during a wait. */
  polls: number | null;
  /** What the step recorded on the way. */
  notes: readonly Readonly<{ at: Date; text: string }>[];
  worker: string | null;
  /** The job that ran it. */
  job: Readonly<{ revision: number; direction: Direction }> | null;
  /** The attempts that this entry stands for, if it stands for several (see fold-timeline.ts). */
  alike: readonly Entry[];
}>;

// A worker takes a job within milliseconds, unless there are too few workers.
const LONG_QUEUE_MS = 1_000;

const MAX_ACTOR_LENGTH = 255;

type Draft = { since: Date; notes: { at: Date; text: string }[]; direction: Direction; jobRevision: number; waited: { from: Date; polls: number } | null };

/** The current activity: the job's counters, and whether it waits in its queue. */
type Present = Readonly<{
  now: Date;
  memo: Memo;
  isWaiting: boolean;
  /** Since when it is due without a worker; null or omitted: a worker has it, or it is not due. */
  untakenSince?: Date | null;
  /** It waits for something that only a person can fix. */
  isHeld?: boolean;
  /** The queues do not say whether a worker has it. */
  isJobUnknown?: boolean;
}>;

/** Builds the timeline. */
export function timelineOf(saga: Saga, events: readonly StoredEvent[], present: Present): Entry[] {
  const entries: Entry[] = [];
  const draft: Draft = { since: saga.createdAt, notes: [], direction: 'forward', jobRevision: 0, waited: null };
  for (const event of events) {
    entries.push(...entriesOf(event, draft));
    draft.since = attemptSince(draft.since, event);
  }
  if (!isAtRest(saga.status)) entries.push(goingOn(saga, draft, present));
  if (saga.status === 'stuck') entries.push(entry({ kind: 'wait', tone: 'bad', title: 'needs attention', from: draft.since, to: null }));
  return entries;
}

function entriesOf(event: StoredEvent, draft: Draft): Entry[] {
  const { at } = event;
  switch (event.kind) {
    case 'saga_created':
      return [entry({ title: 'requested', from: at, text: byOf(event.detail['requestedBy']) })];
    case 'saga_started': {
      const isWorthTelling = at.getTime() - draft.since.getTime() >= LONG_QUEUE_MS;
      const queued = entry({ kind: 'wait', tone: 'wait', title: 'waited for a worker', from: draft.since, to: at });
      return isWorthTelling ? [queued] : [];
    }
    case 'saga_rejected':
      return [entry({ tone: 'bad', title: 'rejected', from: at, text: shortTextOf(event.detail['message']) })];
    case 'step_recorded':
    case 'compensation_recorded':
      draft.notes.push({ at, text: shortTextOf(event.detail['note']) });
      return [];
    case 'step_postponed':
    case 'compensation_postponed':
      draft.waited = { from: draft.waited?.from ?? at, polls: (draft.waited?.polls ?? 0) + 1 };
      draft.notes.push({ at, text: `not yet: ${shortTextOf(event.detail['reason'])}` });
      draft.jobRevision = event.seq;
      return [];
    case 'step_completed':
    case 'compensation_completed':
      return [close(event, draft, 'ok')];
    case 'step_failed':
    case 'step_stuck':
    case 'compensation_stuck':
      return [close(event, draft, 'bad')];
    case 'step_retried':
    case 'compensation_retried': {
      const attempt = close(event, draft, 'bad');
      return [attempt, entry({ kind: 'wait', tone: 'wait', title: 'back-off', isBackOff: true, from: at, to: attemptSince(draft.since, event) })];
    }
    case 'cancel_requested': {
      const cut = draft.jobRevision === 0 && draft.notes.length === 0 && event.detail['status'] === 'compensated' ? [] : [interrupted(event, draft)];
      begin(draft, event, 'backward');
      const reason = shortTextOf(event.detail['reason']);
      return [...cut, entry({ title: 'cancel requested', from: at, text: `${byOf(event.detail['by']) ?? ''}${reason === '' ? '' : `: ${reason}`}` })];
    }
    case 'retry_requested': {
      const stuck = entry({ kind: 'wait', tone: 'bad', title: 'needed attention', from: draft.since, to: at });
      begin(draft, event, event.detail['status'] === 'running' ? 'forward' : 'backward');
      return [stuck, entry({ title: 'retry requested', from: at, text: byOf(event.detail['by']) })];
    }
    default:
      return event.kind satisfies never;
  }
}

/** Ends an attempt, or a wait that was a step's whole work. */
function close(event: StoredEvent, draft: Draft, tone: 'ok' | 'bad'): Entry {
  const said = shortTextOf(event.detail['message'] ?? event.detail['note']);
  const polls = pollsOf(said) ?? draft.waited?.polls ?? null;
  const isBackward = event.kind.startsWith('compensation_');
  const nth = event.attempt ?? 1;
  const of = `${isBackward ? 'undo ' : ''}${event.step ?? ''}`;
  const closed = entry({
    kind: polls === null ? 'attempt' : 'wait',
    tone,
    title: `${of}${nth > 1 || tone === 'bad' ? ` · attempt ${nth}` : ''}`,
    attempt: { of, nth },
    from: draft.since > event.at ? event.at : draft.since,
    to: event.at,
    text: withoutRequest(said) || null,
    requestId: requestOf(said),
    polls,
    notes: draft.notes,
    worker: event.worker,
    job: { revision: draft.jobRevision, direction: isBackward ? 'backward' : 'forward' },
  });
  begin(draft, event, event.kind === 'step_failed' ? 'backward' : draft.direction);
  return closed;
}

function interrupted(event: StoredEvent, draft: Draft): Entry {
  return entry({
    kind: 'attempt',
    title: `${event.step ?? ''} · cut short`,
    from: draft.since > event.at ? event.at : draft.since,
    to: event.at,
    notes: draft.notes,
    job: { revision: draft.jobRevision, direction: draft.direction },
  });
}

function begin(draft: Draft, event: StoredEvent, direction: Direction): void {
  draft.notes = [];
  draft.waited = null;
  draft.direction = direction;
  draft.jobRevision = event.seq;
}

function goingOn(saga: Saga, draft: Draft, { now, memo, isWaiting, untakenSince = null, isHeld = false, isJobUnknown = false }: Present): Entry {
  if (untakenSince !== null) return untaken(saga, draft, now, untakenSince);
  const polls = memo['polls'] ?? draft.waited?.polls ?? null;
  const undo = directionOf(saga) === 'backward' ? 'undo ' : '';
  const isUnclear = isJobUnknown && !isHeld;
  // Of a pending saga no step has been taken, whatever its job says.
  const isWait = polls !== null || isWaiting || isHeld || isJobUnknown || saga.status === 'pending';
  return entry({
    kind: isWait ? 'wait' : 'attempt',
    tone: isHeld ? 'bad' : isUnclear ? 'wait' : 'live',
    title: `${undo}${currentStep(saga)}${saga.attempt > 0 ? ` · attempt ${saga.attempt + 1}` : ''}`,
    from: draft.since > now ? now : draft.since,
    to: null,
    text: isUnclear ? 'not known: the queues do not answer' : null,
    polls,
    notes: draft.notes,
    job: { revision: saga.revision, direction: directionOf(saga) },
  });
}

/** Nothing is running, so this is a wait and not a growing bar of work. */
function untaken(saga: Saga, draft: Draft, now: Date, since: Date): Entry {
  const undo = directionOf(saga) === 'backward' ? 'undo ' : '';
  return entry({
    kind: 'wait',
    tone: 'wait',
    title: `${undo}${currentStep(saga)} · not taken`,
    from: since > now ? now : since,
    to: null,
    text: 'no worker has taken it',
    notes: draft.notes,
    job: { revision: saga.revision, direction: directionOf(saga) },
  });
}

function entry(given: Partial<Entry> & Pick<Entry, 'title' | 'from'>): Entry {
  return { kind: 'mark', tone: 'plain', attempt: null, isBackOff: false, to: given.from, text: null, requestId: null, polls: null, notes: [], worker: null, job: null, alike: [], ...given };
}

function byOf(actor: unknown): string | null {
  return typeof actor === 'string' ? `by ${shorten(actor, MAX_ACTOR_LENGTH)}` : null;
}

function pollsOf(said: string): number | null {
  const [, polls] = /\bafter (\d{1,9}) polls?\b/.exec(said) ?? [];
  return polls === undefined ? null : Number(polls);
}

// Texts may be as long as a request. A pattern must not start with a repetition, which would be tried from every
// position.
const request = / ?\(request ([\w.:-]{1,100})\)/;

/** Extracts DigitalOcean's request id from an error's text. */
export function requestOf(said: string): string | null {
  return request.exec(said)?.[1] ?? null;
}

/** Removes that id from an error's text. */
export function withoutRequest(said: string): string {
  return said.replace(request, '').replace('.;', ';');
}
