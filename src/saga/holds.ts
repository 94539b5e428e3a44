// Sagas that wait for a circuit. They are recorded when they begin to wait and woken when the circuit closes. A saga that
// is not woken retries by itself, much later.
import { setTimeout as delay } from 'node:timers/promises';
import type { Database } from '../platform/db.ts';
import { batch } from '../platform/batch.ts';
import { jsonText } from '../platform/json.ts';
import type { Log } from '../platform/log.ts';
import type { NextJob, Saga } from './saga.ts';
import { nextJobOf } from './saga.ts';
import { sagaColumns } from './store.ts';
import type { Wakeup } from './wakeup.ts';

/** A saga that waits for a circuit to close, for at most `delayMs`. */
export type Held = Readonly<{ sagaId: string; revision: number; circuit: string; delayMs: number }>;

export type Holds = Readonly<{
  /**
   * Records that a saga waits.
   *
   * @returns whether the circuit is still open, so that the saga will be woken
   */
  put(held: Held): Promise<boolean>;
  /** Returns a batch of sagas whose circuit is no longer open for this token. */
  listReleased(): Promise<readonly HeldSaga[]>;
  /** Picks one of the sagas that wait for a circuit: at random, or the one that came first; null: none waits. */
  pick(circuit: string, order: 'any' | 'first'): Promise<HeldSaga | null>;
  forget(released: readonly HeldSaga[]): Promise<void>;
  /** Forgets those that have gone on, or ended, although the circuit is open; returns how many. */
  forgetGoneOn(circuit: string): Promise<number>;
}>;

type HeldSaga = Readonly<{ saga: Saga; circuit: string }>;

const batching = { max: 200, patienceMs: 50 };

const BATCH = 200;

/**
 * Creates the store of waiting sagas.
 *
 * @param options.scope only circuits of this token count
 * @param options.reconcileGraceMs how long after its due time a job is left alone before the reconciler checks it
 */
export function createHolds(db: Pick<Database, 'run'>, { scope, reconcileGraceMs }: { scope: string; reconcileGraceMs: number }): Holds {
  return {
    put: batch((held: readonly Held[]) => putHeld(db, held, reconcileGraceMs), batching),

    listReleased: async () =>
      toHeld(
        await db.run(
          'holds.released',
          (sql) => sql<(Saga & { circuit: string })[]>`
            select held.circuit, ${sagaColumns(sql)} from (select saga_id, circuit, held_at from arcadia.held_sagas) as held join arcadia.sagas on sagas.id = held.saga_id
            where not exists (select from arcadia.circuits where circuits.id = held.circuit and circuits.closed_at is null and circuits.scope = ${scope})
            order by held.held_at limit ${BATCH}`,
        ),
      ),

    pick: async (circuit, order) => {
      const [picked] = toHeld(
        await db.run(
          'holds.pick',
          (sql) => sql<(Saga & { circuit: string })[]>`
            select held.circuit, ${sagaColumns(sql)} from (select saga_id, circuit, held_at, revision as held_at_revision from arcadia.held_sagas) as held join arcadia.sagas on sagas.id = held.saga_id and sagas.revision = held_at_revision
            where held.circuit = ${circuit} and sagas.status in ('pending', 'running', 'compensating') order by ${order === 'any' ? sql`random()` : sql`held.held_at`} limit 1`,
        ),
      );
      return picked ?? null;
    },

    forget: async (released) => {
      await db.run(
        'holds.forget',
        (sql) => sql`
          delete from arcadia.held_sagas held
          using unnest(${released.map(({ saga }) => saga.id)}::uuid[], ${released.map(({ circuit }) => circuit)}::uuid[]) as released (saga_id, circuit)
          where held.saga_id = released.saga_id and held.circuit = released.circuit`,
      );
    },

    forgetGoneOn: async (circuit) => {
      const { count } = await db.run(
        'holds.forget_gone_on',
        (sql) => sql`
          delete from arcadia.held_sagas held
          where held.circuit = ${circuit} and not exists (select from arcadia.sagas where sagas.id = held.saga_id and sagas.revision = held.revision and sagas.wake_at is not null)`,
      );
      return count;
    },
  };
}

/** Why sagas wait until somebody acts, by the names of the conditions that say so. */
export const holdCauses = ['token_refused', 'scope_missing', 'account_full'] as const;

/** Why a saga waits until somebody acts. `message` is what the provider answered. */
export type Hold = Readonly<{ cause: (typeof holdCauses)[number]; message: string; since: Date }>;

/** Returns which of these sagas an open circuit holds, for any token, and why; by saga id. */
export async function findHolds(db: Pick<Database, 'run'>, sagaIds: readonly string[]): Promise<ReadonlyMap<string, Hold>> {
  if (sagaIds.length === 0) return new Map();
  const rows = await db.run(
    'holds.find',
    (sql) => sql<(Hold & { sagaId: string })[]>`
      select held.saga_id, case circuits.kind when 'request_refused' then 'scope_missing' else circuits.kind end as cause, coalesce(circuits.detail->>'message', '') as message, held.held_at as since
      from arcadia.held_sagas held
        join arcadia.circuits on circuits.id = held.circuit and circuits.closed_at is null
        join arcadia.sagas on sagas.id = held.saga_id and sagas.revision = held.revision
      where held.saga_id = any(${[...sagaIds]}::uuid[])`,
  );
  return new Map(rows.map(({ sagaId, ...hold }) => [sagaId, hold]));
}

function toHeld(rows: readonly (Saga & { circuit: string })[]): HeldSaga[] {
  return rows.map(({ circuit, ...saga }) => ({ saga, circuit }));
}

/** Inserts a row only while the circuit is open. A concurrent close waits for the insert, or has come first. */
async function putHeld(db: Pick<Database, 'run'>, held: readonly Held[], reconcileGraceMs: number): Promise<boolean[]> {
  const given = held.map(({ sagaId, revision, circuit, delayMs }) => ({ saga_id: sagaId, revision, circuit, wake_in_ms: delayMs + reconcileGraceMs }));
  const rows = await db.run(
    'holds.put',
    (sql) => sql<{ sagaId: string; circuit: string }[]>`
      with given as (
        select * from json_to_recordset(${jsonText(given)}::text::json) as given (saga_id uuid, revision int, circuit uuid, wake_in_ms float8)
      ),
      standing as (select id from arcadia.circuits where closed_at is null and id = any(${[...new Set(held.map(({ circuit }) => circuit))]}::uuid[]) for share),
      put as (
        insert into arcadia.held_sagas as known (saga_id, revision, circuit)
        select distinct on (saga_id) saga_id, revision, circuit from given join standing on standing.id = given.circuit order by saga_id, revision desc
        on conflict (saga_id) do update set revision = excluded.revision, circuit = excluded.circuit,
          held_at = case when known.circuit = excluded.circuit then known.held_at else clock_timestamp() end
        returning saga_id, circuit
      ),
      -- Nobody needs to look after a saga that is held.
      free as (
        select sagas.id, given.wake_in_ms from arcadia.sagas join given on given.saga_id = sagas.id and given.revision = sagas.revision
        where sagas.id = any(${held.map(({ sagaId }) => sagaId)}::uuid[]) and exists (select from put where put.saga_id = sagas.id)
        for update of sagas skip locked
      ),
      put_off as (
        update arcadia.sagas set wake_at = clock_timestamp() + free.wake_in_ms * interval '1 millisecond'
        from free where sagas.id = free.id and sagas.wake_at is not null
      )
      select saga_id, circuit from put`,
  );
  const put = new Set(rows.map(({ sagaId, circuit }) => `${sagaId} ${circuit}`));
  return held.map(({ sagaId, circuit }) => put.has(`${sagaId} ${circuit}`));
}

// If the circuit has closed, the saga retries a moment later. If the store is unreachable, it retries after the delay of
// a first probe.
const CLOSED_DELAY_MS = 100;
const UNKNOWN_DELAY_MS = 15_000;

/**
 * Records that a saga waits for a circuit.
 *
 * @param how.refresh reads the open circuits again: a circuit that has closed holds nothing
 * @returns the longest wait, in milliseconds
 */
export async function holdSaga(held: Held, { holds, refresh, log }: { holds: Pick<Holds, 'put'>; refresh: () => Promise<void>; log: Log }): Promise<number> {
  try {
    if (await holds.put(held)) return held.delayMs;
  } catch (error) {
    log.warn({ sagaId: held.sagaId, err: error }, 'could not record that a saga is held: it retries by itself');
    return Math.min(held.delayMs, UNKNOWN_DELAY_MS);
  }
  await refresh();
  return CLOSED_DELAY_MS;
}

/** The result of waking a job. `busy`: a worker has it, and its outcome is not known yet. */
export type Woken = 'woken' | 'busy';

export type HoldWatchOptions = Readonly<{
  holds: Holds;
  circuits: Readonly<{
    refresh(): Promise<void>;
    isAnyOpen(): boolean;
    /** `inOrder`: the sagas go in the order in which they came. */
    takeDue(): Promise<readonly Readonly<{ id: string; inOrder: boolean }>[]>;
    /** Probes what is known without any saga. */
    probe(): Promise<void>;
    /** Probes a due circuit without a saga, if possible; returns whether a saga may probe now. */
    maySagaProbe(circuit: string): Promise<boolean>;
    /** No saga waits for this circuit. `hasHeld`: it held some until now. */
    nobodyWaits(circuit: string, hasHeld: boolean): Promise<void>;
    prune(): Promise<void>;
  }>;
  /** Makes a saga's job due now. */
  wake(job: NextJob): Promise<Woken>;
  wakeup: Wakeup;
  signal: AbortSignal;
  log: Log;
}>;

// Poll intervals: while a circuit is open, and while none is.
const LOOK_MS = 1_000;
const IDLE_LOOK_MS = 10_000;

// Number of idle rounds after which what usually needs no work is checked all the same.
const RELEASE_EVERY = 3;

const PRUNE_EVERY_MS = 60_000;

// A job that a worker has while it should be woken may be postponed a moment later.
const BUSY_PAUSE_MS = 100;
const BUSY_TRIES = 20;

const PARALLEL = 20;

/**
 * Maintains the waiting sagas until the signal is aborted: wakes one saga if a circuit is due for a probe, and all sagas
 * of a closed circuit.
 */
export async function watchHolds(options: HoldWatchOptions): Promise<void> {
  const { circuits, holds, log, signal, wakeup } = options;
  let idle = 0;
  let wasOpen = false;
  let prunedAt = Number.NEGATIVE_INFINITY;
  while (!signal.aborted) {
    try {
      await circuits.refresh();
      await circuits.probe();
      // Every worker saw the circuit open and then closed, so each releases what it held, and no worker's death matters.
      if (wasOpen || circuits.isAnyOpen() || idle % RELEASE_EVERY === 0) {
        const isDone = await releaseSagas(options);
        wasOpen = circuits.isAnyOpen() || !isDone;
      }
      for (const { id, inOrder } of await circuits.takeDue()) {
        if (inOrder) await holds.forgetGoneOn(id);
        const picked = await holds.pick(id, inOrder ? 'first' : 'any');
        if (picked === null) await circuits.nobodyWaits(id, (await holds.forgetGoneOn(id)) > 0);
        else if (await circuits.maySagaProbe(id)) await wakeSaga(picked.saga, options);
      }
      if (performance.now() - prunedAt >= PRUNE_EVERY_MS) {
        await circuits.prune();
        prunedAt = performance.now();
      }
      idle = circuits.isAnyOpen() ? 0 : idle + 1;
    } catch (error) {
      log.warn({ err: error }, 'could not check held sagas: trying again in a moment');
    }
    await wakeup.wait(circuits.isAnyOpen() ? LOOK_MS : IDLE_LOOK_MS, signal);
  }
}

/** @returns whether all were woken */
async function releaseSagas(options: HoldWatchOptions): Promise<boolean> {
  for (;;) {
    const released = await options.holds.listReleased();
    const woken: HeldSaga[] = [];
    for (let start = 0; start < released.length; start += PARALLEL) {
      const some = released.slice(start, start + PARALLEL);
      const results = await Promise.all(some.map(({ saga }) => wakeSaga(saga, options)));
      woken.push(...some.filter((_, at) => results[at] === true));
    }
    if (woken.length === 0) return released.length === 0;
    // Only now, so that another process wakes them if this one dies in between. A saga that is busy is woken in a later
    // round: its worker may be about to put it to sleep.
    await options.holds.forget(woken);
    options.log.info({ sagas: woken.length }, 'held sagas go on');
  }
}

/** @returns whether the saga goes on, or has ended */
async function wakeSaga(saga: Saga, { wake, signal }: HoldWatchOptions): Promise<boolean> {
  const job = nextJobOf(saga);
  if (job === null) return true;
  for (let tries = 1; tries <= BUSY_TRIES && !signal.aborted; tries++) {
    if ((await wake(job)) === 'woken') return true;
    await delay(BUSY_PAUSE_MS);
  }
  return false;
}
