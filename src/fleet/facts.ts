// Reads the facts for the fleet's state from Postgres: one statement, cheap enough for every page.
import type { Database } from '../platform/db.ts';
import type { QueuePlace } from '../queues/queue-store.ts';
import { NEEDS_UNMET } from '../saga/context.ts';
import { MISSING_KEY } from '../saga/secrets.ts';
import { DEAD_AFTER_MS } from './sign-of-life.ts';

/** What DigitalOcean refuses, and how many sagas wait for it. Times are by Postgres's clock. */
export type RefusedFact = Readonly<{
  kind: 'token_refused' | 'request_refused' | 'account_full';
  /** For example `POST /v2/droplets`; null: every request. */
  request: string | null;
  fields: readonly string[];
  /** The only subject refused so far; null: several. */
  subject: string | null;
  openedAt: Date;
  nextProbeAt: Date;
  /** DigitalOcean's message. */
  message: string;
  /** Scopes that the token probably lacks. */
  scopes: readonly string[];
  held: number;
}>;

type WorkerFact = Readonly<{ name: string; host: string; version: string; startedAt: Date; lastSeenAt: Date; concurrency: number; jobs: number; isAlive: boolean }>;

/** Who does not get the outcomes of sagas. */
export type UntoldFact = Readonly<{ name: string; target: string; failingSince: Date | null; lastError: string | null; pausedAt: Date | null; pausedReason: string | null }>;

/** A queue that somebody paused or resumed on Bull Board. `queue` null: all queues. */
export type PauseFact = Readonly<{ queue: string | null; isPause: boolean; actor: string; at: Date }>;

export type PostgresFacts = Readonly<{
  now: Date;
  /** Live workers, and recently seen ones that did not sign off. */
  workers: readonly WorkerFact[];
  /** Where live workers have their queues, each place once. */
  queuePlaces: readonly QueuePlace[];
  /** How long a worker was told to wait for the request budget; null: none waits. */
  throttledUntil: Date | null;
  refused: readonly RefusedFact[];
  /** Subscriptions of outcomes that are paused, or whose deliveries fail. */
  untold: readonly UntoldFact[];
  /** The latest pauses and resumptions of queues, newest first. */
  pauses: readonly PauseFact[];
  unfinished: number;
  stuck: number;
  /** Delay of the most overdue saga, in seconds. */
  overdueSeconds: number;
  /** Postgres takes no writes, of workers neither. */
  isReadOnly: boolean;
  /** Since when each pass of each live worker's reconciler fails; null: one succeeds, or there is no worker. */
  reconcilerFailingSince: Date | null;
  /** Since when DigitalOcean answers no live worker, or only with errors of its servers; null: it answers, or is not asked. */
  providerFailingSince: Date | null;
  /** Surplus droplets that are kept until someone approves their destruction. */
  orphansHeld: number;
  /** Surplus droplets that at least two sweeps could not destroy, since when, and why the last try of one of them failed. */
  sweepsFailing: Readonly<{ droplets: number; since: Date | null; error: string | null }>;
  /** Droplets with our tags for which no record here accounts, and of which nothing proves that they are unneeded. */
  orphansUnknown: number;
  /** Sagas that have been for a while at steps that no live worker knows; null: there are too many sagas to look. */
  unknownSteps: Readonly<{ sagas: number; steps: readonly string[] }> | null;
  /** Sagas that SQL started a while ago and that no live worker can admit, as none knows their name; null: as above. */
  unknownSagas: Readonly<{ sagas: number; names: readonly string[] }> | null;
  /** Sagas that have been for a while at a step of this version that needs what another version has not left them; ids of some. Among those due first. */
  unmetNeeds: Readonly<{ sagas: number; ids: readonly string[]; steps: readonly string[] }>;
  /** Sagas whose workers lack the encryption key of a secret, and the ids of these keys. Among the sagas that are due first. */
  missingKeys: Readonly<{ sagas: number; keys: readonly string[] }>;
  /** Sagas whose step has been tried for ten minutes and got no answer at its last try, or an error of the provider's servers; the ids of some. Also among those due first. */
  unanswered: Readonly<{ sagas: number; ids: readonly string[] }>;
  /**
   * Steps that have run for ten minutes and more on live workers: their number, how many of their sagas are still at that step, the
   * ids of some sagas, and since when the longest runs.
   */
  longRuns: Readonly<{ sagas: number; standing: number; ids: readonly string[]; steps: readonly string[]; workers: readonly string[]; since: Date | null }>;
  /** Time since the last complete sync ended, else since the first attempt; null: none was attempted. */
  syncAgeSeconds: number | null;
  /**
   * `leased`: leases that have not expired. `ended`: those of them that are past their end. `isHeld`: the brake against
   * mass expiry is on.
   */
  leases: Readonly<{ ended: number; leased: number; isHeld: boolean; endedProtected: number }>;
}>;

type FactsRow = Omit<PostgresFacts, 'workers' | 'refused' | 'untold' | 'pauses' | 'longRuns' | 'sweepsFailing' | 'unknownSteps' | 'unknownSagas'> &
  Readonly<{
    unknown: Readonly<{ steps: PostgresFacts['unknownSteps']; sagas: PostgresFacts['unknownSagas'] }>;
    workers: readonly (Omit<WorkerFact, 'startedAt' | 'lastSeenAt'> & { startedAt: string; lastSeenAt: string })[];
    refused: readonly (Omit<RefusedFact, 'openedAt' | 'nextProbeAt'> & { openedAt: string; nextProbeAt: string })[];
    sweepsFailing: Omit<PostgresFacts['sweepsFailing'], 'since'> & { since: string | null };
    longRuns: Omit<PostgresFacts['longRuns'], 'since'> & { since: string | null };
    pauses: readonly { path: string; actor: string; at: string }[];
    untold: readonly (Omit<UntoldFact, 'failingSince' | 'pausedAt'> & { failingSince: string | null; pausedAt: string | null })[];
  }>;

// As Bull Board's routes are audited.
const PAUSING = ['dashboard:PUT /queues/api/queues/:queueName/pause', 'dashboard:PUT /queues/api/queues/:queueName/resume', 'dashboard:PUT /queues/api/queues/pause', 'dashboard:PUT /queues/api/queues/resume'];
const MOST_PAUSES = 50;

// A subscription that no worker is configured for any more tells nobody.
const CONFIGURED_WITHIN = '10 minutes';

// Each is read. With more, a page would wait for it.
const MOST_STEPS_LOOKED_AT = 20_000;
// Each is read. A saga that lacks its key, or has no answer, is due every few seconds, so it is among those that are due first.
const MOST_DUE_LOOKED_AT = 5_000;
// An outage of the provider, or of one of its services, is usually over by then.
const UNANSWERED_FOR = '10 minutes';
const MOST_IDS = 3;
// In a deploy, workers of the version before go on with the steps that only they know.
const UNKNOWN_AFTER = '2 minutes';

/** Reads them. What is refused to a token that no live worker has counts only while there is no live worker. */
export async function readFleetFacts(db: Pick<Database, 'run'>): Promise<PostgresFacts> {
  const [row] = await db.run(
    'fleet.facts',
    (sql) => sql<FactsRow[]>`
      with alive as (
        select name, scope, throttled_until, long_runs, long_run_steps, long_run_since, steps, sagas, queue_store, queue_prefix, reconciler_failing_since, provider_failing_since, provider_answered_at from arcadia.workers where last_seen_at > clock_timestamp() - ${DEAD_AFTER_MS}::float8 * interval '1 millisecond'
      ),
      -- Where a worker does not tell, it may know all that \`migrate\` wrote.
      known as (
        select unnest(steps) as step from alive
        union all
        select unnest(steps) from arcadia.saga_definitions where coalesce((select bool_or(steps is null) from alive), true)
      ),
      known_sagas as (
        select unnest(sagas) as name from alive
        union all
        select name from arcadia.saga_definitions where coalesce((select bool_or(sagas is null) from alive), true)
      ),
      due as (
        select id, steps[cursor + 1] as step, step_started_at, context->>${MISSING_KEY}::text as key, memo ? 'outages' as has_no_answer, memo ? ${NEEDS_UNMET}::text as has_unmet_needs
        from arcadia.sagas where wake_at is not null order by wake_at limit ${MOST_DUE_LOOKED_AT}
      )
      select
        clock_timestamp() as now,
        current_setting('transaction_read_only')::bool as is_read_only,
        (select case when bool_and(reconciler_failing_since is not null) then max(reconciler_failing_since) end from alive) as reconciler_failing_since,
        (select case when max(provider_answered_at) is null or max(provider_answered_at) < max(provider_failing_since) then min(provider_failing_since) filter (where provider_failing_since > coalesce(recently, '-infinity')) end
         from (select provider_answered_at, provider_failing_since, max(provider_answered_at) over () as recently from alive) as asked) as provider_failing_since,
        (select case when (select (summary->>'held')::int from arcadia.inventory_syncs where outcome = 'complete' order by number desc limit 1) > 0
           then (select count(*)::int from arcadia.cloud_orphans where resolved_at is null and category = 'surplus' and approved_at is null) else 0 end) as orphans_held,
        (select count(*)::int from arcadia.cloud_orphans where resolved_at is null and category = 'unknown' and acknowledged_at is null) as orphans_unknown,
        (select jsonb_build_object('droplets', count(*), 'since', min(sweep_failing_since), 'error', (array_agg(sweep_error order by sweep_failing_since))[1])
         from arcadia.cloud_orphans where resolved_at is null and category = 'surplus' and failed_sweeps >= 2) as sweeps_failing,
        (select coalesce(jsonb_agg(jsonb_build_object(
           'name', name, 'host', host, 'version', version, 'startedAt', started_at, 'lastSeenAt', last_seen_at, 'concurrency', concurrency, 'jobs', jobs,
           'isAlive', last_seen_at > clock_timestamp() - ${DEAD_AFTER_MS}::float8 * interval '1 millisecond'
         ) order by started_at, name), '[]') from arcadia.workers) as workers,
        (select coalesce(jsonb_agg(distinct jsonb_build_object('kind', queue_store, 'prefix', queue_prefix)), '[]') from alive where queue_store is not null) as queue_places,
        (select max(throttled_until) from alive where throttled_until > clock_timestamp()) as throttled_until,
        (select coalesce(jsonb_agg(jsonb_build_object(
           'kind', kind, 'request', request, 'fields', fields, 'subject', subject, 'openedAt', opened_at, 'nextProbeAt', next_probe_at,
           'message', coalesce(detail->>'message', ''), 'scopes', coalesce(detail->'scopes', '[]'),
           'held', (select count(*) from arcadia.held_sagas held join arcadia.sagas on sagas.id = held.saga_id and sagas.revision = held.revision and sagas.wake_at is not null where held.circuit = circuits.id)
         ) order by opened_at), '[]')
         from arcadia.circuits
         where closed_at is null and (not exists (select from alive) or exists (select from alive where alive.scope = circuits.scope))) as refused,
        (select coalesce(jsonb_agg(jsonb_build_object(
           'name', name, 'target', target, 'failingSince', failing_since, 'lastError', last_error, 'pausedAt', paused_at, 'pausedReason', paused_reason) order by name), '[]')
         from arcadia.outcome_subscriptions
         where (paused_at is not null or failing_since is not null) and configured_at > clock_timestamp() - ${CONFIGURED_WITHIN}::interval) as untold,
        (select coalesce(jsonb_agg(jsonb_build_object('path', path, 'actor', actor, 'at', at) order by id desc), '[]') from (
           select id, detail->>'path' as path, actor, at from arcadia.audit where action = any(${PAUSING}::text[]) order by id desc limit ${MOST_PAUSES}) as latest) as pauses,
        (select count(*)::int from arcadia.sagas where wake_at is not null) as unfinished,
        (select count(*)::int from arcadia.sagas where wake_at is null and finished_at is null and status = 'stuck') as stuck,
        (select greatest(0, coalesce(extract(epoch from clock_timestamp() - min(wake_at)), 0))::float8 from arcadia.sagas where wake_at is not null) as overdue_seconds,
        (select case when count(*) <= ${MOST_STEPS_LOOKED_AT} then jsonb_build_object(
           'steps', jsonb_build_object('sagas', count(*) filter (where is_unknown_step), 'steps', coalesce(jsonb_agg(distinct step) filter (where is_unknown_step), '[]')),
           'sagas', jsonb_build_object('sagas', count(*) filter (where is_unknown_saga), 'names', coalesce(jsonb_agg(distinct name) filter (where is_unknown_saga), '[]'))
         ) else '{"steps": null, "sagas": null}' end from (
           -- What waits to be admitted waits for its saga, whatever its first step.
           select step, name, is_old and is_unknown_saga as is_unknown_saga, is_old and not is_unknown_saga and step <> all (array(select step from known)) as is_unknown_step
           from (
             select steps[cursor + 1] as step, name, step_started_at < clock_timestamp() - ${UNKNOWN_AFTER}::interval as is_old,
               status = 'pending' and not input_checked and name <> all (array(select name from known_sagas)) as is_unknown_saga
             from arcadia.sagas where wake_at is not null limit ${MOST_STEPS_LOOKED_AT + 1}) as unfinished) as at_steps) as unknown,
        (select jsonb_build_object('sagas', count(key), 'keys', coalesce(jsonb_agg(distinct key) filter (where key is not null), '[]')) from due) as missing_keys,
        (select jsonb_build_object('sagas', count(*), 'ids', coalesce(to_jsonb((array_agg(id order by step_started_at))[:${MOST_IDS}::int]), '[]')) from due where has_no_answer and step_started_at < clock_timestamp() - ${UNANSWERED_FOR}::interval) as unanswered,
        (select jsonb_build_object('sagas', count(*), 'ids', coalesce(to_jsonb((array_agg(id order by step_started_at))[:${MOST_IDS}::int]), '[]'), 'steps', coalesce(jsonb_agg(distinct step), '[]'))
         from due where has_unmet_needs and step_started_at < clock_timestamp() - ${UNKNOWN_AFTER}::interval) as unmet_needs,
        (select jsonb_build_object('sagas', count(*), 'standing', count(*) filter (where wake_at is not null and steps[cursor + 1] = run.step), 'since', min(since),
           'ids', coalesce(to_jsonb((array_agg(run.id order by since))[:${MOST_IDS}::int]), '[]'), 'steps', coalesce(jsonb_agg(distinct run.step), '[]'), 'workers', coalesce(jsonb_agg(distinct worker), '[]'))
         from (select unnest(long_runs) as id, unnest(long_run_steps) as step, long_run_since as since, alive.name as worker from alive) as run left join arcadia.sagas on sagas.id = run.id) as long_runs,
        (select extract(epoch from clock_timestamp() - coalesce(
           (select max(finished_at) from arcadia.inventory_syncs where outcome = 'complete'), (select min(started_at) from arcadia.inventory_syncs)))::float8) as sync_age_seconds,
        (select jsonb_build_object('ended', ended, 'leased', leased, 'isHeld', is_held, 'endedProtected', ended_protected) from arcadia.lease_brake()) as leases`,
  );
  if (row === undefined) throw new Error('fleet.facts: no answer');
  const { unknown, ...rest } = row;
  return {
    ...rest,
    unknownSteps: unknown.steps,
    unknownSagas: unknown.sagas,
    workers: row.workers.map((worker) => ({ ...worker, startedAt: new Date(worker.startedAt), lastSeenAt: new Date(worker.lastSeenAt) })),
    sweepsFailing: { ...row.sweepsFailing, since: dateOf(row.sweepsFailing.since) },
    longRuns: { ...row.longRuns, since: dateOf(row.longRuns.since) },
    pauses: row.pauses.flatMap(pauseOf),
    untold: row.untold.map((one) => ({ ...one, failingSince: dateOf(one.failingSince), pausedAt: dateOf(one.pausedAt) })),
    refused: row.refused.map((one) => ({ ...one, openedAt: new Date(one.openedAt), nextProbeAt: new Date(one.nextProbeAt) })),
  };
}

function pauseOf({ path, actor, at }: FactsRow['pauses'][number]): PauseFact[] {
  const [, queue, action] = /^\/queues\/api\/queues\/(?:([^/]+)\/)?(pause|resume)$/.exec(path) ?? [];
  return action === undefined ? [] : [{ queue: queue ?? null, isPause: action === 'pause', actor, at: new Date(at) }];
}

function dateOf(time: string | null): Date | null {
  return time === null ? null : new Date(time);
}
