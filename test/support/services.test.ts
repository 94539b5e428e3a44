// The services that the other tests use: private databases, key prefixes and servers.

import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { createInterface } from 'node:readline';
import { pathToFileURL } from 'node:url';
import { Redis } from 'ioredis';
import { describe, expect, inject, test } from 'vitest';
import { openAdmin, runAsAdmin } from './admin-connection.ts';
import { releaseDatabases } from './database-pool.ts';
import { hostileSettings, setForSessions } from './hostile-settings.ts';
import { createTestDatabase } from './services-postgres.ts';
import { findRedisProgram, startPrivateRedis } from './services-redis-server.ts';
import { createTestRedis } from './services-redis.ts';
import { waitFor } from './wait-for.ts';

const makeThings = async (url: string): Promise<void> => void (await runAsAdmin(url, 'create table things (id int)'));
const makeNamedThings = async (url: string): Promise<void> =>
  void (await runAsAdmin(url, `create table things (id int generated always as identity, name text); insert into things (name) values ('of the template')`));

describe('createTestDatabase', () => {
  test('migrates once, however many ask at once, and gives each one its own database', async () => {
    let migrations = 0;
    const migrate = async (url: string): Promise<void> => {
      migrations++;
      await runAsAdmin(url, 'create table things (id int)');
    };
    const databases = await Promise.all(Array.from({ length: 4 }, () => createTestDatabase({ migrate, template: 'services_once' })));
    expect(migrations).toBe(1);
    await runAsAdmin(databases[0]?.url ?? '', 'insert into things values (1)');
    expect(await runAsAdmin(databases[1]?.url ?? '', 'select * from things')).toEqual([]);
    for (const database of databases) await database.drop();
  });

  test('hands out again what was dropped, with the rows of the template, and no others', async () => {
    const template = 'services_again';
    const first = await createTestDatabase({ migrate: makeNamedThings, template });
    await runAsAdmin(first.url, `insert into things (name) values ('of the first'); update things set name = 'changed' where id = 1`);
    await first.drop();
    await using second = await createTestDatabase({ migrate: makeNamedThings, template });
    expect(second.name).toBe(first.name);
    // It is the second's by now.
    await first.drop();
    await using third = await createTestDatabase({ migrate: makeNamedThings, template });
    expect(third.name).not.toBe(first.name);
    await runAsAdmin(second.url, `insert into things (name) values ('of the second')`);
    expect(await runAsAdmin(second.url, 'select * from things order by id')).toEqual([{ id: 1, name: 'of the template' }, { id: 2, name: 'of the second' }]);
  });

  test.each([
    ['a table', 'create table others (id int)'],
    ['a column', 'alter table things add column color text'],
    ['a function', `create function one() returns int language sql return 1`],
    ['a right', 'grant select on things to public'],
    ['a setting', `do $$ begin execute format('alter database %I set work_mem = %L', current_database(), '1MB'); end $$`],
    ['statistics', `insert into things select generate_series(1, 100); analyze things`],
  ])('does not hand out a database in which a test changed more than rows: %s', async (_what, statement) => {
    const template = 'services_changed';
    const first = await createTestDatabase({ migrate: makeThings, template });
    await runAsAdmin(first.url, statement);
    await first.drop();
    await expect(runAsAdmin(first.url, 'select 1')).rejects.toThrow('does not exist');
    await using second = await createTestDatabase({ migrate: makeThings, template });
    expect(second.name).not.toBe(first.name);
  });

  test('does not hand out a database to which a process left behind has connected again', async () => {
    const template = 'services_straggler';
    const first = await createTestDatabase({ migrate: makeThings, template });
    await first.drop();
    const straggler = openAdmin(first.url);
    await straggler`select 1`;
    await using second = await createTestDatabase({ migrate: makeThings, template });
    await straggler.end({ timeout: 1 });
    expect(second.name).not.toBe(first.name);
    await expect(runAsAdmin(first.url, 'select 1')).rejects.toThrow('does not exist');
  });

  test('hands what a file has released to another, unless it has changed since', async () => {
    const template = 'services_released';
    const { databaseUrl, runId } = inject('services');
    const release = () => releaseDatabases({ serverUrl: databaseUrl, runId });
    const first = await createTestDatabase({ migrate: makeNamedThings, template });
    const kept = await createTestDatabase({ migrate: makeNamedThings, template });
    await runAsAdmin(first.url, `insert into things (name) values ('of the first')`);
    await first.drop();
    // What is still in use at the end of a file is dropped.
    await release();
    await expect(runAsAdmin(kept.url, 'select 1')).rejects.toThrow('does not exist');
    const second = await createTestDatabase({ migrate: makeNamedThings, template });
    const other = await createTestDatabase({ migrate: makeNamedThings, template });
    expect([second.name, other.name === first.name]).toEqual([first.name, false]);
    expect(await runAsAdmin(second.url, 'select name from things')).toEqual([{ name: 'of the template' }]);
    await Promise.all([second.drop(), other.drop()]);
    await release();
    const straggler = openAdmin(second.url);
    await straggler`select 1`;
    await runAsAdmin(other.url, 'create table others (id int)');
    await using third = await createTestDatabase({ migrate: makeNamedThings, template });
    await straggler.end({ timeout: 1 });
    expect([first.name, other.name]).not.toContain(third.name);
    for (const { url } of [second, other]) await expect(runAsAdmin(url, 'select 1')).rejects.toThrow('does not exist');
  });

  // A connection that asks for its array types first would be cut off in the middle of that question, caught by nobody.
  test('takes back a database whose settings end every statement and every session', async () => {
    const template = 'services_hostile';
    for (let round = 0; round < 5; round++) {
      const database = await createTestDatabase({ template, migrate: makeThings });
      await setForSessions(database.name, 'database', hostileSettings);
      await database.drop();
      await expect(runAsAdmin(database.url, 'select 1')).rejects.toThrow('does not exist');
    }
  });

  test('does not take a template whose migration failed', async () => {
    const template = 'services_failed';
    const failing = createTestDatabase({ template, migrate: () => Promise.reject(new Error('no migration')) });
    await expect(failing).rejects.toThrow('no migration');
    await using database = await createTestDatabase({ template, migrate: makeThings });
    expect(await runAsAdmin(database.url, 'select * from things')).toEqual([]);
  });
});

describe('createTestRedis', () => {
  test('deletes the keys of its own prefix only', async () => {
    await using kept = createTestRedis();
    const dropped = createTestRedis();
    const redis = new Redis(kept.url);
    await redis.mset(`${kept.prefix}:a`, '1', `${dropped.prefix}:a`, '1');
    await dropped.drop();
    expect(await redis.mget(`${kept.prefix}:a`, `${dropped.prefix}:a`)).toEqual(['1', null]);
    expect(await redis.config('GET', 'maxmemory-policy')).toEqual(['maxmemory-policy', 'noeviction']);
    redis.disconnect();
  });
});

describe('startPrivateRedis', () => {
  test('is killed, restarted empty on the same port, and stopped twice', async () => {
    const server = await startPrivateRedis();
    const redis = new Redis(server.url, { retryStrategy: () => 20, maxRetriesPerRequest: null });
    redis.on('error', () => undefined);
    await redis.set('key', 'value');
    await server.kill();
    await server.restart();
    expect(await redis.get('key')).toBeNull();
    redis.disconnect();
    await server.stop();
    await server.stop();
  });

  test('freezes and thaws', async () => {
    const server = await startPrivateRedis();
    const redis = new Redis(server.url);
    await redis.ping();
    server.pause();
    const answer = redis.ping();
    const first = await Promise.race([answer, new Promise((resolve) => setTimeout(resolve, 200, 'silence'))]);
    expect(first).toBe('silence');
    server.resume();
    expect(await answer).toBe('PONG');
    redis.disconnect();
    server.pause();
    await server.stop();
  });

  test('passes settings on, and says why the server did not start', async () => {
    await expect(startPrivateRedis({ 'maxmemory-policy': 'none-such' })).rejects.toThrow('maxmemory-policy');
  });

  test('is gone when the process that started it is killed', async () => {
    const module = new URL('services-redis-server.ts', pathToFileURL(import.meta.filename)).href;
    const program = `
      import { startPrivateRedis } from ${JSON.stringify(module)};
      console.log((await startPrivateRedis()).pid);
      setInterval(() => undefined, 1000);`;
    const parent = spawn(process.execPath, ['--input-type=module', '--eval', program], { stdio: ['ignore', 'pipe', 'inherit'] });
    const [line] = await once(createInterface({ input: parent.stdout }), 'line');
    const pid = Number(line);
    expect(pid).toBeGreaterThan(1);
    parent.kill('SIGKILL');
    await waitFor(() => !isThere(pid), { what: `Redis (process ${pid}) to be gone`, deadlineMs: 5000 });
  });

  test('a process of a test is gone when the test is killed, frozen or not', async () => {
    const module = new URL('child-process.ts', pathToFileURL(import.meta.filename)).href;
    const program = `
      import { spawnBound } from ${JSON.stringify(module)};
      import { readFileSync } from 'node:fs';
      import { setTimeout as delay } from 'node:timers/promises';
      const child = spawnBound('sleep', ['600']);
      // Until then, what binds it has not had its turn.
      while (readFileSync(\`/proc/\${child.pid}/comm\`, 'utf8') !== 'sleep\\n') await delay(5);
      process.kill(child.pid, 'SIGSTOP');
      console.log(child.pid);`;
    const parent = spawn(process.execPath, ['--input-type=module', '--eval', program], { stdio: ['ignore', 'pipe', 'inherit'] });
    const [line] = await once(createInterface({ input: parent.stdout }), 'line');
    expect(isThere(Number(line))).toBe(true);
    parent.kill('SIGKILL');
    await waitFor(() => !isThere(Number(line)), { what: `process ${line} to be gone`, deadlineMs: 5_000 });
  });

  test('says what to install where there is no Redis', () => {
    expect(() => findRedisProgram(['/nowhere'])).toThrow('run script/setup');
  });
});

describe('waitFor', () => {
  test('returns what the condition returned', async () => {
    let calls = 0;
    expect(await waitFor(() => (++calls === 3 ? calls : undefined), { what: 'three calls', everyMs: 1 })).toBe(3);
  });

  test('says what never came, and the last error on the way', async () => {
    const waiting = waitFor(
      () => {
        throw new Error('not there');
      },
      { what: 'the thing', deadlineMs: 20, everyMs: 5 },
    );
    await expect(waiting).rejects.toThrow(expect.objectContaining({ message: expect.stringMatching(/^waited \d+ ms for the thing$/), cause: new Error('not there') }));
  });
});

function isThere(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch {
    return false;
  }
}
