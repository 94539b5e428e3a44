// The pool: what it does to the process it lives in when Postgres goes away, and that lists of text survive it.
import { connect, createServer } from 'node:net';
import type { Socket } from 'node:net';
import { once } from 'node:events';
import { expect, inject, onTestFinished, test } from 'vitest';
import { openDatabase } from '../src/db.ts';

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
