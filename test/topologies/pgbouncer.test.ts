// Postgres by way of PgBouncer in transaction mode: what it takes, and what is said where the URL does not tell of it.

import { afterAll, beforeAll, describe, expect, inject, onTestFinished, test } from 'vitest';
import { checkSession } from '../../src/platform/check-session.ts';
import { loadConfig } from '../../src/platform/config.ts';
import { ConfigError } from '../../src/platform/config-error.ts';
import { openDatabase } from '../../src/platform/db.ts';
import type { Database } from '../../src/platform/db.ts';
import { silentLog } from '../../src/platform/log.ts';
import { migrate } from '../../src/processes/migrate.ts';
import { checkPooler } from '../../src/processes/pooler.ts';
import { startWeb } from '../../src/processes/web.ts';
import { startWorker } from '../../src/processes/worker.ts';
import { runCommand } from '../support/fleet.ts';
import { setForSessions } from '../support/hostile-settings.ts';
import { startPrivatePgBouncer } from '../support/services-pgbouncer.ts';
import type { PrivatePgBouncer } from '../support/services-pgbouncer.ts';
import { createEngineDatabase } from '../support/engine.ts';
import { createTestDatabase } from '../support/services-postgres.ts';
import type { TestDatabase } from '../support/services-postgres.ts';
import { createTestRedis } from '../support/services-redis.ts';

let strict: PrivatePgBouncer;
/** Swallows what it does not understand, as many are set up to do. */
let lenient: PrivatePgBouncer;
let database: TestDatabase;

beforeAll(async () => {
  const { databaseUrl } = inject('services');
  [strict, lenient, database] = await Promise.all([
    startPrivatePgBouncer(databaseUrl),
    startPrivatePgBouncer(databaseUrl, { ignore_startup_parameters: 'statement_timeout,options' }),
    createEngineDatabase(),
  ]);
});
afterAll(async () => {
  await Promise.all([strict.stop(), lenient.stop()]);
  await database.drop();
});

function open(url: string): Database {
  const db = openDatabase(url, { max: 4 });
  onTestFinished(() => db.close());
  return db;
}

/** A database with settings of its own, and a PgBouncer that has no session of it yet. */
async function ownServer(settings: Readonly<Record<string, string>>) {
  const own = await createEngineDatabase();
  await setForSessions(own.name, 'database', settings);
  const pgBouncer = await startPrivatePgBouncer(inject('services').databaseUrl);
  onTestFinished(async () => {
    await pgBouncer.stop();
    await own.drop();
  });
  return { url: pgBouncer.through(own.directUrl) };
}

const undeclared = (pgBouncer: PrivatePgBouncer): string => pgBouncer.through(database.directUrl).replace('?pgbouncer=true', '');

const configOf = (databaseUrl: string) => {
  const { nodes, prefix } = createTestRedis();
  return loadConfig({ ARCADIA_ENV: 'test', DATABASE_URL: databaseUrl, REDIS_URL: nodes.join(','), QUEUE_PREFIX: prefix, DIGITALOCEAN_TOKEN: 'sandbox' });
};

test('statements that follow each other run on any of the sessions, with values of every kind', async () => {
  const db = open(strict.through(database.directUrl));
  const answers = await Promise.all(
    Array.from({ length: 60 }, (_, n) =>
      db.run('test', (sql) => sql<{ n: number; texts: string[]; doc: unknown; pid: number }[]>`
        select ${n}::int as n, ${['a', `"${n}"`]}::text[] as texts, ${JSON.stringify({ n })}::text::jsonb as doc, pg_backend_pid() as pid, pg_sleep(0.01)`),
    ),
  );
  expect(answers.map(([row]) => [row?.n, row?.texts, row?.doc])).toEqual(answers.map((_, n) => [n, ['a', `"${n}"`], { n }]));
  expect(new Set(answers.map(([row]) => row?.pid)).size).toBeGreaterThan(1);
});

test('the time limit that the role has holds for each statement', async () => {
  const owner = open(database.directUrl);
  await owner.sql.unsafe(`alter database ${database.name} set statement_timeout = '300ms'`);
  onTestFinished(async () => {
    await owner.sql.unsafe(`alter database ${database.name} reset statement_timeout`);
  });
  const fresh = await startPrivatePgBouncer(inject('services').databaseUrl);
  onTestFinished(fresh.stop);
  await expect(open(fresh.through(database.directUrl)).run('test', (sql) => sql`select pg_sleep(${5}::int)`)).rejects.toThrow('statement timeout');
});

describe('settings of the database', () => {
  test('do not change how times are written', async () => {
    const server = await ownServer({ datestyle: 'German', timezone: 'Asia/Kathmandu', intervalstyle: 'sql_standard', search_path: 'pg_temp', bytea_output: 'escape', standard_conforming_strings: 'off', client_encoding: 'LATIN1' });
    const db = open(server.url);
    const answers = await Promise.all(Array.from({ length: 20 }, () => db.run('test', (sql) => sql<{ at: Date }[]>`select timestamptz '2026-12-11 10:20:30Z' as at, pg_sleep(0.01)`)));
    expect(new Set(answers.map(([row]) => row?.at.toISOString()))).toEqual(new Set(['2026-12-11T10:20:30.000Z']));
    await expect(checkSession(db, server.url, silentLog)).resolves.toBeUndefined();
  });

  test.each([
    ['default_transaction_isolation', 'serializable', 'serializable; expected read committed'],
    ['default_transaction_read_only', 'on', 'on; expected off'],
    ['lock_timeout', '1ms', '1; expected 0, or 1s at least'],
    ['statement_timeout', '1ms', /.*; expected 0, or 1s at least/],
  ])('keep the process from starting where no client can set them (%s)', async (name, value, found) => {
    const server = await ownServer({ [name]: value });
    for (const start of [startWorker, startWeb]) {
      const refused = start(configOf(server.url), silentLog);
      await expect(refused).rejects.toThrow(ConfigError);
      await expect(refused).rejects.toThrow(new RegExp(`${name} is ${found instanceof RegExp ? found.source : found}`));
      await expect(refused).rejects.toThrow(`set ${name} = `);
    }
  });
});

describe('without the word pgbouncer=true, nothing starts', () => {
  test.each([['worker', startWorker], ['web', startWeb]])('where PgBouncer refuses the connection (%s)', async (_what, start) => {
    const refused = start(configOf(undeclared(strict)), silentLog);
    await expect(refused).rejects.toThrow(ConfigError);
    await expect(refused).rejects.toThrow('DATABASE_URL leads through a connection pooler (unsupported startup parameter: statement_timeout): add pgbouncer=true');
  });

  test.each([['worker', startWorker], ['web', startWeb]])('where PgBouncer lets it pass (%s)', async (_what, start) => {
    const refused = start(configOf(undeclared(lenient)), silentLog);
    await expect(refused).rejects.toThrow(ConfigError);
    await expect(refused).rejects.toThrow('DATABASE_URL leads through a connection pooler: add pgbouncer=true to its parameters, or pgbouncer=false');
  });

  test('no migration either', async () => {
    await expect(migrate(open(undeclared(strict)), 'test')).rejects.toThrow('add pgbouncer=true');
  });
});

test('the word pgbouncer=false lets a pooler pass that gives each connection a session', async () => {
  const db = open(`${undeclared(lenient)}?pgbouncer=false`);
  await expect(checkPooler(db, `${undeclared(lenient)}?pgbouncer=false`, silentLog)).resolves.toBeUndefined();
});

test.each(['worker', 'migrate'])('queues in Postgres are refused there, with what to do instead (%s)', async (command) => {
  const ended = await runCommand([command], { PATH: process.env['PATH'], DATABASE_URL: strict.through(database.directUrl), DIGITALOCEAN_TOKEN: 'sandbox' });
  expect([ended.code, ended.stderr]).toEqual([78, expect.stringMatching(/^DATABASE_URL: queues in Postgres need LISTEN.*set REDIS_URL/)]);
});

test('migrations are applied through it, by several at once', async () => {
  await using empty = await createTestDatabase();
  const applied = await Promise.all([1, 2, 3].map(() => migrate(open(strict.through(empty.directUrl)), 'test')));
  expect(applied.filter((names) => names.includes('sagas'))).toHaveLength(1);
});
