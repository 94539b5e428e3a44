// A step that never returns: its worker tells of it once it has run for ten minutes, and no more once it ends.
import { randomUUID } from 'node:crypto';
import { expect, onTestFinished, test } from 'vitest';
import { readFleetFacts } from '../../src/fleet/facts.ts';
import { showSignOfLife } from '../../src/fleet/sign-of-life.ts';
import { openDatabase } from '../../src/platform/db.ts';
import { silentLog } from '../../src/platform/log.ts';
import { rememberRunningSteps } from '../../src/processes/running-steps.ts';
import { createEngineDatabase } from '../support/engine.ts';
import { waitFor } from '../support/wait-for.ts';

test('the steps that have run for ten minutes are told of, the longest first, until they end', async () => {
  let now = 0;
  const steps = rememberRunningSteps(() => now);
  const one = Promise.withResolvers<string>();
  const other = Promise.withResolvers<string>();
  const ended = [steps.during({ sagaId: 'one', step: 'charge' }, () => one.promise), steps.during({ sagaId: 'other', step: 'refund' }, () => other.promise)] as const;
  now = 600_000;
  expect(steps.longRuns()).toEqual({ runs: [], longestMs: null });
  const late = steps.during({ sagaId: 'late', step: 'charge' }, async () => Promise.resolve('late'));
  now = 660_000;
  expect(steps.longRuns()).toEqual({ runs: [{ sagaId: 'one', step: 'charge' }, { sagaId: 'other', step: 'refund' }], longestMs: 660_000 });
  one.resolve('done');
  expect([await ended[0], await late]).toEqual(['done', 'late']);
  other.reject(new Error('it failed'));
  await expect(ended[1]).rejects.toThrow('it failed');
  expect(steps.longRuns()).toEqual({ runs: [], longestMs: null });
});

test('a heartbeat tells of them, and the fleet by whom and at which step', async () => {
  const database = await createEngineDatabase();
  onTestFinished(database.drop);
  const db = openDatabase(database.url);
  onTestFinished(() => db.close());
  const id = randomUUID();
  await db.sql`
    insert into arcadia.sagas (id, saga8, name, steps, status, input, wake_at)
    values (${id}, ${id.slice(0, 8)}, 'onboarding', '{charge}', 'running', '{}', clock_timestamp() + interval '1 hour')`;
  let now = 0;
  const steps = rememberRunningSteps(() => now);
  const answer = Promise.withResolvers<void>();
  const run = steps.during({ sagaId: id, step: 'charge' }, () => answer.promise);
  const stopping = new AbortController();
  const identity = { name: 'host:7', host: 'host', pid: 7, version: '1', nodeVersion: '24', concurrency: 1, scope: null, steps: ['charge'], sagas: [], queuePlace: { kind: 'postgres', prefix: null } } as const;
  const state = () => ({ jobs: 1, throttledForMs: 0, reconcilerFailingForMs: null, provider: { failingForMs: null, answeredMsAgo: null }, longRuns: steps.longRuns() });
  const beating = showSignOfLife(identity, { db, state, signal: stopping.signal, log: silentLog, renewMs: 20 });
  const toldOf = (sagas: number) => waitFor(async () => {
    const { workers, longRuns } = await readFleetFacts(db);
    return workers.length === 1 && longRuns.sagas === sagas && longRuns;
  }, { what: `the worker to tell of ${sagas}` });
  expect(await toldOf(0)).toEqual({ sagas: 0, standing: 0, ids: [], steps: [], workers: [], since: null });
  now = 660_000;
  expect(await toldOf(1)).toMatchObject({ standing: 1, ids: [id], steps: ['charge'], workers: ['host:7'], since: expect.any(Date) });
  // Cancelled meanwhile, and rolled back by another worker: the step still takes its place.
  await db.sql`update arcadia.sagas set status = 'compensated', finished_at = clock_timestamp(), wake_at = null where id = ${id}`;
  expect(await toldOf(1)).toMatchObject({ standing: 0, ids: [id], steps: ['charge'] });
  answer.resolve();
  await run;
  expect(await toldOf(0)).toMatchObject({ since: null });
  stopping.abort();
  await beating;
});
