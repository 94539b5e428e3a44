// The rows of new sagas: how one is written once, and found again by whoever may have started it before.
import type { Database, Sql, SqlFragment } from '../platform/db.ts';
import type { JsonObject } from '../platform/json.ts';
import { jsonText } from '../platform/json.ts';
import { runWithShortLocks } from '../platform/lock-wait.ts';
import type { SagaPriority } from './saga.ts';
import type { Known } from './same-request.ts';
import type { Sealed } from './secrets.ts';

/** The data of a new saga. */
export type NewSaga = Readonly<{
  id: string;
  name: string;
  steps: readonly string[];
  /** With its secrets sealed. */
  input: JsonObject;
  /** The input as it was given, its secrets marked; null: the schema changed nothing. */
  given?: JsonObject | null;
  sealed: Sealed | null;
  idempotencyKey: string | null;
  requestedBy: string | null;
  /** Who starts it, proven; null: the role of the database connection. */
  startedBy: string | null;
  /** Default: normal. */
  priority?: SagaPriority;
  traceparent: string | null;
  /** The saga that it repeats. */
  rerunOf?: string | null;
}>;

/**
 * Inserts a saga and its first event. It is due at once: the first process that sees it enqueues it.
 *
 * @param sql the pool, or the caller's transaction; if that is rolled back, the saga never existed
 * @returns false if a saga already exists with this idempotency key, with the same first 8 characters of the id, or as a
 *   repeat of the same saga
 * @param pausesMs how long to wait for a transaction that has used the key and is not committed: see lock-wait.ts
 * @throws {LockHeldError} if it is not committed then
 */
export async function insertSaga(db: Pick<Database, 'run'>, saga: NewSaga, reconcileGraceMs: number, pausesMs?: readonly number[]): Promise<boolean> {
  const rows = await runWithShortLocks(
    db,
    'store.insert',
    (sql, limit) => sql`
      with short as materialized (${limit}),
      inserted as (
        insert into arcadia.sagas (id, saga8, name, status, steps, input, given_input, sealed_user_data, user_data_fingerprint, idempotency_key, requested_by, started_by, priority, traceparent, rerun_of, wake_at)
        select
          ${saga.id}, ${saga.id.slice(0, 8)}, ${saga.name}, 'pending', ${[...saga.steps]}, ${json(sql, saga.input)}, ${saga.given === undefined || saga.given === null ? null : json(sql, saga.given)},
          ${saga.sealed?.value ?? null}, ${saga.sealed?.fingerprint ?? null},
          ${saga.idempotencyKey}, ${saga.requestedBy}, ${starter(sql, saga.startedBy)}, ${saga.priority ?? 'normal'}, ${saga.traceparent}, ${saga.rerunOf ?? null}, clock_timestamp() + ${reconcileGraceMs}::double precision * interval '1 millisecond'
        from short
        on conflict do nothing
        returning id, name, requested_by, started_by, rerun_of
      ),
      audited as (
        insert into arcadia.audit (actor, action, saga_id, detail)
        select coalesce(requested_by, started_by), 'saga_created', id, jsonb_strip_nulls(jsonb_build_object('name', name, 'startedBy', started_by, 'rerunOf', rerun_of)) from inserted
        union all
        select coalesce(requested_by, started_by), 'saga_rerun', rerun_of, jsonb_build_object('rerunAs', id, 'startedBy', started_by) from inserted where rerun_of is not null
      )
      insert into arcadia.saga_events (saga_id, seq, kind, detail)
      select id, 0, 'saga_created', ${json(sql, { status: 'pending', requestedBy: saga.requestedBy })} || jsonb_strip_nulls(jsonb_build_object('startedBy', started_by, 'rerunOf', rerun_of)) from inserted
      returning saga_id`,
    // Without a key, there is nothing to wait for.
    saga.idempotencyKey === null ? null : pausesMs,
  );
  return rows.length === 1;
}

/** The Postgres channel for the ids of sagas whose jobs only a worker can enqueue. */
export const NEW_SAGAS_CHANNEL = 'arcadia_sagas';

/**
 * Notifies the workers that a saga is due; inside a transaction, after the commit. The worker that receives it enqueues
 * the job.
 */
export async function announceSaga(db: Pick<Database, 'run'>, sagaId: string): Promise<void> {
  await db.run('store.announce', (sql) => sql`select pg_notify(${NEW_SAGAS_CHANNEL}, ${sagaId})`);
}

/** Who starts a saga: proven by the caller's credentials, else the role of the database connection. */
function starter(sql: Sql, startedBy: string | null): SqlFragment {
  return sql`coalesce(${startedBy}, 'sql:' || session_user)`;
}

/** The saga that has an idempotency key. `sameStarter`: the caller is proven to have started it. `isOwn`: as far as an older version recorded that. */
type Keyed = Known & Readonly<{ name: string; sameStarter: boolean; isOwn: boolean }>;

/**
 * Finds the saga that was started with this idempotency key.
 *
 * @param keys.former the key as earlier versions stored it over HTTP, if that differs; a saga with the key itself is preferred
 * @param startedBy the caller, proven; null: the role of the database connection
 */
export async function findByIdempotencyKey(db: Pick<Database, 'run'>, { key, former }: Readonly<{ key: string; former: string | null }>, startedBy: string | null): Promise<Keyed | null> {
  const [row] = await db.run(
    'store.find_by_key',
    (sql) => sql<Keyed[]>`
      select id, name, input, given_input as given, input_checked, user_data_fingerprint as fingerprint,
             -- SQL starts sagas with an input that no schema has seen yet.
             case when input_checked then '{}' else arcadia.secret_fields(name) end as secret_fields,
             coalesce(started_by = ${starter(sql, startedBy)}, false) as same_starter,
             -- An older version wrote only the claim.
             coalesce(coalesce(started_by, requested_by) = ${starter(sql, startedBy)}, false) as is_own
      from arcadia.sagas where ${former === null ? sql`idempotency_key = ${key}` : sql`(idempotency_key = ${key} or (idempotency_key = ${former} and coalesce(started_by, requested_by) like 'http:%')) order by idempotency_key = ${key} desc limit 1`}`,
  );
  return row ?? null;
}

/** Reads a saga's input as it was given, its secrets marked; null if the id is unknown. */
export async function loadGivenInput(db: Pick<Database, 'run'>, sagaId: string): Promise<JsonObject | null> {
  const [row] = await db.run('store.load_given', (sql) => sql<{ given: JsonObject }[]>`select coalesce(given_input, input) as given from arcadia.sagas where id = ${sagaId}`);
  return row?.given ?? null;
}

/** Finds the saga that repeats a saga; null: none does. */
export async function findRerun(db: Pick<Database, 'run'>, sagaId: string): Promise<string | null> {
  const [row] = await db.run('store.find_rerun', (sql) => sql<{ id: string }[]>`select id from arcadia.sagas where rerun_of = ${sagaId}`);
  return row?.id ?? null;
}

function json(sql: Sql, value: JsonObject): SqlFragment {
  return sql`${jsonText(value)}::text::jsonb`;
}
