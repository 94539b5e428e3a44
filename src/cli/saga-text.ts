// Sagas in words: a line for what came of one, a line an event, a table of many. Each function makes what it is given
// printable first: the texts in it are those of callers and of DigitalOcean.
import type { SagaLease } from '../inventory/lease.ts';
import { describeLease } from '../inventory/lease.ts';
import { formatDuration } from '../platform/duration.ts';
import { textOf } from '../platform/json.ts';
import { describeEvent } from '../saga/describe-event.ts';
import type { Saga } from '../saga/saga.ts';
import { isStuckForward } from '../saga/saga.ts';
import type { StoredEvent } from '../saga/events.ts';
import type { Hold } from '../saga/holds.ts';
import type { Surface } from '../saga/words.ts';
import { attemptsTookMs, sagaTookMs } from '../saga/took.ts';
import { describeEnd, leftoversOf, statusWords } from '../saga/words.ts';
import { printable, shortTextOf } from '../platform/text.ts';
import type { LastAnswers } from './last-answers.ts';
import { noLastAnswers } from './last-answers.ts';
import type { Column } from './table.ts';
import { formatTable } from './table.ts';

/** What came of a saga, in one line. `lastAnswers`: why its rollback failed, if it did. */
export function describeResult(given: Saga, surface: Surface, lastAnswers: LastAnswers = noLastAnswers): string {
  const saga = printable(given);
  const words = surface.words(saga);
  const reason = saga.error?.message ?? 'no reason recorded';
  switch (saga.status) {
    case 'completed':
      return phrase(describeEnd(words, saga).text);
    case 'compensated': {
      const { label, text, tone } = describeEnd(words, saga);
      return `${label}: ${reason}${tone === 'attention' && !reason.includes(phrase(text)) ? `\n${text}` : ''}`;
    }
    case 'stuck': {
      const last = lastAnswers.get(saga.id);
      const why = isStuckForward(saga) ? `${saga.error?.step ?? 'a step'} failed for good: ${reason}` : `the rollback failed${last === undefined ? '' : `: ${printable(last).replace(/\.$/, '')}`}; the saga was rolled back because of: ${reason}`;
      return `needs attention: ${why}\n${words.stuck(saga)} Run \`arcadia saga ${saga.id}\` to see why, fix the cause, then run \`arcadia retry ${saga.id}\``;
    }
    case 'pending':
    case 'running':
    case 'compensating':
      return statusWords[saga.status];
    default:
      return saga.status satisfies never;
  }
}

/** A sentence as a part of a line. */
function phrase(sentence: string): string {
  return sentence.charAt(0).toLowerCase() + sentence.slice(1).replace(/\.$/, '');
}

/** One saga with its timeline. */
export function formatSaga(given: Saga, events: readonly StoredEvent[], surface: Surface, { hold, lease, now }: Readonly<{ hold: Hold | undefined; lease: SagaLease | undefined; now: Date }>): string {
  const saga = printable(given);
  const facts: [string, string][] = [
    ['saga', `${saga.id} (${saga.name})`],
    ['status', `${labelOf(saga, surface, hold)}, revision ${saga.revision}`],
    ['steps', saga.steps.map((step, index) => (index === saga.cursor ? `[${step}]` : step)).join(' → ')],
    ...factsOf(saga, surface),
    ['requested', `${saga.createdAt.toISOString()}${saga.requestedBy === null ? '' : ` by ${saga.requestedBy}`}`],
    ['started by', saga.startedBy ?? '–'],
  ];
  if (saga.priority !== 'normal') facts.push(['priority', saga.priority]);
  const left = leftoversOf(surface.words(saga), saga);
  if (left !== null) facts.push(['to check', left]);
  if (lease !== undefined) facts.push(['lease', `${describeLease(lease, now)}, ends at ${lease.leaseUntil.toISOString()}`]);
  if (hold !== undefined) facts.push(['held', `${describeHold(hold)}. ${WHAT_TO_DO}`]);
  if (saga.waitsFor !== null) facts.push(['waits for', `saga ${saga.waitsFor}, which is using the same resource`]);
  if (saga.rerunOf !== null) facts.push(['runs again', `saga ${saga.rerunOf}, which was rolled back`]);
  if (saga.rerunAs !== null) facts.push(['run again as', `saga ${saga.rerunAs}`]);
  if (saga.idempotencyKey !== null) facts.push(['key', saga.idempotencyKey]);
  const tookMs = sagaTookMs(saga);
  if (tookMs !== null) facts.push(['took', formatDuration(tookMs)]);
  const end = saga.status === 'compensated' ? describeEnd(surface.words(saga), saga) : null;
  if (end?.tone === 'attention' && left === null) facts.push(['result', end.text]);
  facts.push(...errorFacts(saga, events.at(-1)));
  const width = Math.max(...facts.map(([name]) => name.length));
  const head = facts.map(([name, value]) => `${name.padEnd(width)}  ${value}`);
  return [...head, '', formatTimeline(saga, events)].join('\n');
}

/** While a saga is rolled back, its error is the reason for that. What stops a rollback is in the last event. */
function errorFacts({ status, error }: Saga, last: StoredEvent | undefined): [string, string][] {
  if (error === null) return [];
  const isReason = status === 'compensating' || status === 'compensated' || (status === 'stuck' && !isStuckForward({ status, error }));
  const said = printable(shortTextOf(last?.detail['message']));
  return [
    ...(status === 'stuck' && isReason && said !== '' ? [['last answer', said]] as [string, string][] : []),
    [isReason ? 'reason' : 'error', `${error.code} in ${error.step}: ${error.message}`],
  ];
}

/** As on the pages: its status alone would say that a held saga is under way, and that nothing is left of one that was rolled back. */
function labelOf(saga: Saga, surface: Surface, hold: Hold | undefined): string {
  if (hold !== undefined) return HELD;
  return saga.status === 'completed' || saga.status === 'compensated' ? describeEnd(surface.words(saga), saga).label : statusWords[saga.status];
}

const HELD = 'held';
const WHAT_TO_DO = '`arcadia status` says what to do';

function describeHold(given: Hold): string {
  const { cause, message, since } = printable(given);
  return `${cause} since ${since.toISOString()}: ${message.replace(/\.$/, '')}`;
}

/** What it is about, and what it handed out. */
function factsOf(saga: Saga, surface: Surface): [string, string][] {
  const words = surface.words(saga);
  const subject = words.subject?.(saga);
  const outputs = words.outputs?.(saga);
  return [
    ...(subject === undefined ? [] : [['name', subject.name ?? '–'], [subject.kind, subject.id ?? '–']] as [string, string][]),
    ...(outputs === undefined ? [] : [[outputs.name.toLowerCase(), outputs.values.join(' ') || '–']] as [string, string][]),
  ];
}

/** A line an event, with the time since the saga was created; at the end of an attempt, also how long it took. */
export function formatTimeline(saga: Saga, events: readonly StoredEvent[]): string {
  const took = attemptsTookMs(saga, events);
  return printable(events)
    .map((event) => {
      const since = formatDuration(event.at.getTime() - saga.createdAt.getTime());
      const tookMs = took.get(event.seq);
      const told = [...(tookMs === undefined ? [] : [formatDuration(tookMs)]), ...(event.worker === null ? [] : [event.worker])];
      return `${String(event.seq).padStart(3)}  +${since.padEnd(11)} ${describeEvent(event)}${told.length === 0 ? '' : `  (${told.join(', ')})`}`;
    })
    .join('\n');
}

/**
 * A table of sagas, one a row. Leases have a column where one of the sagas has a droplet with a lease. A saga that is held
 * shows why in place of an error.
 *
 * @param how.maxWidth see `formatTable`
 */
export function formatSagas(sagas: readonly Saga[], surface: Surface, how: SagaFacts & Readonly<{ maxWidth: number | null }>): string {
  return sagas.length === 0 ? 'no sagas' : formatTable(sagaColumns(how.leases), sagas.map((saga) => sagaRow(saga, surface, how)), how.maxWidth);
}

function sagaColumns(leases: ReadonlyMap<string, SagaLease>): Column[] {
  return [
    'id',
    { name: 'saga', rank: 3, least: 9 },
    { name: 'status', rank: 1, least: 15 },
    { name: 'step', rank: 4, least: 4 },
    { name: 'name', rank: 2, least: 8 },
    { name: 'about', rank: 6, least: Number.POSITIVE_INFINITY },
    ...(leases.size === 0 ? [] : [{ name: 'lease', rank: 5, least: 8 }]),
    { name: 'created', rank: 7, least: 19 },
    { name: 'error', rank: 8, least: 12 },
  ];
}

type SagaFacts = Readonly<{ leases: ReadonlyMap<string, SagaLease>; holds: ReadonlyMap<string, Hold>; lastAnswers: LastAnswers; now: Date }>;

function sagaRow(saga: Saga, surface: Surface, { leases, holds, lastAnswers, now }: SagaFacts): string[] {
  const subject = surface.words(saga).subject?.(saga);
  const lease = leases.get(saga.id);
  const hold = holds.get(saga.id);
  return [
    saga.id,
    saga.name,
    labelOf(saga, surface, hold),
    `${saga.cursor + 1}/${saga.steps.length}`,
    subject?.name ?? textOf(saga.input['name']),
    subject?.id ?? '',
    ...(leases.size === 0 ? [] : [lease === undefined ? '' : describeLease(lease, now)]),
    saga.createdAt.toISOString().slice(0, 19),
    hold === undefined ? (lastAnswers.get(saga.id) ?? saga.error?.message ?? '') : describeHold(hold),
  ];
}
