// A worker's heartbeat: a row in Postgres that it renews every few seconds and deletes when it ends. Rows of dead workers
// stay for a while, because they show when a worker was last seen.
import { randomUUID } from 'node:crypto';
import { setTimeout as delay } from 'node:timers/promises';
import type { Database } from '../platform/db.ts';
import type { Log } from '../platform/log.ts';
import type { QueuePlace } from '../queues/queue-store.ts';
import type { ProviderAnswers } from '../saga/extension.ts';

/** Steps that have run for long, with their sagas, the longest first, and for how long that one has run. */
export type LongRuns = Readonly<{ runs: readonly Readonly<{ sagaId: string; step: string }>[]; longestMs: number | null }>;

/** Facts about a worker that do not change. */
export type WorkerIdentity = Readonly<{
  /** As in its events. */
  name: string;
  host: string;
  pid: number;
  version: string;
  nodeVersion: string;
  concurrency: number;
  /** Fingerprint of its token; null: it has none. */
  scope: string | null;
  /** Names of the steps that it can run. */
  steps: readonly string[];
  /** Names of the sagas that it knows. */
  sagas: readonly string[];
  queuePlace: QueuePlace;
}>;

/**
 * The state in each heartbeat. `throttledForMs`: how long the request budget has no room, as last known; 0: it has room.
 * `reconcilerFailingForMs`: since its last pass that succeeded; null: that was the last one. `provider`: whether the service of its
 * steps answers. `longRuns`: steps that have run for ten minutes and more.
 */
export type WorkerState = Readonly<{ jobs: number; throttledForMs: number; reconcilerFailingForMs: number | null; provider: ProviderAnswers; longRuns: LongRuns }>;

const RENEW_MS = 5_000;

/** A worker not seen for this long is dead: three renewals and a margin. */
export const DEAD_AFTER_MS = 20_000;

const REMOVE_AFTER_MS = 24 * 3_600_000;

/** Sends heartbeats, at once and then every few seconds, until the signal is aborted. Then deletes the worker's row. */
export async function showSignOfLife(
  identity: WorkerIdentity,
  options: { db: Pick<Database, 'run'>; state: () => WorkerState; signal: AbortSignal; log: Log; renewMs?: number },
): Promise<void> {
  const { db, signal, log, renewMs = RENEW_MS } = options;
  const id = randomUUID();
  while (!signal.aborted) {
    await renew(db, id, identity, options.state()).catch((error: unknown) => log.warn({ err: error }, 'could not show a sign of life'));
    await delay(renewMs, undefined, { signal }).catch(() => undefined);
  }
  await db.run('workers.leave', (sql) => sql`delete from arcadia.workers where id = ${id}`).catch(() => undefined);
}

async function renew(db: Pick<Database, 'run'>, id: string, { name, host, pid, version, nodeVersion, concurrency, scope, steps, sagas, queuePlace }: WorkerIdentity, { jobs, throttledForMs, reconcilerFailingForMs, provider, longRuns }: WorkerState): Promise<void> {
  const isThrottled = throttledForMs > 0;
  await db.run(
    'workers.renew',
    (sql) => sql`
      with removed as (
        delete from arcadia.workers where last_seen_at < clock_timestamp() - ${REMOVE_AFTER_MS}::float8 * interval '1 millisecond' and id <> ${id}
      )
      insert into arcadia.workers as worker (id, name, host, pid, version, node_version, concurrency, jobs, scope, steps, sagas, queue_store, queue_prefix, throttled_until, reconciler_failing_since, provider_failing_since, provider_answered_at, long_runs, long_run_steps, long_run_since)
      values (
        ${id}, ${name}, ${host}, ${pid}, ${version}, ${nodeVersion}, ${concurrency}, ${jobs}, ${scope}, ${[...steps]}::text[], ${[...sagas]}::text[], ${queuePlace.kind}, ${queuePlace.prefix},
        case when ${isThrottled} then clock_timestamp() + ${throttledForMs}::float8 * interval '1 millisecond' end,
        clock_timestamp() - ${reconcilerFailingForMs}::float8 * interval '1 millisecond',
        clock_timestamp() - ${provider.failingForMs}::float8 * interval '1 millisecond',
        clock_timestamp() - ${provider.answeredMsAgo}::float8 * interval '1 millisecond',
        ${longRuns.runs.map(({ sagaId }) => sagaId)}::text[]::uuid[], ${longRuns.runs.map(({ step }) => step)}::text[], clock_timestamp() - ${longRuns.longestMs}::float8 * interval '1 millisecond'
      )
      on conflict (id) do update set last_seen_at = clock_timestamp(), jobs = excluded.jobs, throttled_until = excluded.throttled_until,
        reconciler_failing_since = excluded.reconciler_failing_since, provider_failing_since = excluded.provider_failing_since, provider_answered_at = excluded.provider_answered_at,
        long_runs = excluded.long_runs, long_run_steps = excluded.long_run_steps, long_run_since = excluded.long_run_since`,
  );
}
