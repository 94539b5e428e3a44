// A fleet under test: real worker processes that are started and killed, on one database and one queue store, against the sandbox
// over HTTP.

import { once } from 'node:events';
import { openClient } from '../../src/client/open-client.ts';
import type { Client } from '../../src/client/client.ts';
import { openDatabase } from '../../src/platform/db.ts';
import type { Database } from '../../src/platform/db.ts';
import type { Sandbox, SandboxOptions } from '../../src/sandbox/server.ts';
import { startSandbox } from '../../src/sandbox/server.ts';
import { silentLog } from '../../src/platform/log.ts';
import { checkEnvironment, ownerOf } from '../../src/processes/environment.ts';
import type { QueueStore } from '../../src/queues/connection.ts';
import { openQueueConnection } from '../../src/queues/connection.ts';
import type { Saga } from '../../src/saga/saga.ts';
import { isAtRest } from '../../src/saga/saga.ts';
import { createEngineDatabase } from './engine.ts';
import { encryptionKeys, keyRing } from './keys.ts';
import { createTestRedis } from './services-redis.ts';
import { waitFor } from './wait-for.ts';
import { compileCache } from './compile-cache.ts';
import { forkBound } from './child-process.ts';
import { patience } from './patience.ts';
import { programFile } from './programs.ts';

export type QueueStoreKind = QueueStore['kind'];

export const web = { name: 'web-1', region: 'fra1', size: 's-1vcpu-1gb', image: 'debian-12-x64' };

/** As in production, some hundred times faster. */
const fastSettings = {
  DIGITALOCEAN_TIMEOUT_MS: '2500',
  WORKER_LOCK_MS: '3000',
  ADOPTION_GRACE_MS: '5000',
  RECONCILE_INTERVAL_MS: '1000',
  WAIT_POLL_INTERVAL_MS: '200',
  STEP_BACKOFF_MS: '100',
  DIGITALOCEAN_REQUESTS_PER_MINUTE: '100000',
  DIGITALOCEAN_REQUESTS_PER_HOUR: '1000000',
} as const;

export type Exit = { readonly code: number | null; readonly signal: NodeJS.Signals | null };

export type WorkerUnderTest = {
  readonly pid: number;
  /** What stands in the events that it writes. */
  readonly name: string;
  /** Everything that it printed so far, on both streams. */
  readonly output: () => string;
  readonly signal: (signal: NodeJS.Signals) => void;
  /** Resolves when it has ended. */
  readonly ended: Promise<Exit>;
};

export type Fleet = {
  readonly databaseUrl: string;
  /** To Postgres itself, as callers may reach it who keep something in their session. */
  readonly directUrl: string;
  readonly queueStore: QueueStore;
  readonly db: Database;
  readonly client: Client;
  readonly sandbox: Sandbox;
  /** The environment of this fleet's processes; nothing of ours but what a process needs to start. */
  readonly environment: (changes?: NodeJS.ProcessEnv) => NodeJS.ProcessEnv;
  /** Starts a worker process and resolves when it is ready. */
  readonly startWorker: (changes?: NodeJS.ProcessEnv) => Promise<WorkerUnderTest>;
  /** Resolves with the saga at rest. */
  readonly atRest: (sagaId: string, deadlineMs?: number) => Promise<Saga>;
  /** Kills what still runs, and drops the database. */
  readonly [Symbol.asyncDispose]: () => Promise<void>;
};

const mainFile = programFile('main');

/** Opens a fleet without workers: a migrated database, a place for the queues, a sandbox, a client. */
export async function openFleet(kind: QueueStoreKind, options: SandboxOptions = {}): Promise<Fleet> {
  const database = await createEngineDatabase();
  const redis = kind === 'redis' ? createTestRedis() : null;
  const sandbox = await startSandbox({ activateAfterMs: 500, ratePerMinute: null, ratePerHour: null, ...options });
  const queueStore: QueueStore =
    redis === null ? { kind: 'postgres', databaseUrl: database.url } : { kind: 'redis', nodes: redis.nodes, prefix: redis.prefix };
  const db = openDatabase(database.url, { max: 3 });
  const client = openClient({ databaseUrl: database.url, queueStore, keyRing });
  const workers: WorkerUnderTest[] = [];

  const environment = (changes: NodeJS.ProcessEnv = {}): NodeJS.ProcessEnv => {
    const { PATH, HOME, TMPDIR } = process.env;
    return {
      PATH,
      HOME,
      TMPDIR,
      ...fastSettings,
      ARCADIA_ENV: 'test',
      DATABASE_URL: database.url,
      DIGITALOCEAN_API_URL: sandbox.url,
      DIGITALOCEAN_TOKEN: 'sandbox',
      ARCADIA_ENCRYPTION_KEYS: encryptionKeys,
      ...(redis === null ? {} : { REDIS_URL: redis.url, QUEUE_PREFIX: redis.prefix }),
      ...changes,
    };
  };

  return {
    databaseUrl: database.url,
    directUrl: database.directUrl,
    queueStore,
    db,
    client,
    sandbox,
    environment,
    startWorker: async (changes) => {
      const worker = await forkWorker(environment(changes));
      workers.push(worker);
      return worker;
    },
    atRest: (sagaId, deadlineMs = 40_000) =>
      waitFor(
        async () => {
          const saga = await client.get(sagaId);
          return saga !== null && isAtRest(saga.status) && saga;
        },
        { what: `saga ${sagaId} to come to rest`, deadlineMs },
      ),
    [Symbol.asyncDispose]: async () => {
      for (const worker of workers) worker.signal('SIGKILL');
      await Promise.all(workers.map((worker) => worker.ended));
      await client.close();
      await sandbox.close();
      await db.close();
      await redis?.drop();
      await database.drop();
    },
  };
}

/** Claims the queues for the fleet's database, as its first worker does, or for another one. */
export async function claimQueues({ db, queueStore }: Pick<Fleet, 'db' | 'queueStore'>, owner?: string): Promise<void> {
  const connection = openQueueConnection(queueStore, silentLog);
  await connection.check(owner ?? ownerOf(await checkEnvironment(db, 'test')));
  await connection.close();
}

async function forkWorker(environment: NodeJS.ProcessEnv): Promise<WorkerUnderTest> {
  const child = forkBound(mainFile, ['worker'], { env: { ...compileCache, ...environment }, stdio: ['ignore', 'pipe', 'pipe', 'ipc'], execArgv: [] });
  let output = '';
  let hasEnded = false;
  const read = (chunk: Buffer): void => {
    output += chunk.toString();
  };
  child.stdout?.on('data', read);
  child.stderr?.on('data', read);
  const ended = once(child, 'close').then((): Exit => {
    hasEnded = true;
    return { code: child.exitCode, signal: child.signalCode };
  });
  const ready = await waitFor(() => hasEnded || /"worker":"([^"]+)"[^\n]*"msg":"worker ready"/.exec(output)?.[1], {
    what: 'a worker to be ready',
    deadlineMs: 40_000,
    everyMs: 20,
  });
  if (ready === true || child.pid === undefined) throw new Error(`the worker ended before it was ready:\n${output}`);
  return {
    pid: child.pid,
    name: ready,
    output: () => output,
    signal: (signal) => void (hasEnded || child.kill(signal)),
    ended,
  };
}

/** Runs the command line as a process of its own, until it ends. */
export async function runCommand(
  args: readonly string[],
  environment: NodeJS.ProcessEnv,
  deadlineMs = 25_000,
): Promise<{ readonly code: number | null; readonly stdout: string; readonly stderr: string }> {
  const child = forkBound(mainFile, [...args], { env: { ...compileCache, ...environment }, stdio: ['ignore', 'pipe', 'pipe', 'ipc'], execArgv: [] });
  const timer = setTimeout(() => child.kill('SIGKILL'), deadlineMs * patience());
  let stdout = '';
  let stderr = '';
  child.stdout?.setEncoding('utf8').on('data', (text: string) => {
    stdout += text;
  });
  child.stderr?.setEncoding('utf8').on('data', (text: string) => {
    stderr += text;
  });
  await once(child, 'close');
  clearTimeout(timer);
  return { code: child.exitCode, stdout, stderr };
}
