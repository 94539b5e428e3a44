// The stage of fault tests: a database, a queue store, the sandbox and a client, with short waits; workers in this process or in
// their own; and the invariants that must hold once everything is at rest.

import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { isDeepStrictEqual } from 'node:util';
import { Queue, createPostgresBackend, withBackend } from 'bullmq';
import type { Cluster, Redis } from 'ioredis';
import { Pool } from 'pg';
import { pino } from 'pino';
import { expect } from 'vitest';
import { openClient } from '../../src/client/open-client.ts';
import type { Client } from '../../src/client/client.ts';
import type { Config } from '../../src/platform/config.ts';
import { loadConfig } from '../../src/platform/config.ts';
import type { Database } from '../../src/platform/db.ts';
import { openDatabase } from '../../src/platform/db.ts';
import type { Sandbox, SandboxOptions } from '../../src/sandbox/server.ts';
import { startSandbox } from '../../src/sandbox/server.ts';
import type { Io } from '../../src/platform/io.ts';
import type { Log } from '../../src/platform/log.ts';
import { dropletApp } from '../../src/droplets/app.ts';
import { migrate } from '../../src/processes/migrate.ts';
import { migrateQueues, queueStoreOf } from '../../src/queues/connection.ts';
import type { Catalog } from '../../src/saga/definition.ts';
import type { Saga } from '../../src/saga/saga.ts';
import { isAtRest } from '../../src/saga/saga.ts';
import type { StoredEvent } from '../../src/saga/events.ts';
import { listEvents } from '../../src/saga/events.ts';
import type { ProvisionDropletInput } from '../../src/steps/inputs.ts';
import type { StepDeps } from '../../src/steps/deps.ts';
import { startWorker } from '../../src/processes/worker.ts';
import { createEngineDatabase } from './engine.ts';
import { encryptionKeys } from './keys.ts';
import { connectTestRedis, createTestRedis } from './services-redis.ts';
import { waitFor } from './wait-for.ts';
import { compileCache } from './compile-cache.ts';
import { listSagas } from './list-sagas.ts';
import { forkBound } from './child-process.ts';
import { patience } from './patience.ts';
import { programFile } from './programs.ts';

// Deadlines of processes scale with the slowness of the machine. A test that depends on one sets its own.
const slowness = Math.min(3, patience());
const scaled = (ms: number): string => String(Math.round(ms * slowness));

/** Everything as in production, some ten to thirty times faster. */
export const quickSettings = {
  DIGITALOCEAN_TIMEOUT_MS: scaled(600),
  WORKER_LOCK_MS: scaled(1_200),
  ADOPTION_GRACE_MS: scaled(1_500),
  RECONCILE_INTERVAL_MS: '500',
  WAIT_POLL_INTERVAL_MS: '200',
  STEP_BACKOFF_MS: '100',
  WORKER_SHUTDOWN_MS: '4000',
  WORKER_CONCURRENCY: '20',
  // The sandbox has no limits here, unless a test gives it some.
  DIGITALOCEAN_REQUESTS_PER_MINUTE: '100000',
  DIGITALOCEAN_REQUESTS_PER_HOUR: '1000000',
} as const;

type Settings = Readonly<Record<string, string>>;
type LogLine = Readonly<Record<string, unknown> & { level: string; msg: string }>;

export type StageOptions = {
  /** Where the sagas and, without Redis, the queues are. Default: a database of the test's own on the run's server. */
  readonly databaseUrl?: string;
  /** How the workers and the client reach that database. Default: the same way as the test. */
  readonly workersDatabaseUrl?: string;
  /** Default: a prefix of the test's own on the run's Redis; null: BullMQ on Postgres. */
  readonly redisUrl?: string | null;
  readonly workersRedisUrl?: string;
  readonly settings?: Settings;
  readonly sandbox?: SandboxOptions;
};

export type StageWorker = {
  readonly log: readonly LogLine[];
  readonly close: () => Promise<void>;
  /** Resolves when the worker finds that it takes no jobs any more. */
  readonly cannotGoOn: Promise<string>;
};

export type StageProcess = {
  readonly pid: number;
  readonly log: () => readonly LogLine[];
  readonly output: () => string;
  /** Waits until it says that it is ready. */
  readonly ready: () => Promise<void>;
  readonly signal: (signal: NodeJS.Signals) => void;
  /** Resolves with how it ended, and how long after the call. */
  readonly exit: () => Promise<{ code: number | null; signal: NodeJS.Signals | null; afterMs: number }>;
};

export type Stage = {
  readonly db: Database;
  readonly sandbox: Sandbox;
  readonly client: Client;
  /** The environment of a worker. */
  readonly env: NodeJS.ProcessEnv;
  /** Starts a worker in this process. */
  readonly work: (how?: { settings?: Settings; io?: Io; sagas?: Catalog<StepDeps>; probes?: Config['digitalOcean']['probes'] }) => Promise<StageWorker>;
  /** Starts a worker in a process of its own, ready or not. */
  readonly fork: (settings?: Settings) => StageProcess;
  readonly queue: (name: string) => Queue;
  /** Starts a `provision_droplet` saga of this name. */
  readonly provision: (name: string, more?: Partial<ProvisionDropletInput>) => Promise<string>;
  /** Waits until a saga satisfies the condition, and returns it. */
  readonly until: (sagaId: string, what: string, isIt: (saga: Saga) => boolean, deadlineMs?: number) => Promise<Saga>;
  /** Waits until all sagas are at rest, and returns them, oldest first. */
  readonly atRest: (deadlineMs?: number) => Promise<Saga[]>;
  /** Checks the laws that hold at rest, whatever happened. */
  readonly expectLawful: () => Promise<void>;
  readonly [Symbol.asyncDispose]: () => Promise<void>;
};

const { Queue: PostgresQueue } = withBackend(createPostgresBackend);

/** Sets a stage; it clears away what it made and what was started on it. */
export async function openFaultStage(options: StageOptions = {}): Promise<Stage> {
  const stack = new AsyncDisposableStack();
  const ownDatabase = options.databaseUrl === undefined ? stack.use(await createEngineDatabase('default')) : null;
  const databaseUrl = options.databaseUrl ?? ownDatabase?.url ?? '';
  const place = options.redisUrl === undefined ? stack.use(createTestRedis()) : null;
  const redisUrl = options.redisUrl === undefined ? (place?.url ?? null) : options.redisUrl;
  const sandbox = await startSandbox({ activateAfterMs: 300, ratePerMinute: null, ratePerHour: null, ...options.sandbox });
  stack.defer(() => sandbox.close());
  // The database's own, as the queues of one are not another's.
  const prefix = place?.prefix ?? `{faults-${randomBytes(6).toString('hex')}}`;
  const reachableRedisUrl = options.workersRedisUrl ?? redisUrl;
  const env: NodeJS.ProcessEnv = {
    PATH: process.env['PATH'],
    ...quickSettings,
    DATABASE_URL: options.workersDatabaseUrl ?? databaseUrl,
    ...(reachableRedisUrl === null ? {} : { REDIS_URL: reachableRedisUrl }),
    QUEUE_PREFIX: prefix,
    DIGITALOCEAN_API_URL: sandbox.url,
    DIGITALOCEAN_TOKEN: 'sandbox',
    ARCADIA_ENCRYPTION_KEYS: encryptionKeys,
    LOG_LEVEL: 'debug',
    ...options.settings,
  };
  const config = loadConfig(env);
  const db = openDatabase(databaseUrl, { max: 4 });
  stack.defer(() => db.close());
  if (ownDatabase === null) {
    await migrate(db, 'default');
    await migrateQueues(queueStoreOf({ ...config, databaseUrl }));
  } else {
    // It is a clone; each has queues of its own.
    await db.sql`update arcadia.environment set deployment = gen_random_uuid()`;
  }
  const client = openClient({ databaseUrl: config.databaseUrl ?? '', queueStore: queueStoreOf(config), keyRing: config.keyRing });
  stack.defer(() => client.close());

  let redis: Redis | Cluster | undefined;
  let pool: Pool | undefined;
  const openQueue = (name: string): Queue => {
    if (redisUrl !== null) {
      redis ??= connectQuietly(redisUrl, stack);
      const queue = new Queue(name, { connection: redis, prefix });
      queue.on('error', () => undefined);
      stack.defer(() => queue.close());
      return queue;
    }
    pool ??= connectPool(databaseUrl, stack);
    // oxlint-disable-next-line typescript/no-unsafe-type-assertion -- BullMQ types its classes by their backend
    const queue = new PostgresQueue(name, { connection: pool as never }) as unknown as Queue;
    stack.defer(() => queue.close());
    return queue;
  };

  const sagas = async () => (await listSagas(db, { limit: 10_000 })).toReversed();
  return {
    db,
    sandbox,
    client,
    env,
    work: async ({ settings = {}, io, sagas: known, probes } = {}) => {
      const lines: LogLine[] = [];
      const log: Log = pino({ level: 'debug', formatters: { level: (label) => ({ level: label }) } }, { write: (line) => void lines.push(parseLine(line)) });
      const loaded = loadConfig({ ...env, ...settings });
      const worker = await startWorker({ ...loaded, digitalOcean: { ...loaded.digitalOcean, probes: probes ?? loaded.digitalOcean.probes } }, log, io, known === undefined ? undefined : { ...dropletApp, catalog: known });
      stack.defer(() => worker.close());
      return { log: lines, close: () => worker.close(), cannotGoOn: worker.cannotGoOn };
    },
    fork: (settings = {}) => startProcess({ ...env, ...settings }, stack),
    queue: openQueue,
    provision: async (name, more = {}) =>
      (await client.provisionDroplet({ name, region: 'fra1', size: 's-1vcpu-1gb', image: 'debian-12-x64', ...more })).sagaId,
    until: (sagaId, what, isIt, deadlineMs = 40_000) =>
      waitFor(
        async () => {
          const saga = (await sagas()).find(({ id }) => id === sagaId);
          return saga !== undefined && isIt(saga) ? saga : null;
        },
        { what: `saga ${sagaId} to be ${what}`, deadlineMs },
      ),
    atRest: async (deadlineMs = 30_000) => {
      let last: Saga[] = [];
      const found = await waitFor(
        async () => {
          last = await sagas();
          return last.length > 0 && last.every(({ status }) => isAtRest(status)) ? last : null;
        },
        { what: 'all sagas to be at rest', deadlineMs, everyMs: 100 },
      ).catch((error: unknown) => {
        const restless = last.filter(({ status }) => !isAtRest(status)).map(({ id, status, cursor, revision, context }) => ({ id, status, cursor, revision, context }));
        throw new Error(`not at rest: ${JSON.stringify(restless)}`, { cause: error });
      });
      return found;
    },
    expectLawful: () => expectLawful(db, sandbox),
    [Symbol.asyncDispose]: () => stack.disposeAsync(),
  };
}

/**
 * The invariants at rest: a completed saga has exactly the droplet that it recorded, any other saga has none; no droplet is ours
 * without a saga; revisions have no gaps; and each create was recorded before it was sent.
 */
async function expectLawful(db: Database, sandbox: Sandbox): Promise<void> {
  const sagas = await listSagas(db, { limit: 10_000 });
  const alive = sandbox.state({ alive: true });
  const ours = new Set<number>();
  const destroyed = new Set(
    sagas.filter(({ name, status }) => name === 'destroy_droplet' && status === 'completed').map(({ input }) => input['droplet_id']),
  );
  let announced = 0;
  for (const saga of sagas) {
    expect(isAtRest(saga.status), `saga ${saga.id} is ${saga.status}`).toBe(true);
    const droplets = alive.filter(({ tags }) => tags.filter((tag) => tag.startsWith('arcadia-saga-id-')).join() === `arcadia-saga-id-${saga.id}`).map(({ id }) => id);
    for (const id of droplets) ours.add(id);
    const owned = saga.status === 'completed' && saga.name === 'provision_droplet' && !destroyed.has(saga.context['droplet_id'] ?? null);
    const events = await listEvents(db, saga.id);
    const expected = owned ? [saga.context['droplet_id']] : [];
    const history = isDeepStrictEqual(droplets, expected) ? '' : historyOf(saga.saga8, events, droplets, sandbox);
    expect({ droplets, history }, `saga ${saga.id}, ${saga.status}: ${JSON.stringify(saga.error)}`).toEqual({ droplets: expected, history: '' });
    expect(events.map(({ seq }) => seq)).toEqual(Array.from({ length: saga.revision + 1 }, (_, seq) => seq));
    announced += events.filter(({ detail }) => detail['note'] === 'announced a create').length;
  }
  // A create without a name can make nothing: such requests probe whether creates are still refused.
  const creates = sandbox.ledger().filter(({ method, path, names }) => method === 'POST' && path === '/v2/droplets' && names.length > 0);
  expect(creates.length, 'creates that were sent, and those that were announced').toBeLessThanOrEqual(announced);
  const orphans = alive.filter(({ id, tags }) => tags.includes('managed-by-arcadia-cloud') && !ours.has(id));
  expect(orphans.filter(({ id }) => creates.some(({ made }) => made.includes(id)))).toEqual([]);
}

/** What happened to a saga and at DigitalOcean, in the order of time: for the message of a broken law. */
function historyOf(saga8: string, events: readonly StoredEvent[], droplets: readonly number[], sandbox: Sandbox): string {
  const lines = [
    ...events.map(({ at, kind, step, detail }) => [at.getTime(), `${kind} ${step ?? ''} ${JSON.stringify(detail)}`] as const),
    ...sandbox
      .ledger()
      .filter(({ path, made, query }) => made.some((id) => droplets.includes(id)) || droplets.some((id) => path.endsWith(`/${id}`)) || JSON.stringify(query).includes(saga8))
      .map(({ at, method, path, status, answeredAt, fault }) => [at, `  ${method} ${path} ${status}, answered after ${answeredAt === null ? '-' : answeredAt - at} ms ${fault ?? ''}`] as const),
  ];
  return lines
    .toSorted(([one], [other]) => one - other)
    .map(([at, line]) => `${new Date(at).toISOString().slice(17)} ${line}`)
    .join('\n');
}

function connectQuietly(url: string, stack: AsyncDisposableStack): Redis | Cluster {
  const redis = connectTestRedis(url, { maxRetriesPerRequest: null, retryStrategy: () => 100 });
  redis.on('error', () => undefined);
  stack.defer(() => redis.disconnect());
  return redis;
}

function connectPool(connectionString: string, stack: AsyncDisposableStack): Pool {
  const pool = new Pool({ connectionString, max: 4, options: '-c search_path=bullmq' });
  pool.on('error', () => undefined);
  stack.defer(() => pool.end());
  return pool;
}

function startProcess(env: NodeJS.ProcessEnv, stack: AsyncDisposableStack): StageProcess {
  const main = programFile('main');
  const child = forkBound(main, ['worker'], { env: { ...compileCache, ...env }, execArgv: [], stdio: ['ignore', 'pipe', 'pipe', 'ipc'] });
  let output = '';
  for (const stream of [child.stdout, child.stderr]) stream?.setEncoding('utf8').on('data', (text: string) => (output += text));
  const ended = once(child, 'close');
  stack.defer(async () => {
    child.kill('SIGKILL');
    await ended;
  });
  return {
    pid: child.pid ?? 0,
    output: () => output,
    log: () => output.split('\n').filter((line) => line.startsWith('{') && line.endsWith('}')).map(parseLine),
    ready: async () => void (await waitFor(() => output.includes('worker ready'), { what: 'the worker to be ready', deadlineMs: 30_000 })),
    signal: (signal) => void child.kill(signal),
    exit: async () => {
      const from = performance.now();
      await ended;
      return { code: child.exitCode, signal: child.signalCode, afterMs: performance.now() - from };
    },
  };
}

function parseLine(line: string): LogLine {
  // oxlint-disable-next-line typescript/no-unsafe-type-assertion -- our own logger's line
  return JSON.parse(line) as LogLine;
}
