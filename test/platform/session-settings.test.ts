// A database, or a role, whose own settings would change what our statements return: nothing of it may show.

import { Client as PgClient } from 'pg';
import postgres from 'postgres';
import { describe, expect, onTestFinished, test } from 'vitest';
import { openClient } from '../../src/client/open-client.ts';
import { loadConfig } from '../../src/platform/config.ts';
import { ConfigError } from '../../src/platform/config-error.ts';
import { openDatabase } from '../../src/platform/db.ts';
import { silentLog } from '../../src/platform/log.ts';
import { migrate } from '../../src/processes/migrate.ts';
import { migrateQueues, openQueueConnection } from '../../src/queues/connection.ts';
import { loadSaga } from '../../src/saga/store.ts';
import { startWorker } from '../../src/processes/worker.ts';
import { createEngineDatabase } from '../support/engine.ts';
import { openFleet, runCommand, web } from '../support/fleet.ts';
import { hostileSettings, setForSessions } from '../support/hostile-settings.ts';
import { createTestDatabase } from '../support/services-postgres.ts';
import type { TestDatabase } from '../support/services-postgres.ts';
import { queueStoreKinds } from '../support/topology.ts';

/** Dropped after the test, and after what the test closes. */
async function databaseOf(making: Promise<TestDatabase>): Promise<TestDatabase> {
  const database = await making;
  onTestFinished(database.drop);
  return database;
}

const pooled = queueStoreKinds().length === 1;

describe.each(['database', 'role'] as const)('settings of the %s', (where) => {
  test('do not reach the sessions of either driver', async () => {
    const database = await databaseOf(createEngineDatabase());
    await setForSessions(database.name, where, hostileSettings);
    const db = openDatabase(database.directUrl, { max: 2 });
    onTestFinished(() => db.close());
    const rows = await db.run('test', (sql) => sql<{ name: string; setting: string }[]>`select name, setting from pg_settings where name ilike any(${Object.keys(hostileSettings)}::text[])`);
    expect(Object.fromEntries(rows.map(({ name, setting }) => [name.toLowerCase(), setting]))).toEqual({
      datestyle: 'ISO, MDY',
      timezone: 'UTC',
      intervalstyle: 'postgres',
      search_path: 'public',
      bytea_output: 'hex',
      extra_float_digits: '1',
      default_transaction_isolation: 'read committed',
      default_transaction_deferrable: 'off',
      standard_conforming_strings: 'on',
      transform_null_equals: 'off',
      array_nulls: 'on',
      client_encoding: 'UTF8',
      statement_timeout: '10000',
      lock_timeout: '0',
      idle_session_timeout: '0',
      idle_in_transaction_session_timeout: '60000',
    });
    const [row] = await db.run('test', (sql) => sql<{ at: Date }[]>`select timestamptz '2026-12-11 10:20:30.5Z' as at`);
    expect(row?.at.toISOString()).toBe('2026-12-11T10:20:30.500Z');

    const connection = openQueueConnection({ kind: 'postgres', databaseUrl: database.directUrl }, silentLog);
    onTestFinished(() => connection.close());
    await connection.check('test/x');
    const queue = connection.queue('hostile');
    const job = await queue.add('ünïcödé', { a: 1 }, { delay: 60_000 });
    expect(await queue.getJob(job.id ?? '')).toMatchObject({ name: 'ünïcödé', delay: 60_000 });
    await queue.close();
  });

  test('do not hold up the migrations', async () => {
    const database = await databaseOf(createTestDatabase());
    await setForSessions(database.name, where, hostileSettings);
    const db = openDatabase(database.directUrl, { max: 2 });
    onTestFinished(() => db.close());
    expect(await migrate(db, 'test')).toContain('sagas');
    await migrateQueues({ kind: 'postgres', databaseUrl: database.directUrl });
  });
});

describe.each(queueStoreKinds())('with queues in %s, on a database whose DateStyle is German', (kind) => {
  test('a POST whose answer is lost makes one droplet, and commands work', async () => {
    await using fleet = await openFleet(kind);
    const [row] = await fleet.db.sql<{ name: string }[]>`select current_database() as name`;
    await setForSessions(row?.name ?? '', 'database', pooled ? { datestyle: 'German', timezone: 'Asia/Kathmandu' } : hostileSettings);
    fleet.sandbox.setFaults({ rules: [{ match: { method: 'POST' }, times: 1, effect: { lostAnswer: true } }] });
    await fleet.startWorker();
    const { sagaId } = await fleet.client.provisionDroplet(web);
    expect(await fleet.atRest(sagaId, 30_000)).toMatchObject({ status: 'completed', context: { droplet_origin: 'adopted' } });
    expect(fleet.sandbox.ledger().filter(({ method }) => method === 'POST')).toHaveLength(1);
    const [droplet] = fleet.sandbox.state({ alive: true });
    expect(droplet?.tags).toContainEqual(expect.stringMatching(/^arcadia-wave-\d+$/));
    const sync = await runCommand(['sync', '--json'], fleet.environment());
    expect([sync.stderr, sync.code]).toEqual(['', 0]);
    const shown = await runCommand(['saga', sagaId], fleet.environment());
    expect([shown.stderr, shown.code]).toEqual(['', 0]);
    const destroyed = await fleet.client.destroyDroplet(droplet?.id ?? 0);
    expect((await fleet.atRest(destroyed.sagaId)).status).toBe('completed');
  });
});

describe("a caller's own session", () => {
  const callersSettings = { ...hostileSettings, statement_timeout: '0', lock_timeout: '0', idle_session_timeout: '0', idle_in_transaction_session_timeout: '0' };
  const options = Object.entries(callersSettings).map(([name, value]) => `-c ${name}=${value}`).join(' ');
  const input = { name: 'web-1', region: 'fra1', size: 's-1vcpu-1gb', image: 'debian-12-x64' };

  test('may be set in any way when it starts sagas: by SQL, or in its transaction', async () => {
    const database = await createEngineDatabase();
    const pg = new PgClient({ connectionString: database.directUrl, options });
    await pg.connect();
    const js = postgres(database.directUrl, { max: 1, connection: { options } });
    const client = openClient({ databaseUrl: database.url });
    const db = openDatabase(database.url, { max: 1 });
    onTestFinished(async () => {
      await Promise.all([pg.end(), js.end(), client.close(), db.close()]);
      await database.drop();
    });
    const bySql = await pg.query<{ id: string }>('select arcadia.start_saga($1, $2) as id', ['provision_droplet', JSON.stringify(input)]);
    await pg.query('begin');
    const inPg = await client.provisionDroplet(input, { transaction: pg, idempotencyKey: 'one' });
    expect((await client.provisionDroplet(input, { transaction: pg, idempotencyKey: 'one' })).sagaId).toBe(inPg.sagaId);
    await pg.query('commit');
    const inJs = await js.begin((transaction) => client.provisionDroplet(input, { transaction, requestedBy: 'Ünïcode' }));
    for (const id of [bySql.rows[0]?.id, inPg.sagaId, inJs.sagaId]) {
      const loaded = await loadSaga(db, id ?? '');
      expect(Math.abs(Number(loaded?.saga.createdAt) - Date.now())).toBeLessThan(60_000);
      expect(loaded).toMatchObject({ dueInMs: 0, saga: { status: 'pending', input: { name: 'web-1' } } });
    }
  });
});

test('where a setting cannot be set by the connection, the process does not start, and says what to do', async () => {
  await using database = await createEngineDatabase();
  await setForSessions(database.name, 'database', { session_replication_role: 'replica' });
  const config = loadConfig({ ARCADIA_ENV: 'test', DATABASE_URL: database.directUrl, DIGITALOCEAN_TOKEN: 'sandbox' });
  const refused = startWorker(config, silentLog);
  await expect(refused).rejects.toThrow(ConfigError);
  await expect(refused).rejects.toThrow(/session_replication_role is replica; expected origin\.\n.*alter role ".+" in database ".+" set session_replication_role = 'origin'/);
});
