// The pool: what it does to the process it lives in when Postgres goes away, and that lists of text survive it.
import { connect, createServer } from 'node:net';
import type { Socket } from 'node:net';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { expect, inject, onTestFinished, test } from 'vitest';
import type { Sql } from '../../src/platform/db.ts';
import { openDatabase } from '../../src/platform/db.ts';
import { silentLog } from '../../src/platform/log.ts';
import { openQueueConnection } from '../../src/queues/connection.ts';
import { createTestDatabase } from '../support/services-postgres.ts';
import { startTcpProxy } from '../support/tcp-proxy.ts';
import { waitFor } from '../support/wait-for.ts';

test('reads and writes lists of text, whatever stands in them', async () => {
  const db = openDatabase(inject('services').databaseUrl, { max: 1 });
  onTestFinished(db.close);
  const texts = ['plain', '', 'with, comma', '{braces}', 'a "quote"', String.raw`back\slash`, 'new\nline', 'null', 'NULL', 'ünïcödé'];
  const [row] = await db.run('test', (sql) => sql<{ texts: string[]; none: string[]; size: number }[]>`
    select ${texts}::text[] as texts, ${[]}::text[] as none, cardinality(${texts}::text[]) as size`);
  expect(row).toEqual({ texts, none: [], size: texts.length });
});

// What postgres.js asks of its own accord on a new connection has nobody to catch its error: that would end the process.
test('loses Postgres right after a connection was made, and only the statement fails', async () => {
  const unhandled: unknown[] = [];
  const note = (reason: unknown) => void unhandled.push(reason);
  process.on('unhandledRejection', note);
  onTestFinished(() => void process.off('unhandledRejection', note));
  const port = await startDyingPostgres(inject('services').databaseUrl);
  const url = new URL(inject('services').databaseUrl);
  url.hostname = '127.0.0.1';
  url.port = String(port);
  const db = openDatabase(url.href, { max: 1 });
  onTestFinished(db.close);
  await expect(db.run('test', (sql) => sql`select 1`)).rejects.toThrow(/ECONNREFUSED|CONNECTION/);
  await new Promise((resolve) => {
    setImmediate(resolve);
  });
  expect(unhandled).toEqual([]);
});

// postgres.js forgets that nothing is to be written any more when a connection closes: what comes next waits for a flush
// that nobody makes.
test('serves statements again after connections were lost while statements were being written on them', async () => {
  const { databaseUrl } = inject('services');
  const outcomes = await Promise.all(
    Array.from({ length: 20 }, async () => {
      await using proxy = await startTcpProxy(databaseUrl);
      const db = openDatabase(proxy.through(databaseUrl), { max: 1 });
      const one = () => db.run('test', (sql) => sql`select 1 as one`);
      await one();
      let isLost = false;
      const keepWriting = () => {
        if (isLost) return;
        one().catch(() => {
          isLost = true;
        });
        setImmediate(keepWriting);
      };
      keepWriting();
      proxy.down();
      await waitFor(() => isLost, { what: 'a statement to be lost', everyMs: 1 });
      proxy.up();
      const outcome = await one().then(
        ([row]) => row,
        (error: unknown) => error,
      );
      await db.close();
      return outcome;
    }),
  );
  expect(outcomes).toEqual(outcomes.map(() => ({ one: 1 })));
});

test('a pool gives back what was idle for a while, and makes connections anew when it needs them', async () => {
  const { databaseUrl } = inject('services');
  const name = `idle-${randomBytes(4).toString('hex')}`;
  const db = openDatabase(databaseUrl, { max: 5, idleMs: 300, applicationName: name });
  const queueUrl = new URL(databaseUrl);
  queueUrl.searchParams.set('application_name', `${name}-queues`);
  const connection = openQueueConnection({ kind: 'postgres', databaseUrl: queueUrl.href }, silentLog, { idleMs: 300 });
  const watcher = openDatabase(databaseUrl, { max: 1 });
  onTestFinished(async () => {
    await Promise.all([db.close(), watcher.close(), connection.close()]);
  });
  const count = async (of: string): Promise<number> => (await watcher.sql`select 1 from pg_stat_activity where application_name = ${of}`).length;
  const burst = () => Promise.all(Array.from({ length: 20 }, () => db.run('test', (sql) => sql`select pg_sleep(0.2)`)));
  for (let round = 1; round <= 2; round += 1) {
    const whole = burst();
    await waitFor(async () => (await count(name)) === 5, { what: 'all connections of the pool', everyMs: 10 });
    expect(await whole).toHaveLength(20);
    const checkAndCount = async (): Promise<boolean> => {
      await connection.requireWrites();
      return (await count(`${name}-queues`)) === 1;
    };
    await waitFor(checkAndCount, { what: 'the connection of the queues', everyMs: 10 });
    await waitFor(async () => (await count(name)) + (await count(`${name}-queues`)) === 0, { what: 'idle connections to be closed', deadlineMs: 5_000 });
  }
});

const write = (sql: Sql) => sql`create table if not exists written (at int)`;

test('leaves connections that lead to where nothing can be written, once there are others to be had', async () => {
  await using database = await createTestDatabase();
  const db = openDatabase(database.directUrl, { max: 1 });
  onTestFinished(db.close);
  // As all are on a standby.
  await db.run('test', (sql) => sql`set session characteristics as transaction read only`);
  await expect(db.run('test', write)).rejects.toThrow('read-only');
  await waitFor(() => db.run('test', write).then(() => true), { what: 'a write on a new connection' });
});

/** Relays to Postgres until the first connection stands (ReadyForQuery); at the next word of the client it is gone for good. */
async function startDyingPostgres(databaseUrl: string): Promise<number> {
  const { hostname, port } = new URL(databaseUrl);
  const server = createServer((client: Socket) => {
    const upstream = connect(Number(port), hostname);
    let isReady = false;
    upstream.on('data', (data) => {
      // ReadyForQuery, idle: Z, a length of 5, I.
      isReady ||= data.includes(Buffer.from([0x5a, 0, 0, 0, 5, 0x49]));
      client.write(data);
    });
    client.on('data', (data) => {
      if (!isReady) {
        upstream.write(data);
        return;
      }
      server.close();
      upstream.destroy();
      client.destroy();
    });
    for (const socket of [client, upstream]) socket.on('error', () => undefined);
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const address = server.address();
  if (address === null || typeof address === 'string') throw new Error('the system gave no port');
  return address.port;
}
