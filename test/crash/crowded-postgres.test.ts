import { once } from 'node:events';
import { text } from 'node:stream/consumers';
import { fileURLToPath } from 'node:url';
import { expect, inject, test } from 'vitest';
import { loadConfig } from '../../src/platform/config.ts';
import { openDatabase } from '../../src/platform/db.ts';
import { silentLog } from '../../src/platform/log.ts';
import { startWorker } from '../../src/processes/worker.ts';
import { scenarios } from './scenarios.ts';
import { spawnBound } from '../support/child-process.ts';
import { compileCache } from '../support/compile-cache.ts';
import { useSharedDatabase } from '../support/shared-database.ts';
import { openCrashStage } from './stage.ts';

const database = useSharedDatabase(2);

test('a worker that finds too few connections left in Postgres says so, and leaves the process in order', async () => {
  const [scenario] = scenarios;
  if (scenario === undefined) throw new Error('there are no scenarios');
  const stage = await openCrashStage(scenario, 'postgres');
  const databaseUrl = stage.config.databaseUrl ?? '';
  const db = openDatabase(databaseUrl, { max: 1 });
  const role = `crowded_${process.pid}`;
  try {
    await db.sql.unsafe(`create role ${role} login password 'crowded' connection limit 3`);
    await db.sql.unsafe(`grant all on schema arcadia, bullmq to ${role}`);
    await db.sql.unsafe(`grant all on all tables in schema arcadia, bullmq to ${role}`);
    const url = new URL(databaseUrl);
    url.username = role;
    url.password = 'crowded';
    const config = loadConfig({ DATABASE_URL: url.href, DIGITALOCEAN_TOKEN: 'none', DIGITALOCEAN_API_URL: stage.sandbox.url });
    await expect(startWorker(config, silentLog)).rejects.toThrow(/too many connections/);
    // A worker that went on in vain would give nothing else in this process a turn.
    const worker = await stage.startWorker();
    await stage.untilAtRest();
    await worker.close();
    expect(await stage.problems()).toEqual([]);
  } finally {
    await db.sql.unsafe(`drop owned by ${role}`);
    await db.sql.unsafe(`drop role ${role}`);
    await db.close();
    await stage.close();
  }
});

// In a process of its own: a worker that asks again and again without a pause gives nothing else in its process a turn, and
// no timer of a test.
test('a worker that finds no connection at all for its queue leaves its process time for everything else', async () => {
  const { sql } = database();
  const role = `crowded_out_${process.pid}`;
  await sql.unsafe(`create role ${role} login password 'crowded' connection limit 0`);
  try {
    const [row] = await sql<{ name: string }[]>`select current_database() as name`;
    const url = new URL(`/${row?.name}`, inject('services').databaseUrl);
    url.username = role;
    url.password = 'crowded';
    const program = fileURLToPath(new URL('crowded-worker.ts', import.meta.url));
    const child = spawnBound(process.execPath, [program, url.href], { env: { ...compileCache, PATH: process.env['PATH'] } });
    const limit = setTimeout(() => child.kill('SIGKILL'), 20_000);
    const [output, errors] = await Promise.all([text(child.stdout), text(child.stderr), once(child, 'exit')]);
    clearTimeout(limit);
    expect({ output, errors }).toEqual({ output: expect.stringMatching(/^error: too many connections .*\nstill here\n$/), errors: '' });
  } finally {
    await sql.unsafe(`drop role ${role}`);
  }
});
