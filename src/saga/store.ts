// The sagas in Postgres. One function, one statement. Every write that could race carries the revision it starts from. If
// no row is updated, another writer was first.
import type { Database, Sql, SqlFragment } from '../platform/db.ts';
import { oneOf } from '../platform/db.ts';
import { batch } from '../platform/batch.ts';
import { jsonText } from '../platform/json.ts';
import { msBetween } from '../platform/time.ts';
import type { CommitResult } from './commit.ts';
import { commitTransition, transitionWriter } from './commit.ts';
import { createRecentSagas } from './recent.ts';
import type { ClaimedSaga, LoadedSaga } from './loaded.ts';
import type { Saga, SagaStatus } from './saga.ts';
import { isAtRest } from './saga.ts';
import type { Claim, Memo } from './step.ts';
import type { Transition } from './transition.ts';
import type { HoldResource } from './resource.ts';
import { createHoldResource } from './resource.ts';
import type { WrittenDefinition } from './written-definitions.ts';
import { writtenColumn } from './written-definitions.ts';

type SagaRow = Omit<Saga, 'status'> & { status: SagaStatus };

/** The columns of a {@link Saga}. Two of them can be replaced by other expressions. */
export const sagaColumns = (sql: Sql, { input, error } = { input: sql`input`, error: sql`error` }) => sql`
  id, saga8, name, status, steps, cursor, revision, attempt, ${input}, context, ${error}, idempotency_key, requested_by, started_by, priority,
  traceparent, resource, case when finished_at is null then waits_for end as waits_for, rerun_of,
  -- Only a saga that was rolled back can have one: the others are spared the look.
  case when status = 'compensated' then (select rerun.id from arcadia.sagas as rerun where rerun.rerun_of = sagas.id) end as rerun_as, cancel_requested_at, step_started_at, created_at, updated_at, finished_at`;

/** An overdue saga, with the database's clock when it was taken. */
export type OverdueSaga = Saga & Readonly<{ now: Date }>;

/** A saga that came to rest, and the time since it was created, in milliseconds by the database's clock. */
export type SagaEnd = Readonly<{ saga: string; status: Extract<SagaStatus, 'completed' | 'compensated' | 'stuck'>; durationMs: number }>;

/** The engine's interface to the store. Each function is one statement: see below. */
export type SagaStore = Readonly<{
  load(sagaId: string): Promise<LoadedSaga | null>;
  /**
   * Reads a saga for a job. If it is pending, needs no admission, and starts with a step from `startsAt`, it is also set
   * to running.
   */
  claim(job: Claim & { step?: string | undefined }): Promise<ClaimedSaga | null>;
  commit(transition: Transition): Promise<CommitResult>;
  hold: HoldResource;
  takeOverdue(limit: number): Promise<OverdueSaga[]>;
  saveMemos(memos: readonly (Claim & { memo: Memo })[]): Promise<void>;
}>;

// Maximum number of rows per statement, and how long the next statement waits for one that is blocked by a row lock.
const batching = { max: 200, patienceMs: 50 };

// How many sagas that this process moved on are kept, and for how long. The next job arrives within milliseconds, or
// behind a backlog of several seconds. Each saga takes about a kilobyte.
const known = { max: 20_000, maxAgeMs: 5_000 };

/**
 * Creates the store on a database.
 *
 * @param options.worker names this process in the events
 * @param options.reconcileGraceMs how long after its due time a job is left alone before the reconciler checks it
 * @param options.startsAt names of first steps: a claim starts the sagas that begin with one of them
 * @param options.onEnd is called once for each end that this store wrote. Must not throw
 */
export function createSagaStore(db: Database, options: { worker: string; reconcileGraceMs: number; startsAt?: readonly string[]; onEnd?: (end: SagaEnd) => void }): SagaStore {
  const { reconcileGraceMs, worker, startsAt = [], onEnd } = options;
  const recent = createRecentSagas(known);
  // One statement each serves the reads and writes of concurrent steps. Separately, each would cost a round trip.
  const load = batch((sagaIds: readonly string[]) => loadSagas(db, sagaIds, reconcileGraceMs), batching);
  const loadToRun = batch((sagaIds: readonly string[]) => loadSagas(db, sagaIds, reconcileGraceMs, writtenColumn), batching);
  const start = batch((sagaIds: readonly string[]) => startSagas(db, sagaIds, { worker, reconcileGraceMs, steps: startsAt }), batching);
  const write = batch(transitionWriter(db, { worker, reconcileGraceMs, onWritten: recent.put }), batching);
  return {
    load,
    claim: async (job) => {
      const mayStart = job.revision === 0 && (job.step === undefined ? startsAt.length > 0 : startsAt.includes(job.step));
      const mine = mayStart ? await start(job.sagaId) : recent.take(job);
      if (mine !== null) return { ...mine, stands: true };
      const loaded = await loadToRun(job.sagaId);
      return loaded === null ? null : { ...loaded, stands: loaded.saga.revision === job.revision, ageMs: 0 };
    },
    hold: createHoldResource(db),
    commit: async (transition) => {
      const result = await commitTransition(db, transition, write);
      const { name, status, createdAt } = transition.saga;
      if (result === 'applied' && onEnd !== undefined && isAtRest(status)) onEnd({ saga: name, status, durationMs: Math.max(0, Date.now() - createdAt.getTime()) });
      return result;
    },
    takeOverdue: (limit) => takeOverdue(db, limit, reconcileGraceMs),
    saveMemos: (memos) => saveMemos(db, memos),
  };
}

/** Reads a saga; null if the id is unknown. */
export async function loadSaga(db: Pick<Database, 'run'>, sagaId: string, reconcileGraceMs = 0): Promise<LoadedSaga | null> {
  return (await loadSagas(db, [sagaId], reconcileGraceMs))[0] ?? null;
}

/** @param written what to read of the written definitions: only workers may */
async function loadSagas(db: Pick<Database, 'run'>, sagaIds: readonly string[], reconcileGraceMs: number, written = noneWritten): Promise<(LoadedSaga & Pick<ClaimedSaga, 'written'> | null)[]> {
  const rows = await db.run(
    'store.load',
    (sql) => sql<(SagaRow & { now: Date; wakeAt: Date | null; memo: Memo; inputChecked: boolean; written: WrittenDefinition | null })[]>`
      select ${sagaColumns(sql)}, wake_at, memo, input_checked, ${written(sql)} as written, clock_timestamp() as now from arcadia.sagas where id ${oneOf(sql, sagaIds)}`,
  );
  const loaded = new Map(
    rows.map((row) => {
      const { now, wakeAt, memo, inputChecked } = row;
      const dueInMs = wakeAt === null ? 0 : Math.max(0, msBetween(now, wakeAt) - reconcileGraceMs);
      return [row.id, { saga: sagaOf(row), now, dueInMs, memo, inputChecked, ...(row.written === null ? {} : { written: row.written }) }];
    }),
  );
  // Postgres also accepts a UUID in upper case, but returns it in lower case.
  return sagaIds.map((sagaId) => loaded.get(sagaId.toLowerCase()) ?? null);
}

const noneWritten = (sql: Sql) => sql`null`;

/** Takes the saga out of a wider row. Each worker does so for each saga, and naming the fields takes a fraction of leaving out others. */
function sagaOf(row: SagaRow): SagaRow {
  return {
    id: row.id,
    saga8: row.saga8,
    name: row.name,
    status: row.status,
    steps: row.steps,
    cursor: row.cursor,
    revision: row.revision,
    attempt: row.attempt,
    input: row.input,
    context: row.context,
    error: row.error,
    idempotencyKey: row.idempotencyKey,
    requestedBy: row.requestedBy,
    startedBy: row.startedBy,
    priority: row.priority,
    traceparent: row.traceparent,
    resource: row.resource,
    waitsFor: row.waitsFor,
    rerunOf: row.rerunOf,
    rerunAs: row.rerunAs,
    cancelRequestedAt: row.cancelRequestedAt,
    stepStartedAt: row.stepStartedAt,
    createdAt: row.createdAt,
    updatedAt: row.updatedAt,
    finishedAt: row.finishedAt,
  };
}

/**
 * Starts pending sagas and reads them, in one statement: the same transition and event that {@link decide} returns for
 * `started`. If the reply is lost, the job that claimed the saga finds that it has moved on, and makes sure that the next
 * job exists.
 *
 * @returns null for a saga that is not pending, whose input is unchecked, or whose first step is not among `steps`
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
        where id ${oneOf(sql, sagaIds)} and revision = 0 and status = 'pending' and input_checked and steps[1] = any(${[...steps]}::text[])
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
    // Two jobs may claim it at once: one of them started it, the other is late.
    started.delete(sagaId);
    return mine;
  });
}

/**
 * SQL that yields one row while the saga is at this revision, and locks the row until the statement ends. A write that
 * selects from it cannot come late.
 */
export function claimFragment(sql: Sql, claim: Claim): SqlFragment {
  return sql`select id from arcadia.sagas where id = ${claim.sagaId} and revision = ${claim.revision} for update`;
}

/**
 * Takes overdue sagas and postpones their next check by `reconcileGraceMs`, so that no two reconcilers take the same
 * saga.
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

/** Saves the counters of waiting steps, so that little of them is lost with the queue. Late ones are dropped. */
export async function saveMemos(db: Database, memos: readonly (Claim & { memo: Memo })[]): Promise<void> {
  if (memos.length === 0) return;
  // Sorted by id, like transitions that are written together: two statements lock the same sagas in the same order and
  // cannot deadlock.
  const rows = memos.toSorted((one, other) => (one.sagaId < other.sagaId ? -1 : 1));
  await db.run(
    'store.save_memos',
    (sql) => sql`
      update arcadia.sagas set memo = saved.memo
      from jsonb_to_recordset(${jsonText(rows)}::text::jsonb) as saved ("sagaId" uuid, revision int, memo jsonb)
      where id = saved."sagaId" and sagas.revision = saved.revision and id = any(${rows.map(({ sagaId }) => sagaId)}::uuid[])`,
  );
}
