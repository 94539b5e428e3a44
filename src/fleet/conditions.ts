// The state of the fleet: what stands still, and why. Pure: facts in, conditions out. Pages, `/statusz`, the metrics and
// `arcadia status` all show what this says.
import type { PostgresFacts, RefusedFact } from './facts.ts';

export const conditionNames = [
  'postgres_away', 'queue_store_away', 'no_worker', 'token_refused', 'scope_missing', 'sagas_stuck', 'sagas_overdue', 'jobs_stand_still',
  'queue_paused', 'sync_overdue', 'budget_used_up',
] as const;

type ConditionName = (typeof conditionNames)[number];

/** `critical`: nothing, or something that was promised, gets done. `warning`: somebody should look. `info`: it passes by itself. */
type Severity = 'critical' | 'warning' | 'info';

/** Something that keeps the fleet from its work. */
export type Condition = Readonly<{
  name: ConditionName;
  severity: Severity;
  /** One sentence, such as "No worker is running". */
  title: string;
  /** More of the same; empty: there is none. */
  detail: string;
  /** What a person does about it. */
  action: string;
  /** Null: not known. */
  since: Date | null;
  /** When it passes, or is looked at again; null: not known. */
  until: Date | null;
  /** Sagas, queues or seconds that it is about, by its name; null: it is not about a number. */
  count: number | null;
}>;

/** What the queues show. `stalled`: what at the head of a queue does not move, in words. */
export type QueueFacts = Readonly<{ paused: readonly string[]; stalled: readonly string[] }>;

/** Null: Postgres, or the queue store, did not answer. */
export type FleetFacts = Readonly<{ postgres: PostgresFacts | null; queues: QueueFacts | null }>;

export type Limits = Readonly<{
  /** A saga that is overdue for longer tells of reconcilers that stand still. */
  reconcileIntervalMs: number;
  /** Null: the app has no inventory. */
  inventorySyncIntervalMs: number | null;
}>;

/** The fleet's state at one moment. */
export type FleetStatus = Readonly<{
  /** By Postgres's clock, where it answers. */
  at: Date;
  /** `waiting`: something passes by itself. `attention`: a person is needed. */
  status: 'ok' | 'waiting' | 'attention';
  /** The worst first. */
  conditions: readonly Condition[];
  facts: FleetFacts;
}>;

// Every request that comes a moment too early is put off: that is the budget at work, not used up.
const SHORT_WAIT_MS = 10_000;

const ranks: Readonly<Record<Severity, number>> = { critical: 0, warning: 1, info: 2 };

/**
 * Judges the facts.
 *
 * @param now this process's clock, for when Postgres does not answer
 */
export function judgeFleet(facts: FleetFacts, limits: Limits, now: Date): FleetStatus {
  const { postgres, queues } = facts;
  const conditions = [
    ...(postgres === null ? [postgresAway] : ofPostgres(postgres, queues, limits)),
    ...(queues === null ? [queueStoreAway] : ofQueues(queues, postgres)),
  ].toSorted((one, other) => ranks[one.severity] - ranks[other.severity] || conditionNames.indexOf(one.name) - conditionNames.indexOf(other.name));
  const status = conditions.some(needsPerson) ? 'attention' : conditions.length > 0 ? 'waiting' : 'ok';
  return { at: postgres?.now ?? now, status, conditions, facts };
}

/** Whether it lasts until a person does something. */
export function needsPerson({ severity }: Pick<Condition, 'severity'>): boolean {
  return severity !== 'info';
}

/** A saga that is overdue for longer than this is looked after by nobody, in seconds: a pass, its jitter, and one that failed. */
export function overdueLimitSeconds({ reconcileIntervalMs }: Pick<Limits, 'reconcileIntervalMs'>): number {
  return Math.max(30, (3 * reconcileIntervalMs) / 1_000);
}

const postgresAway = condition({
  name: 'postgres_away',
  severity: 'critical',
  title: 'Postgres does not answer',
  detail: 'Nothing can be decided, and nothing that is shown is new.',
  action: 'Check Postgres and DATABASE_URL. Sagas go on by themselves.',
});

const queueStoreAway = condition({
  name: 'queue_store_away',
  severity: 'critical',
  title: 'The queue store does not answer',
  detail: 'No step is taken. New sagas are kept in Postgres.',
  action: 'Check Redis and REDIS_URL (without one, the queues are in Postgres). Sagas go on by themselves.',
});

function ofPostgres(facts: PostgresFacts, queues: QueueFacts | null, limits: Limits): Condition[] {
  const conditions: Condition[] = [];
  const isAlive = facts.workers.some((worker) => worker.isAlive);
  if (!isAlive) conditions.push(noWorker(facts));
  // Without a worker, nobody asks again.
  for (const refused of facts.refused) conditions.push({ ...refusal(refused), ...(isAlive ? {} : { until: null }) });
  if (facts.stuck > 0) {
    conditions.push(condition({
      name: 'sagas_stuck', severity: 'critical', count: facts.stuck,
      title: `${sagas(facts.stuck)} ${facts.stuck === 1 ? 'is' : 'are'} stuck`,
      detail: 'What their steps have done may be left, and cost money.',
      action: 'Open each one, fix what its last answer names, then retry it.',
    }));
  }
  // Without a worker, there is nobody to look after them.
  if (isAlive && facts.overdueSeconds > overdueLimitSeconds(limits)) {
    conditions.push(condition({
      name: 'sagas_overdue', severity: 'critical', count: Math.round(facts.overdueSeconds),
      title: `A saga is overdue by ${inWords(facts.overdueSeconds)}`,
      detail: "No worker's reconciler takes it.",
      action: 'Look at the logs of the workers, and restart them.',
    }));
  }
  if (isAlive && isSyncOverdue(facts, queues, limits)) {
    const age = inWords(facts.syncAgeSeconds ?? 0);
    conditions.push(condition({
      name: 'sync_overdue', severity: 'warning', count: Math.round(facts.syncAgeSeconds ?? 0),
      title: `The inventory was last synced ${age} ago`,
      detail: 'What changed at DigitalOcean since then does not show.',
      action: 'Run `arcadia sync` to see why it fails.',
    }));
  }
  const throttledForMs = (facts.throttledUntil?.getTime() ?? 0) - facts.now.getTime();
  if (throttledForMs > SHORT_WAIT_MS) {
    conditions.push(condition({
      name: 'budget_used_up', severity: 'info', until: facts.throttledUntil,
      title: 'The request budget is used up',
      detail: 'Sagas wait for their turn; deletions go first.',
      action: 'Nothing, unless it lasts: start fewer sagas at once, or ask DigitalOcean for a higher limit.',
    }));
  }
  return conditions;
}

function noWorker({ workers, now, unfinished }: PostgresFacts): Condition {
  const lastSeenMs = Math.max(...workers.map(({ lastSeenAt }) => lastSeenAt.getTime()));
  const isKnown = workers.length > 0;
  const waiting = unfinished === 0 ? 'No saga is under way.' : `${sagas(unfinished)} ${unfinished === 1 ? 'waits' : 'wait'}.`;
  return condition({
    name: 'no_worker', severity: 'critical', count: unfinished, since: isKnown ? new Date(lastSeenMs) : null,
    title: isKnown ? `No worker has been seen for ${inWords((now.getTime() - lastSeenMs) / 1_000)}` : 'No worker is running',
    detail: waiting,
    action: 'Start a worker, or look at the logs of those that ended. Sagas go on by themselves.',
  });
}

function refusal({ kind, request, fields, subject, openedAt, nextProbeAt, message, scopes, held }: RefusedFact): Condition {
  const waiting = held === 0 ? '' : ` ${sagas(held)} ${held === 1 ? 'waits' : 'wait'}.`;
  const common = { severity: 'critical', since: openedAt, until: nextProbeAt, count: held } as const;
  if (kind === 'token_refused') {
    return condition({
      ...common, name: 'token_refused',
      title: 'DigitalOcean refuses the token',
      detail: `${withStop(message)}${waiting}`.trim(),
      action: 'Give the workers a good DIGITALOCEAN_TOKEN and restart them. Sagas go on by themselves.',
    });
  }
  const what = `${request ?? 'requests'}${fields.length === 0 ? '' : ` with ${fields.join(', ')}`}`;
  const lack = scopes.length === 0 ? '' : `The token probably lacks the scope ${scopes.join(' or ')}. `;
  return condition({
    ...common, name: 'scope_missing',
    title: `DigitalOcean refuses ${what}${subject === null ? '' : `, so far for ${subject} alone`}`,
    detail: `${lack}${withStop(message)}${waiting}`.trim(),
    action: 'Add the scope to the token, or give the workers another one and restart them. Sagas go on by themselves.',
  });
}

function isSyncOverdue({ syncAgeSeconds }: PostgresFacts, queues: QueueFacts | null, { inventorySyncIntervalMs }: Limits): boolean {
  // Paused, it is told of as that.
  if (inventorySyncIntervalMs === null || syncAgeSeconds === null || queues?.paused.includes('inventory') === true) return false;
  return syncAgeSeconds > Math.max(300, (3 * inventorySyncIntervalMs) / 1_000);
}

function ofQueues({ paused, stalled }: QueueFacts, postgres: PostgresFacts | null): Condition[] {
  const conditions: Condition[] = [];
  if (paused.length > 0) {
    conditions.push(condition({
      name: 'queue_paused', severity: 'warning', count: paused.length,
      title: `${paused.length === 1 ? 'Queue' : 'Queues'} ${paused.join(', ')} ${paused.length === 1 ? 'is' : 'are'} paused`,
      detail: 'No worker takes their jobs.',
      action: 'Resume on the page of the queues.',
    }));
  }
  const isAlive = postgres?.workers.some((worker) => worker.isAlive) ?? true;
  if (isAlive && stalled.length > 0) {
    conditions.push(condition({
      name: 'jobs_stand_still', severity: 'critical', count: stalled.length,
      title: 'Jobs stand still',
      detail: withStop(stalled.join('; ')),
      action: 'Restart the workers; a worker that finds that it takes no jobs ends itself.',
    }));
  }
  return conditions;
}

function condition(given: Pick<Condition, 'name' | 'severity' | 'title' | 'detail' | 'action'> & Partial<Condition>): Condition {
  return { since: null, until: null, count: null, ...given };
}

/** Seconds in whole units, two at most. */
function inWords(exact: number): string {
  const seconds = Math.max(0, Math.round(exact));
  if (seconds < 60) return `${seconds} s`;
  if (seconds < 3_600) return `${Math.floor(seconds / 60)} min ${seconds % 60} s`;
  if (seconds < 86_400) return `${Math.floor(seconds / 3_600)} h ${Math.floor((seconds % 3_600) / 60)} min`;
  return `${Math.floor(seconds / 86_400)} d ${Math.floor((seconds % 86_400) / 3_600)} h`;
}

function sagas(count: number): string {
  return count === 1 ? '1 saga' : `${count} sagas`;
}

function withStop(text: string): string {
  return text === '' || text.endsWith('.') ? text : `${text}.`;
}
