// Workers of two versions side by side, as in a deploy: the older one leaves to the newer one what is meant for it.
import { pino } from 'pino';
import { expect, test } from 'vitest';
import { z } from 'zod';
import { loadConfig } from '../../src/platform/config.ts';
import { openDatabase } from '../../src/platform/db.ts';
import { generateKey } from '../../src/platform/key-ring.ts';
import { silentLog } from '../../src/platform/log.ts';
import { migrate } from '../../src/processes/migrate.ts';
import { startWorker } from '../../src/processes/worker.ts';
import { openQueueConnection } from '../../src/queues/connection.ts';
import { queueNames } from '../../src/queues/jobs.ts';
import { defineApp, defineSaga, defineStep } from '../../src/saga/app.ts';
import { done } from '../../src/saga/step.ts';
import { createEngineDatabase } from '../support/engine.ts';
import { waitFor } from '../support/wait-for.ts';

const step = defineStep<object>({ name: 'one', execute: async () => Promise.resolve(done()), compensate: async () => Promise.resolve(done()) });
const sagas = (more: Readonly<Record<string, z.ZodType<string | undefined>>>, secrets: readonly string[]) => defineSaga({ name: 'plain', input: z.strictObject({ name: z.string(), ...more }), secrets, steps: [step] });
const older = defineApp({ sagas: [sagas({}, [])], deps: () => ({}) });
const newer = defineApp({ sagas: [sagas({ owner: z.string(), note: z.string().optional() }, ['note']), defineSaga({ name: 'added', input: z.strictObject({}), steps: [step] })], deps: () => ({}) });

test('requests of the next version wait for its workers, whether they come by SQL or by the queue', async () => {
  await using stack = new AsyncDisposableStack();
  const database = stack.use(await createEngineDatabase());
  const db = openDatabase(database.url, { max: 3 });
  stack.defer(() => db.close());
  const config = loadConfig({ ARCADIA_ENV: 'test', DATABASE_URL: database.url, RECONCILE_INTERVAL_MS: '500', ARCADIA_ENCRYPTION_KEYS: generateKey() });
  const connection = openQueueConnection({ kind: 'postgres', databaseUrl: database.url }, silentLog);
  const intake = connection.queue(queueNames.intake);
  stack.defer(async () => { await intake.close(); await connection.close(); });

  await migrate(db, 'test', older.catalog);
  const lines: string[] = [];
  const old = await startWorker(config, pino({ level: 'warn' }, { write: (line: string) => void lines.push(line) }), undefined, older);
  let isOldOpen = true;
  stack.defer(async () => { if (isOldOpen) await old.close(); });
  await migrate(db, 'test', newer.catalog);
  const input = { name: 'web', owner: 'ann', note: 'hush' };
  const jobs = [await intake.add('added', { input: {} }), await intake.add('plain', { input })];
  await db.sql`select arcadia.start_saga('plain', ${JSON.stringify(input)}::text::jsonb)`;
  await waitFor(() => ['request left to a newer worker', ': left to a newer worker'].every((text) => lines.filter((line) => line.includes(text)).length >= 4), { what: 'the older worker to leave all three' });
  expect(await db.sql`select from arcadia.sagas where status <> 'pending'`).toHaveLength(0);

  const next = await startWorker(config, silentLog, undefined, newer);
  stack.defer(() => next.close());
  // While both run, either may take them.
  await waitFor(async () => (await db.sql`select from arcadia.sagas where status = 'completed'`).length === 3, { what: 'the three sagas to be completed', deadlineMs: 25_000 });
  expect(await Promise.all(jobs.map(async ({ id = '' }) => intake.getJobState(id)))).toEqual(['completed', 'completed']);
  const rows = await db.sql<{ input: object }[]>`select input from arcadia.sagas where name = 'plain'`;
  expect(rows.map((row) => row.input)).toEqual([{ ...input, note: '[sealed, 4 bytes]' }, { ...input, note: '[sealed, 4 bytes]' }]);
  expect((await db.sql<{ sagas: string[] }[]>`select sagas from arcadia.workers order by started_at`).map((row) => row.sagas)).toEqual([['plain'], ['plain', 'added']]);
  await old.close();
  isOldOpen = false;
});
