// The facts that the fleet's state is judged by, as Postgres has them: one statement, cheap enough for every page.
import type { Database } from '../platform/db.ts';
import { DEAD_AFTER_MS } from './sign-of-life.ts';

/** What DigitalOcean refuses, and what waits for that. Times of Postgres's clock. */
export type RefusedFact = Readonly<{
  kind: 'token_refused' | 'request_refused';
  /** Such as `POST /v2/droplets`; null: whatever is asked. */
  request: string | null;
  fields: readonly string[];
  /** The only one that was refused so far; null: there were more. */
  subject: string | null;
  openedAt: Date;
  nextProbeAt: Date;
  /** DigitalOcean's words. */
  message: string;
  /** Scopes that the token probably lacks. */
  scopes: readonly string[];
  held: number;
}>;

type WorkerFact = Readonly<{ name: string; host: string; version: string; startedAt: Date; lastSeenAt: Date; concurrency: number; jobs: number; isAlive: boolean }>;

export type PostgresFacts = Readonly<{
  now: Date;
  /** Those that live, and those that were seen lately and did not say goodbye. */
  workers: readonly WorkerFact[];
  /** Until when a worker was told to wait for the request budget; null: none waits. */
  throttledUntil: Date | null;
  refused: readonly RefusedFact[];
  unfinished: number;
  stuck: number;
  /** How far overdue the worst saga is, in seconds. */
  overdueSeconds: number;
  /** Since the last complete sync ended, or else since the first was tried; null: none was tried yet. */
  syncAgeSeconds: number | null;
}>;

type FactsRow = Omit<PostgresFacts, 'workers' | 'refused'> &
  Readonly<{
    workers: readonly (Omit<WorkerFact, 'startedAt' | 'lastSeenAt'> & { startedAt: string; lastSeenAt: string })[];
    refused: readonly (Omit<RefusedFact, 'openedAt' | 'nextProbeAt'> & { openedAt: string; nextProbeAt: string })[];
  }>;

/** Reads them. What is refused to a token that no live worker has counts only while there is no live worker. */
export async function readFleetFacts(db: Pick<Database, 'run'>): Promise<PostgresFacts> {
  const [row] = await db.run(
    'fleet.facts',
    (sql) => sql<FactsRow[]>`
      with alive as (
        select scope, throttled_until from arcadia.workers where last_seen_at > clock_timestamp() - ${DEAD_AFTER_MS}::float8 * interval '1 millisecond'
      )
      select
        clock_timestamp() as now,
        (select coalesce(jsonb_agg(jsonb_build_object(
           'name', name, 'host', host, 'version', version, 'startedAt', started_at, 'lastSeenAt', last_seen_at, 'concurrency', concurrency, 'jobs', jobs,
           'isAlive', last_seen_at > clock_timestamp() - ${DEAD_AFTER_MS}::float8 * interval '1 millisecond'
         ) order by started_at, name), '[]') from arcadia.workers) as workers,
        (select max(throttled_until) from alive where throttled_until > clock_timestamp()) as throttled_until,
        (select coalesce(jsonb_agg(jsonb_build_object(
           'kind', kind, 'request', request, 'fields', fields, 'subject', subject, 'openedAt', opened_at, 'nextProbeAt', next_probe_at,
           'message', coalesce(detail->>'message', ''), 'scopes', coalesce(detail->'scopes', '[]'),
           'held', (select count(*) from arcadia.held_sagas held join arcadia.sagas on sagas.id = held.saga_id and sagas.revision = held.revision and sagas.wake_at is not null where held.circuit = circuits.id)
         ) order by opened_at), '[]')
         from arcadia.circuits
         where closed_at is null and (not exists (select from alive) or exists (select from alive where alive.scope = circuits.scope))) as refused,
        (select count(*)::int from arcadia.sagas where wake_at is not null) as unfinished,
        (select count(*)::int from arcadia.sagas where wake_at is null and finished_at is null and status = 'stuck') as stuck,
        (select greatest(0, coalesce(extract(epoch from clock_timestamp() - min(wake_at)), 0))::float8 from arcadia.sagas where wake_at is not null) as overdue_seconds,
        (select extract(epoch from clock_timestamp() - coalesce(
           (select max(finished_at) from arcadia.inventory_syncs where outcome = 'complete'), (select min(started_at) from arcadia.inventory_syncs)))::float8) as sync_age_seconds`,
  );
  if (row === undefined) throw new Error('fleet.facts: no answer');
  return {
    ...row,
    workers: row.workers.map((worker) => ({ ...worker, startedAt: new Date(worker.startedAt), lastSeenAt: new Date(worker.lastSeenAt) })),
    refused: row.refused.map((one) => ({ ...one, openedAt: new Date(one.openedAt), nextProbeAt: new Date(one.nextProbeAt) })),
  };
}
