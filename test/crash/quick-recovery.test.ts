import { readFile } from 'node:fs/promises';
import { expect, test } from 'vitest';
import type { Saga } from '../../src/saga/saga.ts';
import { openClient } from '../../src/client/open-client.ts';
import { loadConfig } from '../../src/platform/config.ts';
import { openDatabase } from '../../src/platform/db.ts';
import { startWorkerProcess } from '../../src/dev/worker-process.ts';
import { startSandbox } from '../../src/sandbox/server.ts';
import { migrate } from '../../src/processes/migrate.ts';
import { takeoverWithinMs } from '../../src/queues/step-workers.ts';
import { createTestDatabase } from '../support/services-postgres.ts';
import { createTestRedis } from '../support/services-redis.ts';
import { waitFor } from '../support/wait-for.ts';
import { listSagas } from '../support/list-sagas.ts';

const SAGAS = 100;
const PROMISED_MS = 45_000;
// What is left of the promise is for taking the job and running its step, on a busy machine.
const LOCK_MS = loadConfig({}).worker.lockMs;
const TAKEOVER_MS = takeoverWithinMs(LOCK_MS);

test('is promised in docs/explanation/reliability.md with these figures', async () => {
  const text = await readFile(new URL('../../docs/explanation/reliability.md', import.meta.url), 'utf8');
  const checkMs = (TAKEOVER_MS - LOCK_MS) / 2;
  expect(text).toContain(`${LOCK_MS / 1_000} s + 2 × ${checkMs / 1_000} s = ${TAKEOVER_MS / 1_000} s by default; the promise is ${PROMISED_MS / 1_000} s`);
});

// Nothing is set but where things are: locks, polls and the reconciler run at their defaults.
test('moves every saga on within 45 s after one of two workers with 100 sagas in flight is killed', async () => {
  await using database = await createTestDatabase({ template: 'arcadia_only', migrate: migrateDatabase });
  await using redis = createTestRedis();
  // Every saga waits for an answer when the worker dies: half of them in the middle of a create, which was announced, so
  // that the reconciler takes it up; half at a look at the droplet, where only the lock tells that nobody is at it.
  const holdAnswerMs = 8_000;
  const sandbox = await startSandbox({
    activateAfterMs: 0,
    ratePerMinute: null,
    ratePerHour: null,
    faults: {
      rules: [
        { match: { method: 'POST', name: 'created-*' }, effect: { holdAnswerMs } },
        { match: { method: 'GET', path: String.raw`^/v2/droplets(/\d+)?$` }, effect: { holdAnswerMs } },
      ],
    },
  });
  // What is measured is how soon the dead worker's sagas are taken over, not how long the account's limit holds them then.
  const { PATH, HOME } = process.env;
  const environment = { PATH, HOME, DATABASE_URL: database.url, REDIS_URL: redis.url, QUEUE_PREFIX: redis.prefix, DIGITALOCEAN_API_URL: sandbox.url, DIGITALOCEAN_TOKEN: 'quick-recovery', DIGITALOCEAN_REQUESTS_PER_MINUTE: '1000' };
  const workers = await Promise.all([startWorkerProcess(environment), startWorkerProcess(environment)]);
  const db = openDatabase(database.url, { max: 2 });
  const client = openClient({ databaseUrl: database.url, queueStore: { kind: 'redis', nodes: redis.nodes, prefix: redis.prefix } });
  try {
    const names = Array.from({ length: SAGAS }, (_, index) => (index % 2 === 0 ? `created-${index}` : `polled-${index}`));
    await Promise.all(names.map((name) => client.provisionDroplet({ name, region: 'fra1', size: 's-1vcpu-1gb', image: 'debian-12-x64' })));
    // The looks share their requests: that their sagas wait is seen in the rows.
    const areHeld = async () => {
      const creates = sandbox.ledger().filter(({ method, status }) => method === 'POST' && status === 'pending').length;
      const waits = (await listSagas(db, { limit: SAGAS })).filter(({ cursor }) => cursor === 1).length;
      return creates === SAGAS / 2 && waits === SAGAS / 2;
    };
    await waitFor(areHeld, { what: 'all sagas in the middle of a create or a look', everyMs: 20 });
    const [victim] = workers;
    await victim.kill();
    const killedAt = performance.now();
    sandbox.setFaults({ rules: [] });

    const before = new Map((await listSagas(db, { limit: SAGAS })).map((saga) => [saga.id, saga]));
    const held = new Set(await sagasOf(victim.pid, before.keys(), client.events));
    expect(held.size, 'sagas in the hands of the dead worker').toBeGreaterThan(SAGAS / 4);

    const movedAfterMs = new Map<string, number>();
    await waitFor(
      async () => {
        for (const saga of await listSagas(db, { limit: SAGAS })) {
          const hasMoved = saga.revision > (before.get(saga.id)?.revision ?? Infinity);
          if (hasMoved && !movedAfterMs.has(saga.id)) movedAfterMs.set(saga.id, performance.now() - killedAt);
        }
        return movedAfterMs.size === SAGAS;
      },
      { what: 'every saga to move on', deadlineMs: PROMISED_MS + 30_000, everyMs: 100 },
    );
    const ofHeld = [...held].map((id) => movedAfterMs.get(id) ?? Infinity).toSorted((a, b) => a - b);
    const worstMs = Math.max(...movedAfterMs.values());
    const medianMs = ofHeld[Math.floor(ofHeld.length / 2)] ?? Infinity;
    process.stdout.write(`killed one of two workers; it held ${held.size} of ${SAGAS} sagas: they moved on after ${seconds(medianMs)} s (p50), ${seconds(worstMs)} s (worst)\n`);
    expect(worstMs).toBeLessThanOrEqual(PROMISED_MS);
    expect(medianMs).toBeLessThanOrEqual(TAKEOVER_MS);

    const sagas = await waitFor(async () => allCompleted(await listSagas(db, { limit: SAGAS })), { what: 'every saga to complete', deadlineMs: 30_000 });
    const alive = sandbox.state({ alive: true }).map(({ id }) => id);
    expect(new Set(sagas.map((saga) => saga.context['droplet_id']))).toEqual(new Set(alive));
    expect(alive).toHaveLength(SAGAS);
    expect(sandbox.ledger().filter((entry) => entry.method === 'POST')).toHaveLength(SAGAS);
  } finally {
    await Promise.all(workers.map((worker) => worker.kill()));
    await Promise.allSettled([client.close(), db.close(), sandbox.close()]);
  }
});

function allCompleted(sagas: Saga[]): Saga[] | false {
  return sagas.every((saga) => saga.status === 'completed') && sagas;
}

/** The sagas whose last event was written by this process. */
async function sagasOf(pid: number, ids: Iterable<string>, events: (id: string) => Promise<{ worker: string | null }[]>): Promise<string[]> {
  const found: string[] = [];
  for (const id of ids) {
    const timeline = await events(id);
    if (timeline.at(-1)?.worker?.endsWith(`:${pid}`) === true) found.push(id);
  }
  return found;
}

function seconds(ms: number): string {
  return (ms / 1_000).toFixed(1);
}

async function migrateDatabase(url: string): Promise<void> {
  const db = openDatabase(url, { max: 2 });
  await migrate(db, 'default');
  await db.close();
}
