// What a process says of servers that are too old for it.
import { createServer } from 'node:net';
import { once } from 'node:events';
import { describe, expect, onTestFinished, test } from 'vitest';
import { ConfigError } from '../../src/platform/config-error.ts';
import { requireVersion } from '../../src/platform/server-version.ts';
import { createEngineDatabase } from '../support/engine.ts';
import { runCommand } from '../support/fleet.ts';

describe('requireVersion', () => {
  test.each([
    ['PostgreSQL', '14.0'], ['PostgreSQL', '14beta1'], ['PostgreSQL', '15.18 (Debian 15.18-0+deb12u1)'], ['PostgreSQL', '18.4'], ['PostgreSQL', '100.1'],
    ['Redis', '6.2.0'], ['Redis', '7.0.15'], ['Redis', '10.0.0'], ['Redis', 'unknown'], ['Redis', ''],
  ] as const)('takes %s %s', (server, version) => {
    expect(() => requireVersion(server, version)).not.toThrow();
  });

  test.each([
    ['PostgreSQL', '13.23', 'DATABASE_URL leads to PostgreSQL 13.23: PostgreSQL 14 or newer is needed.'],
    ['PostgreSQL', '9.6.24', 'DATABASE_URL leads to PostgreSQL 9.6.24: PostgreSQL 14 or newer is needed.'],
    ['Redis', '6.0.16', 'REDIS_URL leads to Redis 6.0.16: Redis 6.2 or newer is needed.'],
    ['Redis', '5.0.7', 'REDIS_URL leads to Redis 5.0.7: Redis 6.2 or newer is needed.'],
  ] as const)('refuses %s %s', (server, version, message) => {
    expect(() => requireVersion(server, version)).toThrow(new ConfigError(message));
  });
});

/** What an old Redis says of itself, and `OK` to all else. */
async function startOldRedis(): Promise<string> {
  const info = '# Server\r\nredis_version:6.0.16\r\nloading:0\r\nmaxmemory_policy:noeviction\r\n';
  const server = createServer((socket) => {
    socket.on('error', () => undefined);
    socket.on('data', (data) => {
      // Each command is a list of texts; commands may come together.
      for (const [, name = ''] of data.toString().matchAll(/\*\d+\r\n\$\d+\r\n(\w+)\r\n/g)) socket.write(name.toLowerCase() === 'info' ? `$${info.length}\r\n${info}\r\n` : '+OK\r\n');
    });
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  onTestFinished(() => void server.close());
  const address = server.address();
  return `redis://127.0.0.1:${address !== null && typeof address === 'object' ? address.port : 0}`;
}

test.each(['worker', 'web'])('%s does not start on a Redis before 6.2: exit code 78', async (command) => {
  await using database = await createEngineDatabase();
  const { PATH } = process.env;
  const environment = { PATH, ARCADIA_ENV: 'test', DATABASE_URL: database.url, REDIS_URL: await startOldRedis(), DIGITALOCEAN_TOKEN: 'x', DIGITALOCEAN_API_URL: 'http://127.0.0.1:9', PORT: '0' };
  const ended = await runCommand([command], environment);
  expect(ended.code).toBe(78);
  // BullMQ has its own say before.
  expect(ended.stderr).toMatch(/^REDIS_URL leads to Redis 6\.0\.16: Redis 6\.2 or newer is needed\.\n$/m);
});
