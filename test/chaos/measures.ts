// What a run measures: how long a saga stood still after its worker was killed, and how long it had a droplet too many.
// Pure.
import { textOf } from '../../src/platform/json.ts';
import type { Evidence, SagaRow } from './evidence.ts';
import { dropletsBySaga } from './evidence.ts';
import { CLAIM_MS } from './settings.ts';

/** Of so many values, in milliseconds; null where there are none. */
export type Spread = Readonly<{ count: number; p50Ms: number | null; p99Ms: number | null; maxMs: number | null }>;

export const RECOVERY_DEFINITION =
  'From the moment a worker is killed, for each saga whose job was in its hands, until somebody is seen to work on that saga ' +
  'again: its next event, or the next request to DigitalOcean for its droplet. Nothing is deducted: a restart of Postgres or ' +
  'Redis that falls into that time counts, and so do a back-off that the saga had before it and its turn in the queue of a ' +
  'fleet that has more to do than it can.';

export const DUPLICATES_DEFINITION =
  'Sagas that had more than one droplet at the same time, and how long: from the moment the second one was made until only one was left.';

export type Recovery = Spread &
  Readonly<{
    /** Sagas that nobody had to touch again: cancelled before they had begun. */
    untouched: number;
    slowest: readonly Readonly<{ sagaId: string; worker: string; killedAtMs: number; tookMs: number }>[];
  }>;

const SLOWEST = 5;

/** Measures the recovery after every kill. */
export function measureRecovery(evidence: Evidence): Recovery {
  const touches = findTouches(evidence);
  const sagas = new Map(evidence.sagas.map((saga) => [saga.id, saga]));
  const recoveries: { sagaId: string; worker: string; killedAtMs: number; tookMs: number }[] = [];
  let untouched = 0;
  for (const { atMs, worker, sagaIds } of evidence.diary.kills) {
    for (const sagaId of sagaIds) {
      const finishedAtMs = sagas.get(sagaId)?.finishedAt?.getTime() ?? Number.POSITIVE_INFINITY;
      if (finishedAtMs <= atMs) continue;
      const next = touches.get(sagaId)?.find((touchMs) => touchMs > atMs);
      if (next === undefined) untouched += 1;
      else recoveries.push({ sagaId, worker, killedAtMs: atMs, tookMs: next - atMs });
    }
  }
  const slowest = recoveries.toSorted((a, b) => b.tookMs - a.tookMs).slice(0, SLOWEST);
  return { ...spreadOf(recoveries.map(({ tookMs }) => tookMs)), untouched, slowest };
}

/** When a worker was seen at work on each saga, in order. */
function findTouches(evidence: Evidence): Map<string, number[]> {
  const touches = new Map<string, number[]>();
  const add = (sagaId: string, atMs: number) => {
    const list = touches.get(sagaId);
    if (list === undefined) touches.set(sagaId, [atMs]);
    else list.push(atMs);
  };
  for (const [sagaId, events] of evidence.events) {
    for (const event of events) if (event.worker !== null && event.worker !== 'client') add(sagaId, event.at.getTime());
  }
  const subjects = findSubjects(evidence);
  for (const entry of evidence.ledger) {
    const about = [entry.path, `tag ${entry.query['tag_name'] ?? ''}`, `name ${entry.query['name'] ?? ''}`];
    for (const sagaId of about.flatMap((subject) => subjects.get(subject) ?? [])) add(sagaId, entry.at);
  }
  for (const list of touches.values()) list.sort((a, b) => a - b);
  return touches;
}

/** What a request may be about, and the sagas that would send it. */
function findSubjects(evidence: Evidence): Map<string, string[]> {
  const subjects = new Map<string, string[]>();
  const add = (subject: string, saga: SagaRow) => subjects.set(subject, [...(subjects.get(subject) ?? []), saga.id]);
  const droplets = dropletsBySaga(evidence);
  for (const saga of evidence.sagas) {
    if (saga.name === 'destroy_droplet') {
      add(`/v2/droplets/${textOf(saga.input['droplet_id'])}`, saga);
      continue;
    }
    add(`tag arcadia-saga-${saga.saga8}`, saga);
    add(`name ${textOf(saga.input['name'])}`, saga);
    add(`/v2/actions/${textOf(saga.context['create_action_id'])}`, saga);
    for (const droplet of droplets.get(saga.id) ?? []) add(`/v2/droplets/${droplet.id}`, saga);
  }
  return subjects;
}

/**
 * Finds the creates that were announced by a worker which was then frozen before it sent them: each may have made a second
 * droplet, as the worker had made sure of its claim before, and sends its POST when it goes on. Nothing else may: the
 * sandbox's lags are shorter than the grace, and Postgres loses no commit. A POST that came before the freeze was sent in
 * time. A freeze that began later than a claim lasts hit a worker that had sent its POST, or would not send it any more.
 */
export function findFrozenCreates({ events, droplets, ledger, diary, load }: Pick<Evidence, 'events' | 'droplets' | 'ledger' | 'diary' | 'load'>): { sagaId: string; worker: string }[] {
  const postedAt = new Map(ledger.flatMap((entry) => entry.made.map((id) => [id, entry.at] as const)));
  const bySaga = dropletsBySaga({ droplets, load });
  const announced = [...events.values()].flat().filter(({ kind, note }) => kind === 'step_recorded' && note === 'announced a create');
  return announced.flatMap(({ sagaId, worker, at }) => {
    const atMs = at.getTime();
    const posts = (bySaga.get(sagaId) ?? []).map(({ id }) => postedAt.get(id) ?? Number.POSITIVE_INFINITY);
    const isFrozen = diary.freezes.some(
      (freeze) => freeze.worker === worker && freeze.fromMs <= atMs + CLAIM_MS && atMs <= freeze.toMs && !posts.some((postMs) => postMs > atMs && postMs < freeze.fromMs),
    );
    return isFrozen ? [{ sagaId, worker: worker ?? '' }] : [];
  });
}

export type Duplicates = Spread & Readonly<{ sagas: readonly { sagaId: string; droplets: readonly number[]; togetherMs: number }[] }>;

/** Finds the sagas that ever had more than one droplet at once. Those that still have are measured until `nowMs`. */
export function measureDuplicates(evidence: Evidence, nowMs: number): Duplicates {
  const madeAt = new Map(evidence.ledger.flatMap((entry) => entry.made.map((id) => [id, entry.answeredAt ?? entry.at] as const)));
  const sagas = [...dropletsBySaga(evidence)].flatMap(([sagaId, droplets]) => {
    const lives = droplets.map((droplet) => {
      const ends = [droplet.deletedAt, droplet.vanishedAt].filter((end) => end !== null).map((end) => Date.parse(end));
      return { from: madeAt.get(droplet.id) ?? Date.parse(droplet.created_at), to: Math.min(nowMs, ...ends) };
    });
    const togetherMs = timeTogether(lives);
    return togetherMs > 0 ? [{ sagaId, droplets: droplets.map(({ id }) => id), togetherMs }] : [];
  });
  return { ...spreadOf(sagas.map(({ togetherMs }) => togetherMs)), sagas };
}

/** For how long at least two of these were there. */
function timeTogether(lives: readonly { from: number; to: number }[]): number {
  const changes = lives.flatMap(({ from, to }) => [{ at: from, by: 1 }, { at: Math.max(from, to), by: -1 }]);
  changes.sort((a, b) => a.at - b.at || a.by - b.by);
  let together = 0;
  let alive = 0;
  let since = 0;
  for (const { at, by } of changes) {
    if (alive >= 2) together += at - since;
    alive += by;
    since = at;
  }
  return together;
}

/** Percentiles by the nearest rank. */
export function spreadOf(values: readonly number[]): Spread {
  const sorted = values.toSorted((a, b) => a - b);
  const rank = (share: number) => {
    const value = sorted[Math.max(0, Math.ceil(sorted.length * share) - 1)];
    return value === undefined ? null : Math.round(value);
  };
  return { count: sorted.length, p50Ms: rank(0.5), p99Ms: rank(0.99), maxMs: rank(1) };
}
