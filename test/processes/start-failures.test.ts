// A process that cannot start says why in its last line: which variable, what went wrong, and what to do; never a secret.

import { once } from 'node:events';
import { createServer } from 'node:net';
import { describe, expect, inject, test } from 'vitest';
import { openDatabase } from '../../src/platform/db.ts';
import { silentLog } from '../../src/platform/log.ts';
import { describePostgresFailure } from '../../src/platform/postgres-failure.ts';
import { openQueueConnection } from '../../src/queues/connection.ts';
import { describeConnectionFailure } from '../../src/platform/store-failure.ts';
import { openFleet, runCommand } from '../support/fleet.ts';
import type { PrivateRedis } from '../support/services-redis-server.ts';
import { startPrivateRedis, startPrivateSentinel } from '../support/services-redis-server.ts';

const CLOSED = 'redis://:hunter2@127.0.0.1:1';

/** A server that closes each connection without a word, as one does that expects TLS. */
async function startClosingServer(stack: AsyncDisposableStack): Promise<string> {
  const server = createServer((socket) => socket.once('data', () => socket.end()).on('error', () => undefined)).listen(0, '127.0.0.1');
  stack.defer(() => void server.close());
  await once(server, 'listening');
  const address = server.address();
  return typeof address === 'object' && address !== null ? `127.0.0.1:${address.port}` : '';
}

async function redisFailure(url: string, stack: AsyncDisposableStack): Promise<string> {
  const connection = openQueueConnection({ kind: 'redis', nodes: url.split(';'), prefix: '{test}' }, silentLog);
  stack.defer(() => connection.close());
  return connection.check('test').then(
    () => 'started',
    (error: unknown) => (error instanceof Error ? error.message : String(error)),
  );
}

async function postgresFailure(url: string, stack: AsyncDisposableStack): Promise<string> {
  const db = openDatabase(url, { max: 1 });
  stack.defer(db.close);
  return db.run('test', (sql) => sql`select 1`).then(
    () => 'started',
    (error: unknown) => describePostgresFailure(error) ?? String(error),
  );
}

async function start(stack: AsyncDisposableStack, settings: Readonly<Record<string, string>> = {}): Promise<PrivateRedis> {
  const redis = await startPrivateRedis(settings);
  stack.defer(() => redis.stop());
  return redis;
}

describe.concurrent('of Redis', () => {
  test.each<[string, (stack: AsyncDisposableStack) => Promise<string>, RegExp]>([
    ['a closed port', async () => Promise.resolve(CLOSED), /nothing listens at 127\.0\.0\.1:1 \(ECONNREFUSED\)\. Start Redis, or correct host and port in REDIS_URL/],
    ['closed ports of a cluster', async () => Promise.resolve(`${CLOSED};${CLOSED.replace('1:1', '1:2')}`), /no node of the cluster answers.*Check hosts and ports in REDIS_URL/],
    ['an unknown host', async () => Promise.resolve('redis://:hunter2@nowhere.invalid'), /the host name nowhere\.invalid is not known \(ENOTFOUND\)|the name service does not answer for the host name nowhere\.invalid/],
    ['a wrong password', async (stack) => `redis://:hunter2@127.0.0.1:${(await start(stack, { requirepass: 'right' })).port}`, /WRONGPASS.*Correct the user and password in REDIS_URL/],
    ['no password', async (stack) => (await start(stack, { requirepass: 'right' })).url, /NOAUTH.*Put the password into REDIS_URL/],
    ['TLS to a port without', async (stack) => `rediss://:hunter2@127.0.0.1:${(await start(stack)).port}`, /does not speak TLS there \(\w+\)\. Correct the port, or leave rediss:\/\/ out of REDIS_URL|TLS is used by both ends or by none/],
    ['no TLS to a port with', async (stack) => `redis://:hunter2@${await startClosingServer(stack)}`, /the server closed the connection before it answered|the server closes the connection without an answer.*rediss:\/\//],
    ['a database number out of range', async (stack) => `${(await start(stack)).url}/99`, /out of range.*Correct the database number/],
    ['a Sentinel that is not there', async () => Promise.resolve('redis+sentinel://:hunter2@127.0.0.1:1/mymaster'), /the Sentinel at 127\.0\.0\.1:1 does not answer \(.+\)\. Check the Sentinels in REDIS_URL/],
    [
      'a master that the Sentinels do not know',
      async (stack) => {
        const sentinel = await startPrivateSentinel('another', await start(stack));
        stack.defer(() => sentinel.stop());
        return `redis+sentinel://:hunter2@127.0.0.1:${sentinel.port}/mymaster`;
      },
      /the Sentinels know no master of this name\. Correct the name/,
    ],
  ])('%s', async (_, prepare, expected) => {
    await using stack = new AsyncDisposableStack();
    const failure = await redisFailure(await prepare(stack), stack);
    expect(failure).toMatch(expected);
    expect(failure).toContain('(REDIS_URL)');
    expect(failure).not.toContain('hunter2');
  });
});

function changed(change: (url: URL) => void): Promise<string> {
  const url = new URL(inject('services').databaseUrl);
  change(url);
  return Promise.resolve(url.href);
}

describe.concurrent('of Postgres', () => {
  test.each<[string, () => Promise<string>, RegExp]>([
    ['a closed port', () => changed((url) => (url.port = '1')), /nothing listens at 127\.0\.0\.1:1 \(ECONNREFUSED\)\. Start Postgres, or correct host and port in DATABASE_URL/],
    ['an unknown host', () => changed((url) => (url.hostname = 'nowhere.invalid')), /the host name nowhere\.invalid is not known|the name service does not answer/],
    ['a wrong password', () => changed((url) => (url.password = 'hunter2')), /password authentication failed.*\(28P01\)\. Correct the user and password in DATABASE_URL/],
    ['an unknown database', () => changed((url) => (url.pathname = '/nowhere')), /"nowhere" does not exist \(3D000\)\. Correct the name of the database/],
    ['TLS to a port without', () => changed((url) => (url.search = '?sslmode=require')), /DATABASE_URL\): .*(?:TLS|SSL)/],
  ])('%s', async (_, prepare, expected) => {
    await using stack = new AsyncDisposableStack();
    const failure = await postgresFailure(await prepare(), stack);
    expect(failure).toMatch(expected);
    expect(failure).toContain('(DATABASE_URL)');
    expect(failure).not.toContain('hunter2');
  });
});

test.each([
  ['DEPTH_ZERO_SELF_SIGNED_CERT', 'NODE_EXTRA_CA_CERTS'],
  ['SELF_SIGNED_CERT_IN_CHAIN', 'NODE_EXTRA_CA_CERTS'],
  ['UNABLE_TO_VERIFY_LEAF_SIGNATURE', 'NODE_EXTRA_CA_CERTS'],
  ['UNABLE_TO_GET_ISSUER_CERT_LOCALLY', 'NODE_EXTRA_CA_CERTS'],
  ['CERT_HAS_EXPIRED', 'has expired'],
  ['CERT_NOT_YET_VALID', 'correct the clock'],
  ['ERR_TLS_CERT_ALTNAME_INVALID', 'another host name'],
  ['ERR_SSL_WRONG_VERSION_NUMBER', 'does not speak TLS'],
  ['EMFILE', 'ulimit -n'],
  ['EHOSTUNREACH', 'firewalls'],
])('a connection that fails with %s is explained', (code, expected) => {
  expect(describeConnectionFailure(Object.assign(new Error('x'), { code }), { store: 'Redis', variable: 'REDIS_URL' })).toContain(expected);
});

const refused = (address: string) => Object.assign(new Error(''), { code: 'ECONNREFUSED', address, port: 5432 });

test('a name with several addresses, none of which answers, is explained', () => {
  const error = Object.assign(new AggregateError([refused('::1'), refused('127.0.0.1')], ''), { code: 'ECONNREFUSED' });
  expect(describePostgresFailure(error)).toBe(
    'Postgres cannot be reached (DATABASE_URL): nothing listens at ::1:5432 (ECONNREFUSED). Start Postgres, or correct host and port in DATABASE_URL.',
  );
});

test('the last line of every process says so', async () => {
  await using fleet = await openFleet('redis');
  const broken = new URL(fleet.databaseUrl);
  broken.port = '1';
  const lastLine = async (command: string[], changes: NodeJS.ProcessEnv) => {
    const { code, stdout, stderr } = await runCommand(command, fleet.environment({ PORT: '0', ...changes }), 55_000);
    return [code, `${stdout}${stderr}`.trim().split('\n').at(-1)];
  };
  const [worker, web, migrate, sagas, dev] = await Promise.all([
    lastLine(['worker'], { REDIS_URL: CLOSED }),
    lastLine(['web'], { REDIS_URL: CLOSED }),
    lastLine(['migrate'], { DATABASE_URL: broken.href }),
    lastLine(['sagas'], { DATABASE_URL: broken.href }),
    lastLine(['dev'], { REDIS_URL: CLOSED }),
  ]);
  const ofRedis = [1, 'arcadia: Redis cannot be reached (REDIS_URL): nothing listens at 127.0.0.1:1 (ECONNREFUSED). Start Redis, or correct host and port in REDIS_URL.'];
  const ofPostgres = [1, 'arcadia: Postgres cannot be reached (DATABASE_URL): nothing listens at 127.0.0.1:1 (ECONNREFUSED). Start Postgres, or correct host and port in DATABASE_URL.'];
  expect([worker, web, dev]).toEqual([ofRedis, ofRedis, ofRedis]);
  expect([migrate, sagas]).toEqual([ofPostgres, ofPostgres]);
});

describe('of an address to listen on', () => {
  test.each([
    ['web', 'a port in use', 1, /^arcadia: port \d+ of 127\.0\.0\.1 is in use\. Stop what listens there, or set PORT to another one\.$/],
    ['sandbox', 'a port in use', 1, /^arcadia: port \d+ of 127\.0\.0\.1 is in use\. Stop what listens there, or choose another one with --port\.$/],
    ['web', 'a foreign host', 78, /HOST: 192\.0\.2\.1 is no address of this machine \(EADDRNOTAVAIL\); give one that is/],
    ['worker', 'a foreign host', 78, /HOST: 192\.0\.2\.1 is no address of this machine \(EADDRNOTAVAIL\); give one that is/],
  ])('%s says in its last line what is wrong: %s', async (command, fault, code, expected) => {
    await using fleet = await openFleet('redis');
    await using stack = new AsyncDisposableStack();
    const port = (await startClosingServer(stack)).split(':')[1] ?? '';
    const host = fault === 'a foreign host' ? '192.0.2.1' : '127.0.0.1';
    const ended = await runCommand(command === 'sandbox' ? [command, '--port', port] : [command], fleet.environment({ PORT: port, HOST: host, WORKER_METRICS_PORT: '0', API_TOKENS: 'probe:read:a-secret-that-is-long-enough' }), 55_000);
    expect([ended.code, `${ended.stdout}${ended.stderr}`.trim().split('\n').at(-1)]).toEqual([code, expect.stringMatching(expected)]);
  });
});
