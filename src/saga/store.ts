// The sagas in Postgres. One function, one statement. Every write that could race carries the revision it starts from;
// no row updated means that somebody else was first.
import type { Database, Sql, SqlFragment } from '../platform/db.ts';
import { batch } from '../platform/batch.ts';
import type { JsonObject } from '../platform/json.ts';
import { jsonText } from '../platform/json.ts';
import { msBetween } from '../platform/time.ts';
import type { CommitResult } from './commit.ts';
import { commitTransition, transitionWriter } from './commit.ts';
import { createRecentSagas } from './recent.ts';
import type { ClaimedSaga, LoadedSaga } from './loaded.ts';
import type { Saga, SagaEventKind, SagaStatus } from './saga.ts';
import type { Claim, Memo } from './step.ts';
import type { Transition } from './transition.ts';
import type { HoldResource } from './resource.ts';
import { createHoldResource } from './resource.ts';
import type { Sealed, StoredSecrets } from './secrets.ts';

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

/** The columns that a {@link Saga} consists of; two of them may be told in other words. */
export const sagaColumns = (sql: Sql, { input, error } = { input: sql`input`, error: sql`error` }) => sql`
  id, saga8, name, status, steps, cursor, revision, attempt, ${input}, context, ${error}, idempotency_key, requested_by, started_by,
  traceparent, resource, case when finished_at is null then waits_for end as waits_for, cancel_requested_at, step_started_at, created_at, updated_at, finished_at`;

/** A saga that is overdue, with the database's clock when it was taken. */
export type OverdueSaga = Saga & Readonly<{ now: Date }>;

/** What the engine needs of the store, each function one statement: see those below. */
export type SagaStore = Readonly<{
  load(sagaId: string): Promise<LoadedSaga | null>;
  /** Reads a saga for a job. A pending one that needs no admission, and the first step of which is among `startsAt`, is running from then on. */
  claim(job: Claim & { step?: string | undefined }): Promise<ClaimedSaga | null>;
  commit(transition: Transition): Promise<CommitResult>;
  hold: HoldResource;
  takeOverdue(limit: number): Promise<OverdueSaga[]>;
  saveMemos(memos: readonly (Claim & { memo: Memo })[]): Promise<void>;
}>;

// Rows in one statement; and how long the next waits for it, where it meets a row that somebody holds.
const batching = { max: 200, patienceMs: 50 };

// A saga that this process moved on is known for so long: the job that follows comes within milliseconds, or behind a
// backlog of some seconds. Of this many, each takes about a kilobyte.
const known = { max: 20_000, maxAgeMs: 5_000 };

/**
 * Binds the store's functions to a database.
 *
 * @param options.worker names this process in the events
 * @param options.reconcileGraceMs how long after it is due a job is given before the reconciler looks for it
 * @param options.startsAt names of first steps: a claim starts the sagas that begin with one of them
 */
export function createSagaStore(db: Database, options: { worker: string; reconcileGraceMs: number; startsAt?: readonly string[] }): SagaStore {
  const { reconcileGraceMs, worker, startsAt = [] } = options;
  const recent = createRecentSagas(known);
  // What concurrent steps read and write goes in one statement each: on its own, each would cost a round trip.
  const load = batch((sagaIds: readonly string[]) => loadSagas(db, sagaIds, reconcileGraceMs), batching);
  const start = batch((sagaIds: readonly string[]) => startSagas(db, sagaIds, { worker, reconcileGraceMs, steps: startsAt }), batching);
  const write = batch(transitionWriter(db, { worker, reconcileGraceMs, onWritten: recent.put }), batching);
  return {
    load,
    claim: async (job) => {
      const mayStart = job.revision === 0 && (job.step === undefined ? startsAt.length > 0 : startsAt.includes(job.step));
      const mine = mayStart ? await start(job.sagaId) : recent.take(job);
      if (mine !== null) return { ...mine, stands: true };
      const loaded = await load(job.sagaId);
      return loaded === null ? null : { ...loaded, stands: loaded.saga.revision === job.revision, ageMs: 0 };
    },
    hold: createHoldResource(db),
    commit: (transition) => commitTransition(db, transition, write),
    takeOverdue: (limit) => takeOverdue(db, limit, reconcileGraceMs),
    saveMemos: (memos) => saveMemos(db, memos),
  };
}

/** Reads a saga; null when there is none with this id. */
export async function loadSaga(db: Pick<Database, 'run'>, sagaId: string, reconcileGraceMs = 0): Promise<LoadedSaga | null> {
  return (await loadSagas(db, [sagaId], reconcileGraceMs))[0] ?? null;
}

async function loadSagas(db: Pick<Database, 'run'>, sagaIds: readonly string[], reconcileGraceMs: number): Promise<(LoadedSaga | null)[]> {
  const rows = await db.run(
    'store.load',
    (sql) => sql<(SagaRow & { now: Date; wakeAt: Date | null; memo: Memo; inputChecked: boolean })[]>`
      select ${sagaColumns(sql)}, wake_at, memo, input_checked, clock_timestamp() as now from arcadia.sagas where id = any(${[...sagaIds]}::uuid[])`,
  );
  const loaded = new Map(
    rows.map(({ now, wakeAt, memo, inputChecked, ...saga }) => {
      const dueInMs = wakeAt === null ? 0 : Math.max(0, msBetween(now, wakeAt) - reconcileGraceMs);
      return [saga.id, { saga, now, dueInMs, memo, inputChecked }];
    }),
  );
  // Postgres takes a UUID in capitals too, and answers in small letters.
  return sagaIds.map((sagaId) => loaded.get(sagaId.toLowerCase()) ?? null);
}

/**
 * Starts pending sagas and reads them, in one statement: what {@link decide} makes of a saga that is `started`, with its
 * event. Where the reply is lost, the job that claimed the saga finds it moved on, and sees to the next job.
 *
 * @returns null for a saga that is not pending, the input of which nobody has checked, or the first step of which is not
 *   among `steps`
 */
async function startSagas(
  db: Pick<Database, 'run'>,
  sagaIds: readonly string[],
  { worker, reconcileGraceMs, steps }: { worker: string; reconcileGraceMs: number; steps: readonly string[] },
): Promise<(Omit<ClaimedSaga, 'stands'> | null)[]> {
  const rows = await db.run(
    'store.start',
    (sql) => sql<SagaRow[]>`
      with started as (
        update arcadia.sagas
        set status = 'running', revision = 1, updated_at = clock_timestamp(), wake_at = clock_timestamp() + ${reconcileGraceMs}::double precision * interval '1 millisecond'
        where id = any(${[...sagaIds]}::uuid[]) and revision = 0 and status = 'pending' and input_checked and steps[1] = any(${[...steps]}::text[])
        returning ${sagaColumns(sql)}
      ),
      inserted_events as (
        insert into arcadia.saga_events (saga_id, seq, kind, step, attempt, detail, worker)
        select id, 1, 'saga_started', steps[1], 1, '{"status": "running"}', ${worker} from started
      )
      select * from started`,
  );
  const started = new Map(rows.map((saga) => [saga.id, { saga, now: saga.updatedAt, dueInMs: 0, memo: {}, inputChecked: true, ageMs: 0 }]));
  return sagaIds.map((sagaId) => {
    const mine = started.get(sagaId) ?? null;
    // Two jobs may claim it at once: one of them started it, the other comes late.
    started.delete(sagaId);
    return mine;
  });
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
  /** With its secrets sealed. */
  input: JsonObject;
  sealed: Sealed | null;
  idempotencyKey: string | null;
  requestedBy: string | null;
  /** Who starts it, proven; null: the role of the database connection. */
  startedBy: string | null;
  traceparent: string | null;
}>;

/**
 * Inserts a saga and its first event. It is due at once: whoever sees it first enqueues it.
 *
 * @param sql the pool, or a transaction of the caller's: rolled back with it, the saga never was
 * @returns false when a saga with this idempotency key, or with the same first 8 characters of the id, exists already
 */
export async function insertSaga(db: Pick<Database, 'run'>, saga: NewSaga, reconcileGraceMs: number): Promise<boolean> {
  const rows = await db.run(
    'store.insert',
    (sql) => sql`
      with inserted as (
        insert into arcadia.sagas (id, saga8, name, status, steps, input, sealed_user_data, user_data_fingerprint, idempotency_key, requested_by, started_by, traceparent, wake_at)
        values (
          ${saga.id}, ${saga.id.slice(0, 8)}, ${saga.name}, 'pending', ${[...saga.steps]}, ${json(sql, saga.input)},
          ${saga.sealed?.value ?? null}, ${saga.sealed?.fingerprint ?? null},
          ${saga.idempotencyKey}, ${saga.requestedBy}, ${starter(sql, saga.startedBy)}, ${saga.traceparent}, clock_timestamp() + ${reconcileGraceMs}::double precision * interval '1 millisecond'
        )
        on conflict do nothing
        returning id, name, requested_by, started_by
      ),
      audited as (
        insert into arcadia.audit (actor, action, saga_id, detail)
        select coalesce(requested_by, started_by), 'saga_created', id, jsonb_build_object('name', name, 'startedBy', started_by) from inserted
      )
      insert into arcadia.saga_events (saga_id, seq, kind, detail)
      select id, 0, 'saga_created', ${json(sql, { status: 'pending', requestedBy: saga.requestedBy })} || jsonb_build_object('startedBy', started_by) from inserted
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

/** Who starts a saga: as the caller proved it, else the role of the database connection. */
function starter(sql: Sql, startedBy: string | null): SqlFragment {
  return sql`coalesce(${startedBy}, 'sql:' || session_user)`;
}

/**
 * Finds the saga that was started with this idempotency key. `sameInput` leaves secrets out: they are compared by their
 * fingerprints. `sameStarter`: the caller is proven to have started it; `isOwn`: the caller started it, as far as an older
 * version wrote that down.
 *
 * @param startedBy who asks, proven; null: the role of the database connection
 * @param secrets names of the fields that are secret
 */
export async function findByIdempotencyKey(
  db: Pick<Database, 'run'>,
  key: string,
  input: JsonObject,
  startedBy: string | null,
  secrets: readonly string[],
): Promise<{ id: string; name: string; sameInput: boolean; sameStarter: boolean; isOwn: boolean; secrets: StoredSecrets } | null> {
  const compared = Object.fromEntries(Object.entries(input).filter(([field]) => !secrets.includes(field)));
  const [row] = await db.run(
    'store.find_by_key',
    (sql) => sql<{ id: string; name: string; sameInput: boolean; sameStarter: boolean; isOwn: boolean; shown: StoredSecrets['shown']; fingerprint: string | null }[]>`
      select id, name, input - ${[...secrets]}::text[] = ${json(sql, compared)} as same_input,
             coalesce(started_by = ${starter(sql, startedBy)}, false) as same_starter,
             -- An older version wrote only the claim.
             coalesce(coalesce(started_by, requested_by) = ${starter(sql, startedBy)}, false) as is_own,
             (select coalesce(jsonb_object_agg(key, value), '{}') from jsonb_each(input) where key = any(${[...secrets]}::text[])) as shown, user_data_fingerprint as fingerprint
      from arcadia.sagas where idempotency_key = ${key}`,
  );
  if (row === undefined) return null;
  const { shown, fingerprint, ...saga } = row;
  return { ...saga, secrets: { shown, fingerprint } };
}

/**
 * Takes sagas that are overdue, and puts their next look `reconcileGraceMs` away, so that no two reconcilers take the same.
 *
 * @returns the sagas, longest overdue first
 */
export async function takeOverdue(db: Database, limit: number, reconcileGraceMs: number): Promise<OverdueSaga[]> {
  return db.run(
    'store.take_overdue',
    (sql) => sql<(SagaRow & { now: Date })[]>`
      with overdue as (
        select id from arcadia.sagas
        -- In a subquery, as no index is asked for what may change from row to row. The status is left to the update: here
        -- it would have a second index read, of all that are unfinished.
        where wake_at <= (select clock_timestamp())
        order by wake_at limit ${limit} for update skip locked
      )
      update arcadia.sagas set wake_at = clock_timestamp() + ${reconcileGraceMs}::double precision * interval '1 millisecond'
      where id = any(array(select id from overdue)) and status in ('pending', 'running', 'compensating')
      returning ${sagaColumns(sql)}, clock_timestamp() as now`,
  );
}

/** Saves the counters of waiting steps, so that the loss of the queue costs little of them. Late ones are dropped. */
export async function saveMemos(db: Database, memos: readonly (Claim & { memo: Memo })[]): Promise<void> {
  if (memos.length === 0) return;
  // By id, as transitions that are written together are: of the same sagas, neither waits for the other with some in hand.
  const rows = memos.toSorted((one, other) => (one.sagaId < other.sagaId ? -1 : 1));
  await db.run(
    'store.save_memos',
    (sql) => sql`
      update arcadia.sagas set memo = saved.memo
      from jsonb_to_recordset(${json(sql, rows)}) as saved ("sagaId" uuid, revision int, memo jsonb)
      where id = saved."sagaId" and sagas.revision = saved.revision and id = any(${rows.map(({ sagaId }) => sagaId)}::uuid[])`,
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

/** How far a saga is: its status, and what happened to it after an event. */
export type SagaProgress = Readonly<{ status: SagaStatus; events: readonly StoredEvent[] }>;

/** Reads how far many sagas are, in one statement: for each, the events after `afterSeq`, oldest first. Sagas that are not there are left out. */
export async function readProgress(db: Pick<Database, 'run'>, wanted: readonly { sagaId: string; afterSeq: number }[]): Promise<ReadonlyMap<string, SagaProgress>> {
  const rows = await db.run(
    'store.progress',
    (sql) => sql<{ id: string; status: SagaStatus; events: readonly (Omit<StoredEvent, 'at'> & { at: string })[] | null }[]>`
      with wanted as (select "sagaId" as id, "afterSeq" as after_seq from jsonb_to_recordset(${json(sql, wanted)}) as wanted ("sagaId" uuid, "afterSeq" int))
      select saga.id, saga.status,
             case when saga.revision > wanted.after_seq then (
               select jsonb_agg(jsonb_build_object('seq', seq, 'at', at, 'kind', kind, 'step', step, 'attempt', attempt, 'detail', detail, 'worker', worker) order by seq)
               from arcadia.saga_events where saga_id = wanted.id and seq > wanted.after_seq
             ) end as events
      from wanted join arcadia.sagas saga on saga.id = wanted.id`,
  );
  return new Map(rows.map(({ id, status, events }) => [id, { status, events: (events ?? []).map((event) => ({ ...event, at: new Date(event.at) })) }]));
}

function json(sql: Sql, value: JsonObject | readonly object[]) {
  return sql`${jsonText(value)}::text::jsonb`;
}
