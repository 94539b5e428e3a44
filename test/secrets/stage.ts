// A deployment full of canaries: each secret that it is given is a text that stands nowhere else. Real worker and web
// processes at log level `trace`, Postgres and Redis behind links that can be cut, and DigitalOcean behind a link that
// notes what is sent.

import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { connect, createServer } from 'node:net';
import { Redis } from 'ioredis';
import { openDatabase } from '../../src/platform/db.ts';
import type { Database } from '../../src/platform/db.ts';
import type { Sandbox } from '../../src/sandbox/server.ts';
import { startSandbox } from '../../src/sandbox/server.ts';
import { generateKey } from '../../src/platform/key-ring.ts';
import { createEngineDatabase } from '../support/engine.ts';
import { startPrivateRedis } from '../support/services-redis-server.ts';
import type { TcpProxy } from '../support/tcp-proxy.ts';
import { startTcpProxy } from '../support/tcp-proxy.ts';
import { waitFor } from '../support/wait-for.ts';
import type { Secrets } from './search.ts';
import { compileCache } from '../support/compile-cache.ts';
import { forkBound } from '../support/child-process.ts';
import { programFile } from '../support/programs.ts';

const canary = (what: string): string => `canary${what}${randomBytes(12).toString('hex')}`;

export type SecretStage = {
  readonly secrets: Secrets;
  /** What a droplet is booted with; holds the canary, and what has to be escaped in JSON and in URLs. */
  readonly userData: string;
  readonly db: Database;
  readonly redis: Redis;
  readonly redisUrl: string;
  readonly sandbox: Sandbox;
  readonly links: { readonly postgres: TcpProxy; readonly redis: TcpProxy };
  /** The environment of the processes. */
  readonly environment: NodeJS.ProcessEnv;
  readonly url: string;
  /** What each process printed so far. */
  readonly printed: () => Record<string, string>;
  /** What was sent to DigitalOcean so far. */
  readonly sent: () => string;
  readonly [Symbol.asyncDispose]: () => Promise<void>;
};

const settings = {
  LOG_LEVEL: 'trace',
  DIGITALOCEAN_TIMEOUT_MS: '600',
  WORKER_LOCK_MS: '1500',
  ADOPTION_GRACE_MS: '2000',
  RECONCILE_INTERVAL_MS: '500',
  // Without Redis, a worker takes a tenth of this: still enough not to be held up.
  DIGITALOCEAN_REQUESTS_PER_MINUTE: '10000',
  DIGITALOCEAN_REQUESTS_PER_HOUR: '100000',
  WAIT_POLL_INTERVAL_MS: '100',
  STEP_BACKOFF_MS: '50',
} as const;

export async function openSecretStage(): Promise<SecretStage> {
  await using stack = new AsyncDisposableStack();
  const database = stack.use(await createEngineDatabase());
  const server = await startPrivateRedis();
  stack.defer(() => server.stop());
  const redis = new Redis(server.url);
  stack.defer(() => redis.disconnect());
  const secrets = {
    'the token': `dop_v1_${canary('token')}`,
    'user_data': canary('userdata'),
    'the password of Postgres': new URL(database.url).password,
    'the password of Redis': canary('redis'),
    'the password of the dashboard': canary('dashboard'),
    'the API token': canary('api'),
    'the encryption key': generateKey(),
  };
  await redis.config('SET', 'requirepass', secrets['the password of Redis']);
  const redisUrl = `redis://:${secrets['the password of Redis']}@127.0.0.1:${server.port}`;
  await redis.auth(secrets['the password of Redis']);
  const sandbox = await startSandbox({ token: secrets['the token'], activateAfterMs: 100, ratePerMinute: null, ratePerHour: null });
  stack.defer(() => sandbox.close());
  const [postgresLink, redisLink] = [stack.use(await startTcpProxy(database.url)), stack.use(await startTcpProxy(server.url))];
  const digitalOcean = stack.use(await startRecorder(sandbox.url));
  const db = openDatabase(database.url, { max: 3 });
  stack.defer(() => db.close());
  const { PATH, HOME, TMPDIR } = process.env;
  const environment: NodeJS.ProcessEnv = {
    PATH,
    HOME,
    TMPDIR,
    ...settings,
    ARCADIA_ENV: 'test',
    DATABASE_URL: postgresLink.through(database.url),
    REDIS_URL: redisLink.through(redisUrl),
    DIGITALOCEAN_API_URL: digitalOcean.url,
    DIGITALOCEAN_TOKEN: secrets['the token'],
    ARCADIA_ENCRYPTION_KEYS: secrets['the encryption key'],
    DASHBOARD_USER: 'ada',
    DASHBOARD_PASSWORD: secrets['the password of the dashboard'],
    API_TOKENS: `canary:read+start+operate:${secrets['the API token']}`,
    PORT: '0',
  };
  const [web, ...workers] = await Promise.all([
    startProcess('web', /"url":"([^"]+)".*"web ready"/, environment, stack),
    startProcess('worker', /"worker ready"/, environment, stack),
    startProcess('worker', /"worker ready"/, environment, stack),
  ]);
  const closing = stack.move();
  return {
    secrets,
    userData: `#cloud-config\npassword: "${secrets['user_data']}" # ü & \\\n`,
    db,
    redis,
    redisUrl,
    sandbox,
    links: { postgres: postgresLink, redis: redisLink },
    environment,
    url: web.ready[1] ?? '',
    printed: () => ({ 'the output of web': web.output(), 'the output of the workers': workers.map(({ output }) => output()).join('\n') }),
    sent: digitalOcean.sent,
    [Symbol.asyncDispose]: () => closing.disposeAsync(),
  };
}

async function startProcess(command: string, isReady: RegExp, environment: NodeJS.ProcessEnv, stack: AsyncDisposableStack) {
  const main = programFile('main');
  const child = forkBound(main, [command], { env: { ...compileCache, ...environment }, stdio: ['ignore', 'pipe', 'pipe', 'ipc'], execArgv: [] });
  const ended = once(child, 'exit');
  stack.defer(async () => {
    child.kill('SIGKILL');
    await ended;
  });
  let output = '';
  for (const stream of [child.stdout, child.stderr]) {
    stream?.setEncoding('utf8').on('data', (text: string) => {
      output += text;
    });
  }
  const ready = await waitFor(() => isReady.exec(output), { what: `${command} to be ready`, deadlineMs: 20_000 });
  return { ready, output: () => output };
}

/** A TCP proxy that keeps what its clients send. */
async function startRecorder(target: string) {
  const { hostname, port } = new URL(target);
  const sent: Buffer[] = [];
  const server = createServer((client) => {
    const upstream = connect(Number(port), hostname);
    const cut = () => {
      client.destroy();
      upstream.destroy();
    };
    for (const socket of [client, upstream]) socket.on('error', cut).on('close', cut);
    client.on('data', (bytes: Buffer) => void sent.push(bytes)).pipe(upstream).pipe(client);
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const address = server.address();
  if (address === null || typeof address === 'string') throw new Error('the system gave no port');
  return {
    url: `http://127.0.0.1:${address.port}`,
    sent: () => Buffer.concat(sent).toString(),
    [Symbol.asyncDispose]: async () => {
      server.close();
      await Promise.resolve();
    },
  };
}
