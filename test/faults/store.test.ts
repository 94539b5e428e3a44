// Postgres in trouble: killed in mid-statement, read-only, out of connections. Whatever
// happens to it, no create is sent without a committed intent, no transition is half applied, nothing hangs, and the
// same process goes on when it is over.

import { Client } from 'pg';
import type postgres from 'postgres';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { EmbeddedPostgres } from '../../src/dev/embedded-postgres/start-embedded-postgres.ts';
import { openFaultStage } from '../support/fault-stage.ts';
import type { Stage } from '../support/fault-stage.ts';
import { startPrivatePostgres } from '../support/services-postgres.ts';
import { waitFor } from '../support/wait-for.ts';
import { SAGAS, expectAllCompleted, provisionAll, untilUnderWay } from './sagas-under-way.ts';
import { openAdmin } from '../support/admin-connection.ts';

let server: EmbeddedPostgres;
let databases = 0;

beforeAll(async () => {
  server = await startPrivatePostgres({ settings: { max_connections: '60', fsync: 'on', synchronous_commit: 'on' } });
});

afterAll(async () => {
  await server.stop();
});

async function asAdmin(operation: (admin: postgres.Sql) => Promise<unknown>): Promise<void> {
  const admin = openAdmin(server.url, { default_transaction_read_only: false });
  try {
    await operation(admin);
  } finally {
    await admin.end({ timeout: 5 });
  }
}

/** A database of its own on the server that the test breaks. */
async function setStageOnOwnServer(queues: 'redis' | 'postgres'): Promise<Stage> {
  databases += 1;
  const name = `faults_${databases}`;
  await asAdmin((admin) => admin`create database ${admin(name)}`);
  const url = new URL(server.url);
  url.pathname = `/${name}`;
  return openFaultStage({ databaseUrl: url.href, ...(queues === 'postgres' ? { redisUrl: null } : {}) });
}

async function takeAllConnections(hoard: Client[]): Promise<void> {
  for (;;) {
    const client = new Client({ connectionString: server.url, application_name: 'hoard' });
    client.on('error', () => undefined);
    try {
      await client.connect();
    } catch {
      return;
    }
    hoard.push(client);
  }
}

test.each([
  { mode: 'kill', queues: 'redis' },
  { mode: 'fast', queues: 'redis' },
  { mode: 'immediate', queues: 'postgres' },
] as const)('goes on in the same process after Postgres was restarted in mid-statement ($mode; queues on $queues)', async ({ mode, queues }) => {
  await using stage = await setStageOnOwnServer(queues);
  await stage.work();
  await provisionAll(stage);
  await untilUnderWay(stage);
  if (mode === 'kill') await server.kill();
  await server.restart(mode === 'kill' ? 'immediate' : mode);
  expect(await stage.atRest(35_000)).toHaveLength(SAGAS);
  await expectAllCompleted(stage);
  });

describe.each(['redis', 'postgres'] as const)('with the queues on %s', (queues) => {
  test('goes on after Postgres was read-only for a while, in which it created nothing that was not announced', async () => {
    await using stage = await setStageOnOwnServer(queues);
    // So slow that most creates are not announced yet when the writing stops.
    stage.sandbox.setFaults({ latencyMs: { minMs: 150, maxMs: 150 } });
    const { log } = await stage.work({ settings: { WORKER_CONCURRENCY: '2' } });
    await provisionAll(stage);
    await untilUnderWay(stage);
    await asAdmin((admin) => admin`alter system set default_transaction_read_only = on`);
    await asAdmin((admin) => admin`select pg_reload_conf()`);
    try {
      await waitFor(() => log.some((line) => JSON.stringify(line).includes('read-only transaction')), { what: 'a refused write' });
      // Longer than the lock: every job that was held by then has been given to somebody else.
      await waitFor(() => log.filter((line) => JSON.stringify(line).includes('read-only transaction')).length >= 3, { what: 'more refused writes', deadlineMs: 10_000 });
      // Several creates are announced by one statement: those of the last one may still be on their way.
      const creates = stage.sandbox.ledger().filter(({ method }) => method === 'POST').length;
      const [row] = await stage.db.sql<{ announced: number }[]>`select sum((context->>'create_intents')::int)::int as announced from arcadia.sagas`;
      expect(creates).toBeLessThanOrEqual(row?.announced ?? 0);
      expect(row?.announced).toBeLessThan(SAGAS);
    } finally {
      await asAdmin((admin) => admin`alter system reset default_transaction_read_only`);
      await asAdmin((admin) => admin`select pg_reload_conf()`);
    }
    expect(await stage.atRest(35_000)).toHaveLength(SAGAS);
    await expectAllCompleted(stage);
  });

  test('goes on after Postgres was out of connections', async () => {
    await using stage = await setStageOnOwnServer(queues);
    const { log } = await stage.work();
    await provisionAll(stage);
    await untilUnderWay(stage);
    const hoard: Client[] = [];
    const refused = () => log.some((line) => /too many clients|connection slots/.test(JSON.stringify(line)));
    try {
      // The worker's connections are cut again and again, and those who cut them are first to take their places.
      await waitFor(
        async () => {
          await takeAllConnections(hoard);
          await hoard[0]?.query(`select pg_terminate_backend(pid) from pg_stat_activity where application_name like 'arcadia%'`);
          return refused();
        },
        { what: 'a refused connection', everyMs: 0 },
      );
    } finally {
      await Promise.all(hoard.map((client) => client.end()));
    }
    expect(await stage.atRest(35_000)).toHaveLength(SAGAS);
    await expectAllCompleted(stage);
  });
});
