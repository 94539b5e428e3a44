// The sagas in Postgres. One function, one statement. Every write that could race carries the revision it starts from;
// no row updated means that somebody else was first.
import { randomUUID } from 'node:crypto';
import type { Database, Sql, SqlFragment } from '../db.ts';
import { sqlStateOf } from '../db.ts';
import type { Json, JsonObject } from '../json.ts';
import { textOf } from '../json.ts';
import type { Saga, SagaError, SagaEventKind, SagaStatus } from './saga.ts';
import type { Claim, Memo } from './step.ts';
import type { Transition } from './transition.ts';
import type { SealedUserData, StoredUserData } from './user-data.ts';

/**
 * A saga as it was read, with the database's clock at that moment. `dueInMs`: when its current job is due, from then;
 * not below 0. `inputChecked`: the input was held against the saga's schema.
 */
export type LoadedSaga = Readonly<{ saga: Saga; now: Date; dueInMs: number; memo: Memo; inputChecked: boolean }>;

/** What became of a transition: written, or fenced off because the saga had moved on. */
export type CommitResult = 'applied' | 'fenced';

/** An event as it was written, with when and by whom. */
export type StoredEvent = Readonly<{
  seq: number;
  at: Date;
  kind: SagaEventKind;
  step: string | null;
  attempt: number | null;
  detail: JsonObject;
  worker: string | null;
}>;

type SagaRow = Omit<Saga, 'status'> & { status: SagaStatus };

/** The columns that a {@link Saga} consists of. */
export const sagaColumns = (sql: Sql) => sql`
  id, saga8, name, status, steps, cursor, revision, attempt, input, context, error, idempotency_key, requested_by,
  traceparent, cancel_requested_at, step_started_at, created_at, updated_at, finished_at`;

/** What the engine needs of the store, each function one statement: see those below. */
export type SagaStore = Readonly<{
  load(sagaId: string): Promise<LoadedSaga | null>;
  commit(transition: Transition): Promise<CommitResult>;
  takeOverdue(limit: number): Promise<Saga[]>;
  saveMemos(memos: readonly (Claim & { memo: Memo })[]): Promise<void>;
}>;

/**
 * Binds the store's functions to a database.
 *
 * @param options.worker names this process in the events
 * @param options.slackMs how long after it is due a job is given before the reconciler looks for it
 */
export function createSagaStore(db: Database, options: { worker: string; slackMs: number }): SagaStore {
  const { worker, slackMs } = options;
  return {
    load: (sagaId) => loadSaga(db, sagaId, slackMs),
    commit: (transition) => commitTransition(db, transition, worker, slackMs),
    takeOverdue: (limit) => takeOverdue(db, limit, slackMs),
    saveMemos: (memos) => saveMemos(db, memos),
  };
}

/** Reads a saga; null when there is none with this id. */
export async function loadSaga(db: Pick<Database, 'run'>, sagaId: string, slackMs = 0): Promise<LoadedSaga | null> {
  const [row] = await db.run(
    'store.load',
    (sql) => sql<(SagaRow & { now: Date; wakeAt: Date | null; memo: Memo; inputChecked: boolean })[]>`
      select ${sagaColumns(sql)}, wake_at, memo, input_checked, clock_timestamp() as now from arcadia.sagas where id = ${sagaId}`,
  );
  if (row === undefined) return null;
  const { now, wakeAt, memo, inputChecked, ...saga } = row;
  const dueInMs = wakeAt === null ? 0 : Math.max(0, wakeAt.getTime() - slackMs - now.getTime());
  return { saga, now, dueInMs, memo, inputChecked };
}

/**
 * Writes a transition: the row moves to its next revision and the event is inserted, in one statement.
 *
 * Where the reply is lost, the event is looked up: a transition is written at most once, and its writer learns whether
 * it was.
 *
 * @param slackMs how long after the next job is due the reconciler begins to look for it
 * @throws the database's error, when the transition was not written
 */
export async function commitTransition(
  db: Database,
  transition: Transition,
  worker: string,
  slackMs: number,
): Promise<CommitResult> {
  const transitionId = randomUUID();
  try {
    return await writeTransition(db, transition, { worker, slackMs, transitionId });
  } catch (error) {
    if (!mayHaveBeenApplied(error)) throw error;
    const written = await findWriter(db, transition);
    if (written === transitionId) return 'applied';
    if (written !== null) return 'fenced';
    throw error;
  }
}

async function writeTransition(
  db: Database,
  transition: Transition,
  how: { worker: string; slackMs: number; transitionId: string },
): Promise<CommitResult> {
  const { saga, event, next } = transition;
  const wakeInMs = next === null ? null : next.delayMs + how.slackMs;
  const isFinished = saga.status === 'completed' || saga.status === 'compensated';
  // A saga that is being rolled back never asks for a droplet again.
  const mayStillCreate = saga.status === 'pending' || saga.status === 'running';
  const rows = await db.run(
    'store.commit',
    (sql) => sql`
      with moved as (
        update arcadia.sagas
        set status = ${saga.status},
            cursor = ${saga.cursor},
            revision = ${saga.revision},
            attempt = ${saga.attempt},
            context = context || ${json(sql, transition.patch)} || ${stamps(sql, transition.stamps)},
            memo = '{}',
            ${storedInput(sql, transition, mayStillCreate)}
            error = ${saga.error === null ? null : json(sql, saga.error)},
            cancel_requested_at = case when ${event.kind === 'cancel_requested'} then clock_timestamp() else cancel_requested_at end,
            step_started_at = case when ${transition.stepChanged} then clock_timestamp() else step_started_at end,
            wake_at = clock_timestamp() + ${wakeInMs}::double precision * interval '1 millisecond',
            updated_at = clock_timestamp(),
            finished_at = case when ${isFinished} then clock_timestamp() end
        where id = ${transition.sagaId} and revision = ${transition.from}
        returning id
      )${auditIfAsked(sql, transition)}
      insert into arcadia.saga_events (saga_id, seq, kind, step, attempt, detail, worker, transition_id)
      select id, ${event.seq}, ${event.kind}, ${event.step}, ${event.attempt}, ${json(sql, event.detail)}, ${how.worker}, ${how.transitionId}
      from moved
      returning seq`,
  );
  return rows.length === 1 ? 'applied' : 'fenced';
}

/**
 * An input that was checked just now takes the place of the one that nobody had checked, its user data sealed. Else it
 * stays; but a saga that never asks for a droplet again keeps no user data, sealed or, where nobody sealed it, bare.
 */
function storedInput(sql: Sql, { input, sealed }: Transition, mayStillCreate: boolean): SqlFragment {
  if (input !== null) {
    return sql`
            input = ${json(sql, input)}, input_checked = true,
            sealed_user_data = ${sealed?.value ?? null}, user_data_fingerprint = ${sealed?.fingerprint ?? null},`;
  }
  return sql`
            sealed_user_data = case when ${mayStillCreate} then sealed_user_data end,
            input = case
              when ${mayStillCreate} or user_data_fingerprint is not null or input->>'user_data' is null then input
              else jsonb_set(input, '{user_data}', to_jsonb(format('[erased, %s bytes]', octet_length(input->>'user_data'))))
            end,`;
}

/** What a person or a program asked of a saga is audited by the statement that does it: neither is there without the other. */
function auditIfAsked(sql: Sql, { event }: Transition): SqlFragment {
  if (event.kind !== 'cancel_requested' && event.kind !== 'retry_requested') return sql``;
  return sql`,
      audited as (
        insert into arcadia.audit (actor, action, saga_id, detail)
        select ${textOf(event.detail['by'], 'unknown')}, ${event.kind}, id, ${json(sql, event.detail)} from moved
      )`;
}

async function findWriter(db: Database, transition: Transition): Promise<string | null> {
  const [row] = await db.run(
    'store.find_writer',
    (sql) => sql<{ transitionId: string }[]>`
      select transition_id from arcadia.saga_events where saga_id = ${transition.sagaId} and seq = ${transition.event.seq}`,
  );
  return row?.transitionId ?? null;
}

/** Whether a statement that failed so may have been applied all the same. Postgres's own errors (five characters) mean that the statement failed, but for those of class 08, 57 and 40003. */
export function mayHaveBeenApplied(error: unknown): boolean {
  const state = sqlStateOf(error);
  return state === null || state.startsWith('08') || state.startsWith('57') || state === '40003';
}

/**
 * SQL that yields one row as long as the saga is still at this revision, and holds it there until the statement is
 * done: a write that selects from it can't come late.
 */
export function claimFragment(sql: Sql, claim: Claim): SqlFragment {
  return sql`select id from arcadia.sagas where id = ${claim.sagaId} and revision = ${claim.revision} for update`;
}

/** What a new saga consists of. */
export type NewSaga = Readonly<{
  id: string;
  name: string;
  steps: readonly string[];
  /** With its user data sealed. */
  input: JsonObject;
  sealed: SealedUserData | null;
  idempotencyKey: string | null;
  requestedBy: string | null;
  traceparent: string | null;
}>;

/**
 * Inserts a saga and its first event. It is due at once: whoever sees it first enqueues it.
 *
 * @param sql the pool, or a transaction of the caller's: rolled back with it, the saga never was
 * @returns false when a saga with this idempotency key, or with the same first 8 characters of the id, exists already
 */
export async function insertSaga(db: Pick<Database, 'run'>, saga: NewSaga, slackMs: number): Promise<boolean> {
  const rows = await db.run(
    'store.insert',
    (sql) => sql`
      with inserted as (
        insert into arcadia.sagas (id, saga8, name, status, steps, input, sealed_user_data, user_data_fingerprint, idempotency_key, requested_by, traceparent, wake_at)
        values (
          ${saga.id}, ${saga.id.slice(0, 8)}, ${saga.name}, 'pending', ${[...saga.steps]}, ${json(sql, saga.input)},
          ${saga.sealed?.value ?? null}, ${saga.sealed?.fingerprint ?? null},
          ${saga.idempotencyKey}, ${saga.requestedBy}, ${saga.traceparent}, clock_timestamp() + ${slackMs}::double precision * interval '1 millisecond'
        )
        on conflict do nothing
        returning id, name, requested_by
      ),
      audited as (
        insert into arcadia.audit (actor, action, saga_id, detail)
        select requested_by, 'saga_created', id, jsonb_build_object('name', name) from inserted where requested_by is not null
      )
      insert into arcadia.saga_events (saga_id, seq, kind, detail)
      select id, 0, 'saga_created', ${json(sql, { status: 'pending', requestedBy: saga.requestedBy })} from inserted
      returning saga_id`,
  );
  return rows.length === 1;
}

/** On this channel of Postgres stands the id of each saga whose jobs nobody but a worker can enqueue. */
export const NEW_SAGAS_CHANNEL = 'arcadia_sagas';

/** Tells the workers that a saga is due; in a transaction, once it is committed. Whoever hears of it enqueues its job. */
export async function announceSaga(db: Pick<Database, 'run'>, sagaId: string): Promise<void> {
  await db.run('store.announce', (sql) => sql`select pg_notify(${NEW_SAGAS_CHANNEL}, ${sagaId})`);
}

/** Finds the saga that was started with this idempotency key. `sameInput` leaves user data out: it is compared by its fingerprint. */
export async function findByIdempotencyKey(
  db: Pick<Database, 'run'>,
  key: string,
  input: JsonObject,
): Promise<{ id: string; name: string; sameInput: boolean; userData: StoredUserData } | null> {
  const { user_data: _, ...compared } = input;
  const [row] = await db.run(
    'store.find_by_key',
    (sql) => sql<{ id: string; name: string; sameInput: boolean; shown: string | null; fingerprint: string | null }[]>`
      select id, name, input - 'user_data' = ${json(sql, compared)} as same_input,
             input->>'user_data' as shown, user_data_fingerprint as fingerprint
      from arcadia.sagas where idempotency_key = ${key}`,
  );
  if (row === undefined) return null;
  const { shown, fingerprint, ...saga } = row;
  return { ...saga, userData: { shown, fingerprint } };
}

/**
 * Takes sagas that are overdue, and puts their next look `slackMs` away, so that no two reconcilers take the same.
 *
 * @returns the sagas, longest overdue first
 */
export async function takeOverdue(db: Database, limit: number, slackMs: number): Promise<Saga[]> {
  return db.run(
    'store.take_overdue',
    (sql) => sql<SagaRow[]>`
      with overdue as (
        select id as overdue_id from arcadia.sagas
        where status in ('pending', 'running', 'compensating') and wake_at <= clock_timestamp()
        order by wake_at limit ${limit} for update skip locked
      )
      update arcadia.sagas set wake_at = clock_timestamp() + ${slackMs}::double precision * interval '1 millisecond'
      from overdue where id = overdue_id
      returning ${sagaColumns(sql)}`,
  );
}

/** Saves the counters of waiting steps, so that the loss of the queue costs little of them. Late ones are dropped. */
export async function saveMemos(db: Database, memos: readonly (Claim & { memo: Memo })[]): Promise<void> {
  if (memos.length === 0) return;
  await db.run(
    'store.save_memos',
    (sql) => sql`
      update arcadia.sagas set memo = saved.memo
      from jsonb_to_recordset(${json(sql, memos)}) as saved ("sagaId" uuid, revision int, memo jsonb)
      where id = saved."sagaId" and sagas.revision = saved.revision`,
  );
}

/** Reads a saga's events from `afterSeq` on (exclusive), oldest first. */
export async function listEvents(db: Database, sagaId: string, afterSeq = -1): Promise<StoredEvent[]> {
  return db.run(
    'store.list_events',
    (sql) => sql<StoredEvent[]>`
      select seq, at, kind, step, attempt, detail, worker from arcadia.saga_events
      where saga_id = ${sagaId} and seq > ${afterSeq} order by seq`,
  );
}

/** Lists sagas, newest first. */
export async function listSagas(
  db: Database,
  filter: { status?: SagaStatus; name?: string; limit: number },
): Promise<Saga[]> {
  return db.run(
    'store.list',
    (sql) => sql<SagaRow[]>`
      select ${sagaColumns(sql)} from arcadia.sagas
      where ${filter.status === undefined ? sql`true` : sql`status = ${filter.status}`}
        and ${filter.name === undefined ? sql`true` : sql`name = ${filter.name}`}
      order by created_at desc, id limit ${filter.limit}`,
  );
}

function json(sql: Sql, value: JsonObject | SagaError | readonly object[]) {
  return sql`${JSON.stringify(value satisfies Json | readonly object[], storable)}::text::jsonb`;
}

/** Postgres can store neither NUL nor half a surrogate pair; what an API answers may hold either. */
function storable(_key: string, value: unknown): unknown {
  return typeof value === 'string' ? value.toWellFormed().replaceAll('\0', '\uFFFD') : value;
}

function stamps(sql: Sql, keys: readonly string[]) {
  return sql`(select coalesce(jsonb_object_agg(key, to_char(clock_timestamp() at time zone 'utc', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"')), '{}') from unnest(${[...keys]}::text[]) as key)`;
}
