import { randomUUID } from 'node:crypto';
import { setImmediate as nextTurn } from 'node:timers/promises';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import postgres from 'postgres';
import { z } from 'zod';
import { openDatabase, reserveConnection } from '../../src/platform/db.ts';
import type { Database } from '../../src/platform/db.ts';
import { createInventory } from '../../src/inventory/resources.ts';
import type { CloudResource, Inventory } from '../../src/inventory/resources.ts';
import type { JsonObject } from '../../src/platform/json.ts';
import type { Saga } from '../../src/saga/saga.ts';
import { startSaga } from '../../src/saga/start.ts';
import { IdempotencyConflictError, InvalidRequestError } from '../../src/saga/start-errors.ts';
import type { Claim } from '../../src/saga/step.ts';
import { listEvents } from '../../src/saga/events.ts';
import { insertSaga } from '../../src/saga/new-saga.ts';
import { claimFragment, createSagaStore, loadSaga, saveMemos, takeOverdue } from '../../src/saga/store.ts';
import type { NewSaga } from '../../src/saga/new-saga.ts';
import type { SagaStore } from '../../src/saga/store.ts';
import type { Outcome, Transition } from '../../src/saga/transition.ts';
import { decide, joined } from '../../src/saga/transition.ts';
import { catalogOf, commitTransition, createEngineDatabase, fakeStep, loadExisting, policy, reconcileGraceMs } from '../support/engine.ts';
import type { TestDatabase } from '../support/services-postgres.ts';
import { startTcpProxy } from '../support/tcp-proxy.ts';
import { waitFor } from '../support/wait-for.ts';

const catalog = catalogOf(fakeStep('one'), fakeStep('two'), fakeStep('three'));

let database: TestDatabase;
let db: Database;
let inventory: Inventory;

beforeAll(async () => {
  database = await createEngineDatabase();
  db = openDatabase(database.url, { max: 20 });
  inventory = createInventory(db, claimFragment);
});

afterAll(async () => {
  await db.close();
  await database.drop();
});

async function start(request: { input?: JsonObject; idempotencyKey?: string; requestedBy?: string } = {}): Promise<string> {
  return (await startSaga(db, catalog, { name: 'fake', input: {}, ...request }, reconcileGraceMs)).sagaId;
}

function transitionOf(saga: Saga, outcome: Outcome): Transition {
  const decision = decide(saga, outcome, policy, 0.5);
  if ('refused' in decision) throw new Error(decision.refused);
  return decision;
}

/** Reads, decides and commits. */
async function move(sagaId: string, outcome: Outcome): Promise<Saga> {
  const transition = transitionOf((await loadExisting(db, sagaId)).saga, outcome);
  expect(await commitTransition(db, transition, 'test:1', reconcileGraceMs)).toBe('applied');
  return transition.saga;
}

async function startRunning(): Promise<Saga> {
  return move(await start(), { kind: 'started' });
}

/** The rows of everything that a late write could touch. */
async function snapshot(sagaId: string): Promise<unknown> {
  const sagas = await db.sql`select * from arcadia.sagas where id = ${sagaId}`;
  const events = await db.sql`select * from arcadia.saga_events where saga_id = ${sagaId} order by seq`;
  const resources = await db.sql`select * from arcadia.cloud_resources order by provider_id`;
  const provisioned = await db.sql`select * from arcadia.cloud_provisioned order by id`;
  return { sagas: [...sagas], events: [...events], resources: [...resources], provisioned: [...provisioned] };
}

const dropletOf = (providerId: string, change: Partial<CloudResource> = {}): CloudResource => ({
  provider: 'digitalocean', kind: 'droplet', providerId, name: 'web-1', region: 'fra1', status: 'active',
  sizeSlug: 's-1vcpu-1gb', tags: ['web'], attrs: { vcpus: 1 }, ...change,
});

const provisionOf = (sagaId: string) => ({ sagaId, provisionedBy: `saga:${sagaId}`, spec: { region: 'fra1' } });

let nextDroplet = 1_000;

/** A saga with a droplet in the inventory. */
async function startRegistered(): Promise<{ saga: Saga; providerId: string }> {
  const saga = await startRunning();
  nextDroplet += 1;
  const providerId = String(nextDroplet);
  await inventory.register({ sagaId: saga.id, revision: saga.revision }, dropletOf(providerId), provisionOf(saga.id));
  return { saga, providerId };
}

describe('a write that comes late', () => {
  type LateWrite = (held: { saga: Saga; providerId: string; claim: Claim }) => Promise<unknown>;
  const writes: readonly (readonly [string, LateWrite, unknown])[] = [
    ['completes the step', ({ saga }) => commitTransition(db, transitionOf(saga, { kind: 'done', outputs: { late: 1 } }), 'late', reconcileGraceMs), 'fenced'],
    ['records an intent', ({ saga }) => commitTransition(db, transitionOf(saga, { kind: 'recorded', note: 'late', outputs: { late: 1 }, stamps: ['late_at'] }), 'late', reconcileGraceMs), 'fenced'],
    ['fails the step', ({ saga }) => commitTransition(db, transitionOf(saga, { kind: 'failed', error: { code: 'late', message: 'late', retryable: false } }), 'late', reconcileGraceMs), 'fenced'],
    ['postpones the step', ({ saga }) => commitTransition(db, transitionOf(saga, { kind: 'postponed', delayMs: 1, reason: 'late', outputs: {} }), 'late', reconcileGraceMs), 'fenced'],
    ['cancels the saga', ({ saga }) => commitTransition(db, transitionOf(saga, { kind: 'cancel_requested', by: 'late' }), 'late', reconcileGraceMs), 'fenced'],
    ['registers a droplet anew', ({ saga, claim, providerId }) => inventory.register(claim, dropletOf(providerId, { name: 'late' }), provisionOf(saga.id)), null],
    ['registers another droplet', ({ saga, claim }) => inventory.register(claim, dropletOf('999999'), provisionOf(saga.id)), null],
    ['unregisters its droplet', ({ claim }) => inventory.unregister(claim), false],
    ['marks its droplet as destroyed', ({ claim, providerId }) => inventory.markDestroyed(claim, providerId), false],
    ['saves counters', ({ claim }) => saveMemos(db, [{ ...claim, memo: { polls: 99 } }]), undefined],
  ];

  test.each(writes)('writes nothing where it %s', async (_what, write, refused) => {
    const { saga, providerId } = await startRegistered();
    const held = { saga, providerId, claim: { sagaId: saga.id, revision: saga.revision } };
    await move(saga.id, { kind: 'recorded', note: 'somebody else', outputs: {} });
    const before = await snapshot(saga.id);
    expect(await write(held)).toEqual(refused);
    expect(await snapshot(saga.id)).toEqual(before);
  });

  // The other half of the table: were these writes refused in time too, the table would prove nothing.
  test.each(writes)('but is written in time where it %s', async (_what, write, refused) => {
    const { saga, providerId } = await startRegistered();
    const before = await snapshot(saga.id);
    const result = await write({ saga, providerId, claim: { sagaId: saga.id, revision: saga.revision } });
    expect(result === refused && refused !== undefined).toBe(false);
    expect(await snapshot(saga.id)).not.toEqual(before);
    await db.sql`delete from arcadia.cloud_provisioned where resource_id in (select id from arcadia.cloud_resources where provider_id = '999999')`;
    await db.sql`delete from arcadia.cloud_resources where provider_id = '999999'`;
  });

  test('waits for a transition that is under way, and is refused once it is there', async () => {
    const { saga, providerId } = await startRegistered();
    const claim = { sagaId: saga.id, revision: saga.revision };
    const other = await reserveConnection(db);
    try {
      await other`begin`;
      await other`update arcadia.sagas set revision = revision + 1 where id = ${saga.id}`;
      let isSettled = false;
      const late = inventory.markDestroyed(claim, providerId).finally(() => {
        isSettled = true;
      });
      const isWaiting = async (): Promise<boolean> =>
        (await db.sql`select 1 from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'`).length > 0;
      await waitFor(async () => isSettled || (await isWaiting()), { what: 'the late write to meet the transition', everyMs: 10 });
      await other`commit`;
      expect(await late).toBe(false);
    } finally {
      other.release();
    }
    const [row] = await db.sql<{ deletedAt: Date | null }[]>`select deleted_at from arcadia.cloud_resources where provider_id = ${providerId}`;
    expect(row?.deletedAt).toBeNull();
  });
});

describe('commitTransition', () => {
  test('holds at one status too: a revision that Postgres lost may have been used again, by a cancel', async () => {
    const saga = await startRunning();
    const late = transitionOf(saga, { kind: 'done', outputs: { late: 1 } });
    await db.sql`update arcadia.sagas set status = 'compensating' where id = ${saga.id}`;
    expect(await commitTransition(db, late, 'late', reconcileGraceMs)).toBe('fenced');
    expect((await loadExisting(db, saga.id)).saga.status).toBe('compensating');
  });

  test('writes the row and its event, and nothing that it was not told', async () => {
    const sagaId = await start({ input: { name: 'web' }, requestedBy: 'billing' });
    await move(sagaId, { kind: 'started' });
    const after = await move(sagaId, { kind: 'done', outputs: { droplet_id: 7 } });
    const { saga, wakeAt, now } = await loadExisting(db, sagaId);
    const { stepStartedAt, updatedAt, ...rest } = saga;
    const { stepStartedAt: _started, updatedAt: _updated, ...expected } = after;
    expect(rest).toEqual(expected);
    expect(stepStartedAt.getTime()).toBeGreaterThan(saga.createdAt.getTime());
    expect(updatedAt.getTime()).toBeGreaterThanOrEqual(stepStartedAt.getTime());
    expect(Math.abs((wakeAt?.getTime() ?? 0) - now.getTime() - reconcileGraceMs)).toBeLessThan(5_000);
    expect(await listEvents(db, sagaId)).toMatchObject([
      { seq: 0, kind: 'saga_created', detail: { status: 'pending', requestedBy: 'billing' } },
      { seq: 1, kind: 'saga_started', step: 'one', attempt: 1, worker: 'test:1' },
      { seq: 2, kind: 'step_completed', step: 'one', attempt: 1, worker: 'test:1', detail: { droplet_id: 7, status: 'running' } },
    ]);
    expect(await listEvents(db, sagaId, 1)).toMatchObject([{ seq: 2 }]);
  });

  const broken = { code: 'broken', message: 'it broke', retryable: true };
  test.each<[string, readonly Outcome[]]>([
    ['a start', [{ kind: 'started' }]],
    ['a start and a step, one after the other', [{ kind: 'started' }, { kind: 'done', outputs: {} }]],
    ['steps to the end', [{ kind: 'started' }, { kind: 'done', outputs: { a: 1 } }, { kind: 'done', outputs: {}, note: 'as it was' }, { kind: 'done', outputs: {} }]],
    ['a step that is tried again', [{ kind: 'started' }, { kind: 'failed', error: broken }]],
    ['a step that succeeds the second time', [{ kind: 'started' }, { kind: 'failed', error: broken }, { kind: 'done', outputs: {} }]],
    ['a rollback', [{ kind: 'started' }, { kind: 'failed', error: { ...broken, retryable: false } }, { kind: 'done', outputs: {} }]],
    ['a rollback that is stuck', [{ kind: 'started' }, { kind: 'failed', error: { ...broken, retryable: false } }, { kind: 'failed', error: { ...broken, retryable: false } }]],
    ['a step that must be done and is stuck, and its retry', [{ kind: 'started' }, { kind: 'failed', error: { ...broken, retryable: false }, forwardOnly: true }, { kind: 'retry_requested', by: 'alice' }]],
    ['a postponement', [{ kind: 'started' }, { kind: 'postponed', delayMs: 500, reason: 'not yet', outputs: { polls: 1 } }]],
    ['a cancel before it began', [{ kind: 'cancel_requested', by: 'alice' }]],
    ['a rejection', [{ kind: 'rejected', error: { ...broken, retryable: false } }]],
  ])('writes of %s what was decided', async (_what, outcomes) => {
    const sagaId = await start();
    let saga = (await loadExisting(db, sagaId)).saga;
    const told: Transition['event'][] = [];
    for (const outcome of outcomes) {
      const transition = transitionOf(saga, outcome);
      expect(await commitTransition(db, transition, 'test:1', reconcileGraceMs)).toBe('applied');
      told.push(transition.event);
      ({ saga } = transition);
    }
    const { status, cursor, attempt, revision, context, error } = (await loadExisting(db, sagaId)).saga;
    expect({ status, cursor, attempt, revision, context, error }).toEqual({ status: saga.status, cursor: saga.cursor, attempt: saga.attempt, revision: saga.revision, context: saga.context, error: saga.error });
    const events = await listEvents(db, sagaId, 0);
    expect(events.map(({ seq, kind, step, attempt: tried, detail }) => ({ seq, kind, step, attempt: tried, detail }))).toEqual(told);
    const [row] = await db.sql<{ isDue: boolean; isOver: boolean }[]>`select wake_at is not null as is_due, finished_at is not null as is_over from arcadia.sagas where id = ${sagaId}`;
    expect(row).toEqual({ isDue: ['running', 'compensating'].includes(saga.status), isOver: ['completed', 'compensated'].includes(saga.status) });
  });

  test('writes the start that a first step brings along, as if it had been written before', async () => {
    const sagaId = await start();
    const { saga } = await loadExisting(db, sagaId);
    const started = transitionOf(saga, { kind: 'started' });
    const failed = transitionOf(started.saga, { kind: 'failed', error: broken });
    expect(await commitTransition(db, joined(started, failed), 'test:1', reconcileGraceMs)).toBe('applied');
    const events = await listEvents(db, sagaId, 0);
    expect(events.map(({ seq, kind, step, attempt, detail }) => ({ seq, kind, step, attempt, detail }))).toEqual([started.event, failed.event]);
    expect((await loadExisting(db, sagaId)).saga).toMatchObject({ status: 'running', revision: 2, attempt: 1 });
  });

  test('is applied exactly once, whoever else commits from the same revision at once', async () => {
    const saga = await startRunning();
    const commits = Array.from({ length: 20 }, (_, index) =>
      commitTransition(db, transitionOf(saga, { kind: 'recorded', note: `writer ${index}`, outputs: { writer: index } }), `test:${index}`, reconcileGraceMs),
    );
    const results = await Promise.all(commits);
    expect(results.filter((result) => result === 'applied')).toHaveLength(1);
    const events = await listEvents(db, saga.id, 1);
    expect(events).toMatchObject([{ seq: 2, worker: `test:${results.indexOf('applied')}` }]);
    expect((await loadExisting(db, saga.id)).saga).toMatchObject({ revision: 2, context: { writer: results.indexOf('applied') } });
  });

  test('keeps context keys that this program does not know, those of other writers included', async () => {
    const saga = await startRunning();
    await db.sql`update arcadia.sagas set context = '{"from_newer": {"deep": [1]}, "droplet_id": 1}' where id = ${saga.id}`;
    await move(saga.id, { kind: 'recorded', note: 'x', outputs: { mine: true } });
    // This worker read the row before the newer one wrote its key: it only ever sends its own patch.
    await commitTransition(db, { ...transitionOf({ ...saga, revision: 2, context: {} }, { kind: 'done', outputs: { droplet_id: 2 } }) }, 'old', reconcileGraceMs);
    expect((await loadExisting(db, saga.id)).saga.context).toEqual({ from_newer: { deep: [1] }, mine: true, droplet_id: 2 });
  });

  test('leaves the keys inside context and input as they are written', async () => {
    const sagaId = await start({ input: { snake_case: { inner_key: 1 }, camelCase: 2 } });
    await move(sagaId, { kind: 'started' });
    await move(sagaId, { kind: 'recorded', note: 'x', outputs: { public_ipv4: '10.0.0.1', otherKey: null } });
    expect((await loadExisting(db, sagaId)).saga).toMatchObject({
      input: { snake_case: { inner_key: 1 }, camelCase: 2 },
      context: { public_ipv4: '10.0.0.1', otherKey: null },
    });
  });

  test('stamps with the clock of the database, not with this machine\'s', async () => {
    const saga = await startRunning();
    const [before] = await db.sql<{ now: Date }[]>`select clock_timestamp() as now`;
    const realNow = Date.now;
    try {
      Date.now = () => realNow() - 3_600_000;
      await move(saga.id, { kind: 'recorded', note: 'x', outputs: {}, stamps: ['intent_at', 'other_at'] });
    } finally {
      Date.now = realNow;
    }
    const { saga: stored, now } = await loadExisting(db, saga.id);
    const stamps = z.object({ intent_at: z.iso.datetime(), other_at: z.iso.datetime() }).parse(stored.context);
    for (const stamp of Object.values(stamps)) {
      expect(new Date(stamp).getTime()).toBeGreaterThanOrEqual((before?.now.getTime() ?? Number.NaN) - 1);
      expect(new Date(stamp).getTime()).toBeLessThanOrEqual(now.getTime());
    }
  });

  test('stamps in UTC, whatever the time zone of the session', async () => {
    const elsewhere = openDatabase(database.url, { max: 1 });
    try {
      await elsewhere.sql`set time zone 'Asia/Tokyo'`;
      const saga = await startRunning();
      await commitTransition(elsewhere, transitionOf(saga, { kind: 'recorded', note: 'x', outputs: {}, stamps: ['at'] }), 'w', reconcileGraceMs);
      const { saga: stored, now } = await loadExisting(db, saga.id);
      const { at } = z.object({ at: z.iso.datetime() }).parse(stored.context);
      expect(Math.abs(new Date(at).getTime() - now.getTime())).toBeLessThan(60_000);
    } finally {
      await elsewhere.close();
    }
  });

  test.each<[string, Outcome[], { wakes: boolean; finished: boolean; cancelled: boolean }]>([
    ['running', [{ kind: 'started' }], { wakes: true, finished: false, cancelled: false }],
    ['compensating after a cancel', [{ kind: 'started' }, { kind: 'cancel_requested', by: 'ann' }], { wakes: true, finished: false, cancelled: true }],
    ['compensated while pending', [{ kind: 'cancel_requested', by: 'ann' }], { wakes: false, finished: true, cancelled: true }],
    ['stuck', [{ kind: 'started' }, { kind: 'failed', error: { code: 'x', message: 'x', retryable: false } }, { kind: 'failed', error: { code: 'x', message: 'x', retryable: false } }], { wakes: false, finished: false, cancelled: false }],
    ['completed', [{ kind: 'started' }, ...Array.from({ length: 3 }, () => ({ kind: 'done' as const, outputs: {} }))], { wakes: false, finished: true, cancelled: false }],
  ])('sets the times of a saga that is %s', async (_status, outcomes, expected) => {
    const sagaId = await start();
    for (const outcome of outcomes) await move(sagaId, outcome);
    const { saga, wakeAt } = await loadExisting(db, sagaId);
    expect({ wakes: wakeAt !== null, finished: saga.finishedAt !== null, cancelled: saga.cancelRequestedAt !== null }).toEqual(expected);
  });

  test('forgets the counters of a wait with the next transition', async () => {
    const saga = await startRunning();
    await saveMemos(db, [{ sagaId: saga.id, revision: saga.revision, memo: { polls: 3 } }]);
    expect((await loadExisting(db, saga.id)).memo).toEqual({ polls: 3 });
    await move(saga.id, { kind: 'done', outputs: {} });
    expect((await loadExisting(db, saga.id)).memo).toEqual({});
  });
});

// The statement is done and committed when Postgres says that it is ready for the next.
const isCommitted = (reply: Buffer): boolean => reply.includes('SELECT 1\0') && reply.subarray(-6).equals(Buffer.from('Z\0\0\0\x05I'));

// What drivers and Postgres say where a statement may have been applied: a broken connection, a backend that an operator
// terminated, that another's crash took down, or that the server's end did, and a connection that failed meanwhile.
const lostReplies = [
  Object.assign(new Error('write EPIPE'), { code: 'EPIPE' }),
  postgresError('57P01', 'terminating connection due to administrator command'),
  postgresError('57P02', 'terminating connection because of crash of another server process'),
  postgresError('57P03', 'the database system is shutting down'),
  postgresError('08006', 'connection failure'),
];

/** An error as postgres.js makes it of one that Postgres answered with. */
function postgresError(code: string, message: string): Error & { code: string } {
  return Object.assign(Object.create(postgres.PostgresError.prototype), { code, message });
}

/** A database that carries out the first statement of this name, and reports an error instead of its reply. */
function losingReplyTo(lost: string, error: Error): Database {
  let isLost = false;
  return openDatabase(database.url, {
    max: 1,
    io: async (_kind, name, operation) => {
      const result = await operation();
      if (name !== lost || isLost) return result;
      isLost = true;
      throw error;
    },
  });
}

describe('commitTransition, over a link that fails', () => {
  test('learns that it was applied when the reply is lost, and writes one event', async () => {
    const saga = await startRunning();
    await using proxy = await startTcpProxy(database.url);
    const far = openDatabase(proxy.through(database.url), { max: 1 });
    try {
      await loadExisting(far, saga.id);
      proxy.loseReply(isCommitted);
      const transition = transitionOf(saga, { kind: 'done', outputs: { droplet_id: 7 } });
      expect(await commitTransition(far, transition, 'far', reconcileGraceMs)).toBe('applied');
      expect(proxy.lostReplies()).toBe(1);
      expect(await listEvents(db, saga.id, 1)).toMatchObject([{ seq: 2, kind: 'step_completed', worker: 'far' }]);
      expect((await loadExisting(db, saga.id)).saga).toMatchObject({ revision: 2, cursor: 1, context: { droplet_id: 7 } });
    } finally {
      await far.close();
    }
  });

  test('does not take the event of another writer for its own', async () => {
    const saga = await startRunning();
    await using proxy = await startTcpProxy(database.url);
    const far = openDatabase(proxy.through(database.url), { max: 1 });
    try {
      await loadExisting(far, saga.id);
      await move(saga.id, { kind: 'recorded', note: 'somebody else', outputs: {} });
      proxy.loseReply((reply) => reply.includes('SELECT 0\0'));
      const transition = transitionOf(saga, { kind: 'recorded', note: 'mine', outputs: { mine: 1 } });
      expect(await commitTransition(far, transition, 'far', reconcileGraceMs)).toBe('fenced');
      expect(proxy.lostReplies()).toBe(1);
      expect(await listEvents(db, saga.id, 1)).toMatchObject([{ seq: 2, worker: 'test:1' }]);
    } finally {
      await far.close();
    }
  });

  test('throws when the statement never got there, and works again once the link is back', async () => {
    const saga = await startRunning();
    await using proxy = await startTcpProxy(database.url);
    const far = openDatabase(proxy.through(database.url), { max: 1, timeoutMs: 1_000 });
    try {
      await loadExisting(far, saga.id);
      proxy.down();
      const transition = transitionOf(saga, { kind: 'done', outputs: {} });
      await expect(commitTransition(far, transition, 'far', reconcileGraceMs)).rejects.toThrow(/ECONN|CONNECTION|did not answer/);
      expect(await listEvents(db, saga.id, 1)).toEqual([]);
      proxy.up();
      expect(await commitTransition(far, transition, 'far', reconcileGraceMs)).toBe('applied');
    } finally {
      await far.close();
    }
  });

  test.each(lostReplies)('looks its event up when the lost reply is reported as $code', async (error) => {
    const saga = await startRunning();
    const transition = transitionOf(saga, { kind: 'done', outputs: {} });
    const far = losingReplyTo('store.commit', error);
    try {
      expect(await commitTransition(far, transition, 'far', reconcileGraceMs)).toBe('applied');
    } finally {
      await far.close();
    }
  });

  test('throws the error of a statement that Postgres refused', async () => {
    const saga = await startRunning();
    const transition = transitionOf(saga, { kind: 'done', outputs: {} });
    await expect(commitTransition(db, { ...transition, saga: { ...transition.saga, cursor: 99 } }, 'w', reconcileGraceMs)).rejects.toMatchObject({ code: '23514' });
    expect((await loadExisting(db, saga.id)).saga.revision).toBe(1);
  });
});

/** Commits all at once, through one store; counts its statements. */
async function commitTogether(transitions: readonly Transition[], through: Database = db): Promise<{ results: unknown[]; statements: number }> {
  let statements = 0;
  const counted: Database = {
    ...through,
    run: (name, statement) => {
      statements += 1;
      return through.run(name, statement);
    },
  };
  const store = createSagaStore(counted, { worker: 'test:1', reconcileGraceMs });
  const results = await Promise.allSettled(transitions.map((transition) => store.commit(transition)));
  return { results: results.map((one): unknown => (one.status === 'fulfilled' ? one.value : one.reason)), statements };
}

const doneBy = (saga: Saga, outputs: JsonObject = {}): Transition => transitionOf(saga, { kind: 'done', outputs });

function storeOf(steps: readonly string[] = ['one', 'two', 'three'], on: Database = db): SagaStore {
  return createSagaStore(on, { worker: 'test:1', reconcileGraceMs, startsAt: steps });
}

/** A saga and its events, without what differs between any two. */
async function written(sagaId: string): Promise<object> {
  const { saga, wakeAt, memo } = await loadExisting(db, sagaId);
  const { id: _id, saga8: _saga8, createdAt, updatedAt, stepStartedAt, ...rest } = saga;
  const events = (await listEvents(db, sagaId)).map(({ at: _at, ...event }) => event);
  return { ...rest, memo, events, isUpdated: updatedAt > createdAt, hasStepMoved: stepStartedAt > createdAt, wakes: wakeAt !== null && wakeAt > updatedAt };
}

describe('a claim', () => {
  test('starts a pending saga, and writes what the transition writes', async () => {
    const [claimed, moved] = await Promise.all([start({ requestedBy: 'ann' }), start({ requestedBy: 'ann' })]);
    const result = await storeOf().claim({ sagaId: claimed, revision: 0 });
    await move(moved, { kind: 'started' });
    expect(await written(claimed)).toEqual(await written(moved));
    const { saga } = await loadExisting(db, claimed);
    expect(result).toMatchObject({ saga, stands: true, memo: {}, dueInMs: 0 });
  });

  test('is made once: of many for one saga, one stands', async () => {
    const sagaId = await start();
    const claims = await Promise.all([storeOf(), storeOf()].flatMap((store) => Array.from({ length: 4 }, () => store.claim({ sagaId, revision: 0 }))));
    expect(claims.filter((claim) => claim?.stands)).toHaveLength(1);
    expect((await listEvents(db, sagaId)).map(({ kind }) => kind)).toEqual(['saga_created', 'saga_started']);
  });

  test('leaves a saga pending whose first step is not known here', async () => {
    const sagaId = await start();
    expect(await storeOf(['two', 'three']).claim({ sagaId, revision: 0 })).toMatchObject({ saga: { status: 'pending', revision: 0 }, stands: true });
    expect((await loadExisting(db, sagaId)).saga.status).toBe('pending');
  });

  test('does not stand once the saga was cancelled, or moved on', async () => {
    const cancelled = await start();
    await move(cancelled, { kind: 'cancel_requested', by: 'ann' });
    expect(await storeOf().claim({ sagaId: cancelled, revision: 0 })).toMatchObject({ saga: { status: 'compensated' }, stands: false });
    const running = await startRunning();
    expect(await storeOf().claim({ sagaId: running.id, revision: 0 })).toMatchObject({ saga: { revision: 1 }, stands: false });
    expect(await storeOf().claim({ sagaId: randomUUID(), revision: 0 })).toBeNull();
  });

  test('of the step that this process just made due needs no read, once, and knows all that is in the row', async () => {
    const names: string[] = [];
    const watched = openDatabase(database.url, { io: (_kind, name, operation) => (names.push(name), operation()) });
    try {
      const store = storeOf(undefined, watched);
      const sagaId = await start({ input: { a: 1 } });
      const claimed = await store.claim({ sagaId, revision: 0 });
      if (claimed === null) throw new Error('there is no saga');
      await db.sql`update arcadia.sagas set context = '{"from_newer": [1]}' where id = ${sagaId}`;
      await store.commit(transitionOf(claimed.saga, { kind: 'recorded', note: 'x', outputs: {}, stamps: ['at'] }));
      const { saga } = await loadExisting(db, sagaId);
      await store.commit(transitionOf(saga, { kind: 'done', outputs: { droplet_id: 7 } }));
      names.length = 0;
      const again = await store.claim({ sagaId, revision: 3 });
      expect(names).toEqual([]);
      const { saga: stored, now } = await loadExisting(db, sagaId);
      expect(again).toMatchObject({ saga: stored, stands: true, memo: {}, dueInMs: 0 });
      expect(again?.now.getTime()).toBeLessThanOrEqual(now.getTime());
      expect(await store.claim({ sagaId, revision: 3 })).toMatchObject({ saga: stored, stands: true, ageMs: 0 });
      expect(names).toEqual(['store.load']);
    } finally {
      await watched.close();
    }
  });
});

describe('transitions that are written together', () => {
  test('go in one statement', async () => {
    const sagas = await Promise.all(Array.from({ length: 20 }, () => startRunning()));
    const transitions = sagas.map((saga, index) => doneBy(saga, { mine: index }));
    expect(await commitTogether(transitions)).toEqual({ results: Array.from({ length: 20 }, () => 'applied'), statements: 1 });
    for (const [index, saga] of sagas.entries()) {
      expect((await loadExisting(db, saga.id)).saga).toMatchObject({ revision: 2, cursor: 1, context: { mine: index } });
      expect(await listEvents(db, saga.id, 1)).toMatchObject([{ seq: 2, kind: 'step_completed', detail: { mine: index } }]);
    }
  });

  test('stand or fall each for itself: one that Postgres refuses takes no other with it', async () => {
    const [good, bad, late, other] = await Promise.all([startRunning(), startRunning(), startRunning(), startRunning()]);
    await move(late.id, { kind: 'recorded', note: 'somebody else', outputs: {} });
    const refused = { ...doneBy(bad), saga: { ...doneBy(bad).saga, cursor: 99 } };
    const { results } = await commitTogether([doneBy(good), refused, doneBy(late), doneBy(other)]);
    expect(results).toMatchObject(['applied', { code: '23514' }, 'fenced', 'applied']);
    expect((await Promise.all([good, bad, late, other].map(({ id }) => loadExisting(db, id)))).map(({ saga }) => saga.revision)).toEqual([2, 1, 2, 2]);
  });

  test('are fenced against each other: of two of one saga, one is written', async () => {
    const saga = await startRunning();
    const bystander = await startRunning();
    const transitions = [
      doneBy(saga, { mine: 0 }),
      transitionOf(saga, { kind: 'cancel_requested', by: 'ann' }),
      doneBy(bystander),
    ];
    const { results, statements } = await commitTogether(transitions);
    expect(statements).toBe(1);
    expect(new Set(results.slice(0, 2))).toEqual(new Set(['applied', 'fenced']));
    expect(results[2]).toBe('applied');
    const [event, ...more] = await listEvents(db, saga.id, 1);
    expect(more).toEqual([]);
    expect(event?.kind).toBe(results[0] === 'applied' ? 'step_completed' : 'cancel_requested');
    expect((await loadExisting(db, saga.id)).saga.status).toBe(results[0] === 'applied' ? 'running' : 'compensating');
    const audited = await db.sql`select 1 from arcadia.audit where saga_id = ${saga.id} and action = 'cancel_requested'`;
    expect(audited).toHaveLength(results[1] === 'applied' ? 1 : 0);
  });

  test('learn each what became of it when their reply is lost', async () => {
    const [mine, late] = await Promise.all([startRunning(), startRunning()]);
    await using proxy = await startTcpProxy(database.url);
    const far = openDatabase(proxy.through(database.url), { max: 1 });
    try {
      await loadExisting(far, mine.id);
      await move(late.id, { kind: 'recorded', note: 'somebody else', outputs: {} });
      proxy.loseReply(isCommitted);
      const { results } = await commitTogether([doneBy(mine), doneBy(late)], far);
      expect(results).toEqual(['applied', 'fenced']);
      expect(proxy.lostReplies()).toBe(1);
    } finally {
      await far.close();
    }
  });

  // Without the order, one would hold the first saga and the other the last, and both would want the one in the middle.
  // What Postgres breaks off as a deadlock is written again, saga by saga, or fails.
  test.each<[string, (sagas: readonly Saga[]) => Promise<unknown>, unknown]>([
    ['a worker with the same sagas', (sagas) => commitTogether(sagas.map((saga) => doneBy(saga))), { results: ['fenced', 'fenced', 'fenced'], statements: 1 }],
    ['a reconciler that saves their counters', (sagas) => saveMemos(db, sagas.map(({ id, revision }) => ({ sagaId: id, revision, memo: { polls: 1 } }))), undefined],
  ])('lock their sagas in one order: they block no other, and are blocked by none, of %s in the opposite order', async (_who, write, expected) => {
    const sagas = (await Promise.all([startRunning(), startRunning(), startRunning()])).toSorted((one, other) => (one.id < other.id ? -1 : 1));
    const other = await reserveConnection(db);
    const countWaiting = async () => (await db.sql`select from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'`).length;
    try {
      await other`begin`;
      await other`select from arcadia.sagas where id = ${sagas[1]?.id ?? ''} for update`;
      const rising = commitTogether(sagas.map((saga) => doneBy(saga)));
      await waitFor(async () => (await countWaiting()) === 1, { what: 'the first to wait', everyMs: 5 });
      const falling = write(sagas.toReversed());
      await waitFor(async () => (await countWaiting()) === 2, { what: 'the second to wait', everyMs: 5 });
      await other`commit`;
      expect(await rising).toEqual({ results: ['applied', 'applied', 'applied'], statements: 1 });
      expect(await falling).toEqual(expected);
    } finally {
      other.release();
    }
  });

  test('wait for nobody else: a saga whose row is held does not hold up the others', async () => {
    const [held, free] = await Promise.all([startRunning(), startRunning()]);
    const store = createSagaStore(db, { worker: 'test:1', reconcileGraceMs });
    const other = await reserveConnection(db);
    try {
      await other`begin`;
      await other`select from arcadia.sagas where id = ${held.id} for update`;
      const waiting = store.commit(doneBy(held));
      await nextTurn();
      expect(await store.commit(doneBy(free))).toBe('applied');
      await other`commit`;
      expect(await waiting).toBe('applied');
    } finally {
      other.release();
    }
  });
});

const newSaga = (change: Partial<NewSaga> = {}): NewSaga => ({
  id: randomUUID(), name: 'fake', steps: ['one'], input: {}, sealed: null, idempotencyKey: null, requestedBy: null, startedBy: null, traceparent: null, ...change,
});

describe('insertSaga', () => {
  test('refuses a second saga whose id begins with the same 8 characters, and writes nothing of it', async () => {
    const first = newSaga();
    const second = newSaga({ id: `${first.id.slice(0, 8)}${randomUUID().slice(8)}` });
    expect(await insertSaga(db, first, reconcileGraceMs)).toBe(true);
    expect(await insertSaga(db, second, reconcileGraceMs)).toBe(false);
    expect(await loadSaga(db, second.id)).toBeNull();
    expect(await listEvents(db, second.id)).toEqual([]);
    expect((await loadExisting(db, first.id)).saga.saga8).toBe(first.id.slice(0, 8));
  });

  test('never was, when the transaction of the caller is rolled back', async () => {
    const saga = newSaga();
    const connection = await reserveConnection(db);
    try {
      await connection`begin`;
      expect(await insertSaga({ run: async (_name, statement) => statement(connection) }, saga, reconcileGraceMs)).toBe(true);
      await connection`rollback`;
    } finally {
      connection.release();
    }
    expect(await loadSaga(db, saga.id)).toBeNull();
  });
});

describe('startSaga', () => {
  test('gives a new id, random and unique in its first 8 characters, to every saga', async () => {
    const ids = await Promise.all(Array.from({ length: 30 }, () => start()));
    expect(new Set(ids.map((id) => id.slice(0, 8))).size).toBe(30);
    expect(ids.every((id) => z.uuidv4().safeParse(id).success)).toBe(true);
  });

  test('tries another id when the first 8 characters are taken', async () => {
    // What an id meets that begins like another saga's: the row is not inserted.
    await db.sql`create sequence clashes`;
    await db.sql`
      create function clash_once() returns trigger language plpgsql as $$
      begin if nextval('clashes') = 1 then return null; end if; return new; end $$`;
    await db.sql`create trigger clash before insert on arcadia.sagas for each row when (new.requested_by = 'clash') execute function clash_once()`;
    const sagaId = await start({ requestedBy: 'clash' });
    expect((await loadExisting(db, sagaId)).saga).toMatchObject({ status: 'pending', requestedBy: 'clash' });
    expect([...(await db.sql`select last_value::int from clashes`)]).toEqual([{ lastValue: 2 }]);
  });

  test.each(lostReplies)('finds the saga that it started when the lost reply is reported as $code', async (error) => {
    const far = losingReplyTo('store.insert', error);
    const requestedBy = `far ${randomUUID()}`;
    try {
      const started = await startSaga(far, catalog, { name: 'fake', input: {}, requestedBy }, reconcileGraceMs);
      expect(started.firstJob).toMatchObject({ sagaId: started.sagaId, revision: 0 });
      expect([...(await db.sql`select id from arcadia.sagas where requested_by = ${requestedBy}`)]).toEqual([{ id: started.sagaId }]);
    } finally {
      await far.close();
    }
  });

  test('starts one saga for one idempotency key, however many ask at once', async () => {
    const idempotencyKey = randomUUID();
    const started = await Promise.all(
      Array.from({ length: 50 }, () => startSaga(db, catalog, { name: 'fake', input: { a: 1 }, idempotencyKey }, reconcileGraceMs)),
    );
    expect(new Set(started.map(({ sagaId }) => sagaId)).size).toBe(1);
    expect(started.filter(({ firstJob }) => firstJob !== null)).toHaveLength(1);
    expect(await db.sql`select 1 from arcadia.sagas where idempotency_key = ${idempotencyKey}`).toHaveLength(1);
  });

  test('does not mind the order of the keys in the input', async () => {
    const idempotencyKey = randomUUID();
    const first = await start({ idempotencyKey, input: { a: 1, b: { c: 2, d: [1, 2] } } });
    expect(await start({ idempotencyKey, input: { b: { d: [1, 2], c: 2 }, a: 1 } })).toBe(first);
  });

  test.each<[string, JsonObject]>([
    ['another value', { a: 2, b: [1, 2] }],
    ['one more key', { a: 1, b: [1, 2], c: 1 }],
    ['another order of a list', { a: 1, b: [2, 1] }],
  ])('refuses an idempotency key that was used with %s, naming the saga', async (_what, input) => {
    const idempotencyKey = randomUUID();
    const first = await start({ idempotencyKey, input: { a: 1, b: [1, 2] } });
    const refused = start({ idempotencyKey, input });
    await expect(refused).rejects.toThrow(IdempotencyConflictError);
    await expect(refused).rejects.toMatchObject({ sagaId: first, code: 'idempotency_conflict' });
  });

  test('refuses an idempotency key that was used for another saga, even with the same input', async () => {
    const idempotencyKey = randomUUID();
    await start({ idempotencyKey, input: { a: 1 } });
    const other = { ...catalog, other: { input: z.record(z.string(), z.json()), steps: [fakeStep('four')] } };
    await expect(startSaga(db, other, { name: 'other', input: { a: 1 }, idempotencyKey }, reconcileGraceMs)).rejects.toThrow(IdempotencyConflictError);
  });

  test.each(['nothing', '__proto__', 'constructor', 'toString', ''])('knows no saga called %j, and says which there are', async (name) => {
    const refused = startSaga(db, catalog, { name, input: {} }, reconcileGraceMs);
    await expect(refused).rejects.toThrow(InvalidRequestError);
    await expect(refused).rejects.toThrow(/^name: no saga is called .*; expected one of fake$/);
  });

  test.each([
    ['an empty key', { idempotencyKey: '' }, 'idempotencyKey: expected 1 to 255 characters'],
    ['a key that is too long', { idempotencyKey: 'k'.repeat(256) }, 'idempotencyKey: expected 1 to 255 characters'],
    ['a key with NUL in it', { idempotencyKey: 'a\0b' }, 'idempotencyKey: expected 1 to 255 characters'],
    ['a requester that is too long', { requestedBy: 'r'.repeat(256) }, 'requestedBy: expected at most 255 characters'],
    ['a requester with NUL in it', { requestedBy: '\0' }, 'requestedBy: expected at most 255 characters'],
    ['a key with half a surrogate pair', { idempotencyKey: 'a\ud800' }, 'idempotencyKey: expected text without broken surrogates'],
  ])('refuses %s, with the name of the field', async (_what, request, message) => {
    await expect(start(request)).rejects.toThrow(new InvalidRequestError([{ field: message.split(':')[0] ?? '', message: message.split(': ')[1] ?? '' }]));
  });

  test('names every field that is wrong at once', async () => {
    const strict = { fake: { input: z.strictObject({ name: z.string(), size: z.string() }), steps: [fakeStep('one')] } };
    await expect(startSaga(db, strict, { name: 'fake', input: { name: 1, colour: 'red' }, idempotencyKey: '' }, reconcileGraceMs)).rejects.toMatchObject({
      problems: [{ field: 'idempotencyKey' }, { field: 'name' }, { field: 'size' }, { field: 'colour' }],
    });
  });
});

describe('takeOverdue', () => {
  test('takes each overdue saga once, however many reconcilers look at once, and again when it is due again', async () => {
    await db.sql`update arcadia.sagas set wake_at = null`;
    const due = await Promise.all(Array.from({ length: 60 }, () => start()));
    const notDue = await start();
    await db.sql`update arcadia.sagas set wake_at = clock_timestamp() - interval '1 second' where id = any(${due})`;
    const taken = await Promise.all(Array.from({ length: 5 }, () => takeOverdue(db, 25, reconcileGraceMs)));
    // One that skips what others hold may come back with less than there is: the next look finds the rest.
    const rest = await takeOverdue(db, 100, reconcileGraceMs);
    const ids = [...taken.flat(), ...rest].map(({ id }) => id);
    expect(ids.toSorted()).toEqual(due.toSorted());
    expect(ids).not.toContain(notDue);
    expect(taken.every((batch) => batch.length <= 25)).toBe(true);
    expect(await takeOverdue(db, 100, reconcileGraceMs)).toEqual([]);
  });

  test('passes over what another reconciler is just taking, and does not wait for it', async () => {
    await db.sql`update arcadia.sagas set wake_at = null`;
    const ids = await Promise.all(Array.from({ length: 6 }, () => start()));
    await db.sql`update arcadia.sagas set wake_at = clock_timestamp() - interval '1 second' where id = any(${ids})`;
    const impatient = openDatabase(database.url, { max: 1, timeoutMs: 2_000 });
    const other = await reserveConnection(db);
    try {
      await other`begin`;
      await other`select id from arcadia.sagas where id = any(${ids.slice(0, 2)}) for update`;
      expect(new Set((await takeOverdue(impatient, 10, reconcileGraceMs)).map(({ id }) => id))).toEqual(new Set(ids.slice(2)));
      await other`rollback`;
      expect(new Set((await takeOverdue(impatient, 10, reconcileGraceMs)).map(({ id }) => id))).toEqual(new Set(ids.slice(0, 2)));
    } finally {
      await other`rollback`;
      other.release();
      await impatient.close();
    }
  });

  test('takes the longest overdue first', async () => {
    await db.sql`update arcadia.sagas set wake_at = null`;
    const ids = await Promise.all(Array.from({ length: 3 }, () => start()));
    for (const [index, id] of ids.entries()) {
      await db.sql`update arcadia.sagas set wake_at = clock_timestamp() - ${index + 1} * interval '1 minute' where id = ${id}`;
    }
    expect((await takeOverdue(db, 2, reconcileGraceMs)).map(({ id }) => id).toSorted()).toEqual(ids.slice(1).toSorted());
  });

  test.each(['completed', 'compensated', 'stuck'])('leaves a %s saga alone', async (status) => {
    await db.sql`update arcadia.sagas set wake_at = null`;
    const id = await start();
    await db.sql`update arcadia.sagas set status = ${status}, wake_at = clock_timestamp() - interval '1 minute' where id = ${id}`;
    expect(await takeOverdue(db, 10, reconcileGraceMs)).toEqual([]);
  });
});

describe('saveMemos', () => {
  test('saves the counters of many sagas at once, and drops those that come late', async () => {
    const [one, two, late] = [await startRunning(), await startRunning(), await startRunning()];
    await move(late.id, { kind: 'recorded', note: 'x', outputs: {} });
    await saveMemos(db, [one, two, late].map((saga, index) => ({ sagaId: saga.id, revision: saga.revision, memo: { polls: index + 1 } })));
    const memos = await Promise.all([one, two, late].map(async ({ id }) => (await loadExisting(db, id)).memo));
    expect(memos).toEqual([{ polls: 1 }, { polls: 2 }, {}]);
  });

  test('is no transition: the revision stays, and nothing is told', async () => {
    const saga = await startRunning();
    await saveMemos(db, [{ sagaId: saga.id, revision: saga.revision, memo: { polls: 1 } }]);
    expect((await loadExisting(db, saga.id)).saga).toMatchObject({ revision: 1 });
    expect(await listEvents(db, saga.id, 1)).toEqual([]);
  });
});

describe('the inventory of a saga', () => {
  test('is the same after it was registered twice', async () => {
    const { saga, providerId } = await startRegistered();
    const before = await snapshot(saga.id);
    const claim = { sagaId: saga.id, revision: saga.revision };
    await inventory.register(claim, dropletOf(providerId), provisionOf(saga.id));
    const rows = z.object({ resources: z.array(z.unknown()), provisioned: z.array(z.unknown()) });
    expect(rows.parse(await snapshot(saga.id)).resources).toHaveLength(rows.parse(before).resources.length);
    expect(rows.parse(await snapshot(saga.id)).provisioned).toEqual(rows.parse(before).provisioned);
  });

  test('is asked for again, and as it is asked for now, when it was released meanwhile', async () => {
    const { saga, providerId } = await startRegistered();
    const claim = { sagaId: saga.id, revision: saga.revision };
    await inventory.markDestroyed(claim, providerId);
    await inventory.register(claim, dropletOf(providerId), { ...provisionOf(saga.id), spec: { region: 'ams3' } });
    const rows = await db.sql`select spec, released_at from arcadia.cloud_provisioned where saga_id = ${saga.id}`;
    expect([...rows]).toEqual([{ spec: { region: 'ams3' }, releasedAt: null }]);
  });

  test('may be unregistered twice, and where it never was registered', async () => {
    const { saga, providerId } = await startRegistered();
    const claim = { sagaId: saga.id, revision: saga.revision };
    expect(await inventory.unregister(claim)).toBe(true);
    expect(await inventory.unregister(claim)).toBe(true);
    const [row] = await db.sql<{ deletedAt: Date | null }[]>`select deleted_at from arcadia.cloud_resources where provider_id = ${providerId}`;
    expect(row?.deletedAt).not.toBeNull();
    expect(await db.sql`select 1 from arcadia.cloud_provisioned where saga_id = ${saga.id}`).toEqual([]);
  });

  test('is refused to a second saga', async () => {
    const { providerId } = await startRegistered();
    const other = await startRunning();
    const claim = { sagaId: other.id, revision: other.revision };
    await expect(inventory.register(claim, dropletOf(providerId), provisionOf(other.id))).rejects.toThrow('was provisioned or adopted by another saga');
  });
});
