import { expect, test } from 'vitest';
import { loadConfig } from '../../src/config.ts';
import { openDatabase } from '../../src/db.ts';
import { silentLog } from '../../src/log.ts';
import { startWorker } from '../../src/worker.ts';
import { scenarios } from './scenarios.ts';
import { setStage } from './stage.ts';

test('a worker that finds too few connections left in Postgres says so, and leaves the process in order', async () => {
  const [scenario] = scenarios;
  if (scenario === undefined) throw new Error('there are no scenarios');
  const stage = await setStage(scenario, 'postgres');
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
