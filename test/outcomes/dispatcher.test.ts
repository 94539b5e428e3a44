// The loop that moves outcomes from the log to a target.
import { expect, onTestFinished, test } from 'vitest';
import type { Dispatcher } from '../../src/outcomes/dispatcher.ts';
import { createDispatcher } from '../../src/outcomes/dispatcher.ts';
import { advance } from '../../src/outcomes/log.ts';
import type { Target } from '../../src/outcomes/targets.ts';
import type { Database } from '../../src/platform/db.ts';
import { DatabaseTimeoutError } from '../../src/platform/db.ts';
import { silentLog } from '../../src/platform/log.ts';
import { sagaOutcomes } from '../../src/saga/saga-outcomes.ts';
import { listSubscriptions } from '../../src/outcomes/subscriptions.ts';
import { catalogOf, fakeStep } from '../support/engine.ts';
import { waitFor } from '../support/wait-for.ts';
import { openOutcomeStage } from './stage.ts';

const plain = catalogOf(fakeStep('one'));
const REST_MS = 3_000;

/** Runs a dispatcher until the test is over. */
function runDispatcher(db: Database, target: Target, pollMs: number): Dispatcher {
  const dispatcher = createDispatcher({ db, sources: [sagaOutcomes(plain)], target, log: silentLog, pollMs });
  const stopping = new AbortController();
  const running = dispatcher.run(stopping.signal);
  onTestFinished(() => {
    stopping.abort();
    return running;
  });
  return dispatcher;
}

test('a target that accepts nothing, or fails, is on record as failing until it accepts again', async () => {
  await using stage = await openOutcomeStage('redis', plain);
  const { db } = stage.engine;
  const state = { room: 0, fails: false, taken: 0 };
  const target: Target = {
    name: 'trial',
    describe: 'a test',
    restMs: 0,
    needsBodies: false,
    whenFull: 'nobody takes anything',
    room: () => Promise.resolve(state.room),
    take: async (reader, batch) => {
      if (state.fails) throw new Error('the store is read-only');
      if (await advance(db, reader, batch)) state.taken += batch.entries.length;
    },
    tend: () => Promise.resolve(),
    begin: () => undefined,
  };
  runDispatcher(db, target, 20);
  const recorded = async () => (await listSubscriptions(db))[0];
  const full = await waitFor(async () => ((await recorded())?.lastError === 'nobody takes anything' ? recorded() : undefined), { what: 'the trouble on record' });
  expect(full?.failingSince).toBeInstanceOf(Date);
  await stage.end();
  Object.assign(state, { room: 10, fails: true });
  await waitFor(async () => (await recorded())?.lastError === 'the store is read-only', { what: 'the other trouble on record' });
  state.fails = false;
  await waitFor(async () => (await recorded())?.lastError === null, { what: 'no trouble on record', deadlineMs: 15_000 });
  expect([state.taken, (await recorded())?.failingSince]).toEqual([1, null]);
});

test('a hiccup of our own Postgres is no trouble of the receiver, and a pass without news clears what is on record', async () => {
  await using stage = await openOutcomeStage('redis', plain);
  const { db } = stage.engine;
  const state = { silent: '', failure: '', seen: 0 };
  // The statement takes effect although it is not answered, as one that a frozen Postgres runs later.
  const hiccuping: Database = {
    ...db,
    run: async (name, statement) => {
      const result = await db.run(name, statement);
      if (name === state.silent) state.seen += 1;
      if (name === state.silent) throw new DatabaseTimeoutError(`${name}: no answer`);
      return result;
    },
  };
  const target: Target = {
    name: 'trial',
    describe: 'a test',
    restMs: 0,
    needsBodies: false,
    whenFull: 'nobody takes anything',
    room: () => (state.failure === '' ? Promise.resolve(10) : Promise.reject(new Error(state.failure))),
    take: () => Promise.resolve(),
    tend: () => Promise.resolve(),
    begin: () => undefined,
  };
  const dispatcher = runDispatcher(hiccuping, target, 20);
  const recorded = async () => (await listSubscriptions(db))[0]?.lastError;
  await waitFor(async () => (await recorded()) === null, { what: 'the subscription' });
  state.silent = 'outcomes.look';
  await waitFor(() => {
    dispatcher.wake();
    return state.seen >= 2;
  }, { what: 'two failed reads' });
  expect(await recorded()).toBeNull();
  Object.assign(state, { silent: 'outcomes.trouble', failure: 'it refuses', seen: 0 });
  await waitFor(async () => (await recorded()) === 'it refuses', { what: 'the trouble on record' });
  Object.assign(state, { silent: '', failure: '' });
  await waitFor(async () => (await recorded()) === null, { what: 'no trouble on record', deadlineMs: 10_000 });
});

test('a target that rests gets the first outcome at once, and those that follow soon together', async () => {
  await using stage = await openOutcomeStage('redis', plain);
  const { db } = stage.engine;
  const batches: number[] = [];
  const target: Target = {
    name: 'trial',
    describe: 'a test',
    restMs: REST_MS,
    needsBodies: false,
    whenFull: null,
    room: () => Promise.resolve(100),
    take: async (reader, batch) => {
      if (await advance(db, reader, batch)) batches.push(batch.entries.length);
    },
    tend: () => Promise.resolve(),
    begin: () => undefined,
  };
  // Woken, it reads at once: it would not look by itself before the test is over.
  const dispatcher = runDispatcher(db, target, 600_000);
  const endOne = async () => {
    await stage.end();
    dispatcher.wake();
  };
  await waitFor(async () => (await listSubscriptions(db)).length === 1, { what: 'the subscription', everyMs: 20 });
  await endOne();
  await waitFor(() => batches.length === 1, { what: 'the first outcome' });
  for (let ended = 0; ended < 5; ended += 1) await endOne();
  await waitFor(() => batches.reduce((sum, size) => sum + size, 0) === 6, { what: 'all outcomes' });
  expect(batches[0]).toBe(1);
  // One batch, or two where this machine took longer than the rest for five sagas.
  expect(batches.length).toBeLessThanOrEqual(3);
});
