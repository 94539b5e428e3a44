// The minimum for any engine that commits each step before it adds the next job: the bare chain, with a row for each saga and
// each step. It fences by revision and batches commits as our engine does, and has nothing else: no index but the keys, no
// reads, no logs, no compensation.
import { randomUUID } from 'node:crypto';
import { setImmediate } from 'node:timers/promises';
import { Queue, Worker } from 'bullmq';
import { Redis } from 'ioredis';
import { z } from 'zod';
import { openDatabase } from '../../src/platform/db.ts';
import type { Database } from '../../src/platform/db.ts';
import { batch } from '../../src/platform/batch.ts';
import { createTally, serve, untilNone } from './contender.ts';

const STEPS = 3;
// The same retention as our jobs.
const kept = { removeOnComplete: { age: 24 * 3_600, count: 2_000 }, removeOnFail: { age: 14 * 24 * 3_600, count: 5_000 } };

const dataSchema = z.object({ sagaId: z.uuid(), revision: z.int() });
type Data = z.infer<typeof dataSchema>;

const jobOf = (data: Data) => ({ name: `step_${data.revision + 1}`, data, opts: { ...kept, jobId: `${data.sagaId}-${data.revision}` } });

serve(async ({ databaseUrl, redisUrl, concurrency }) => {
  const prefix = `{durable-${process.pid}}`;
  const db = openDatabase(databaseUrl, { max: 20 });
  await db.sql`create table floor_sagas (id uuid primary key, revision int not null default 0, context jsonb not null default '{}') with (fillfactor = 70)`;
  await db.sql`create table floor_events (saga_id uuid, seq int, at timestamptz not null default clock_timestamp(), kind text not null, primary key (saga_id, seq))`;
  const commit = batch((steps: readonly Data[]) => commitSteps(db, steps), { max: 200, patienceMs: 50 });
  const producer = new Queue('steps', { connection: new Redis(redisUrl, { maxRetriesPerRequest: 1 }), prefix });
  const tally = createTally();
  const insert = async (ids: readonly string[]) => {
    await db.sql`insert into floor_sagas (id) select unnest(${[...ids]}::uuid[])`;
  };
  return {
    preload: async (sagas) => {
      for (let left = sagas; left > 0; left -= 500) {
        const ids = Array.from({ length: Math.min(500, left) }, () => randomUUID());
        await insert(ids);
        await producer.addBulk(ids.map((sagaId) => jobOf({ sagaId, revision: 0 })));
      }
    },
    start: async () => {
      const connection = new Redis(redisUrl, { maxRetriesPerRequest: null });
      const queue = new Queue('steps', { connection, prefix });
      const worker = new Worker(
        'steps',
        async (job) => {
          const data = dataSchema.parse(job.data);
          if (data.revision === STEPS - 1) tally.finish(data.sagaId);
          if (!(await commit(data)) || data.revision === STEPS - 1) return;
          const next = jobOf({ ...data, revision: data.revision + 1 });
          queue.add(next.name, next.data, next.opts).catch((error: unknown) => void process.stderr.write(`${String(error)}\n`));
          await setImmediate();
        },
        { connection, prefix, concurrency },
      );
      await worker.waitUntilReady();
    },
    finished: async (sagas) => {
      await tally.reached(sagas);
      await untilNone(databaseUrl, `select 1 from floor_sagas where revision < ${STEPS} limit 1`);
    },
    one: async () => {
      const sagaId = randomUUID();
      const ended = tally.ofName(sagaId);
      await insert([sagaId]);
      const job = jobOf({ sagaId, revision: 0 });
      await producer.add(job.name, job.data, job.opts);
      await ended;
    },
  };
});

/** Moves each saga on by one step. Returns for each whether its revision was the expected one. */
async function commitSteps(db: Database, steps: readonly Data[]): Promise<boolean[]> {
  const moved = await db.run(
    'floor.commit',
    (sql) => sql<{ id: string }[]>`
      with given as (select * from unnest(${steps.map(({ sagaId }) => sagaId)}::uuid[], ${steps.map(({ revision }) => String(revision))}::text[]::int[]) as given (id, revision)),
      moved as (
        update floor_sagas as saga set revision = saga.revision + 1 from given
        where saga.id = given.id and saga.revision = given.revision and saga.id = any(${steps.map(({ sagaId }) => sagaId)}::uuid[])
        returning saga.id, saga.revision
      ),
      told as (insert into floor_events (saga_id, seq, kind) select id, revision, 'step_completed' from moved)
      select id from moved`,
  );
  const ids = new Set(moved.map(({ id }) => id));
  return steps.map(({ sagaId }) => ids.has(sagaId));
}
