// Starts a fleet for a benchmark: worker processes on their own database, with a sandbox in this process.
import type { ChildProcess } from 'node:child_process';
import { fork } from 'node:child_process';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';
import type { Client } from '../src/client/client.ts';
import { openClient } from '../src/client/open-client.ts';
import { loadConfig } from '../src/platform/config.ts';
import type { Database } from '../src/platform/db.ts';
import { openDatabase } from '../src/platform/db.ts';
import type { Sandbox, SandboxOptions } from '../src/sandbox/server.ts';
import { startSandbox } from '../src/sandbox/server.ts';
import { heapLimits } from '../src/processes/heap-limits.ts';
import { migrate } from '../src/processes/migrate.ts';
import { migrateQueues, queueStoreOf } from '../src/queues/connection.ts';

export type FleetOptions = Readonly<{
  /** Name of the database, and prefix of the queues. */
  name: string;
  postgresUrl: string;
  /** Null: the queues are in Postgres. */
  redisUrl: string | null;
  workers: number;
  sandbox: SandboxOptions;
  /** Environment variables for the workers, in addition to the defaults. */
  env?: NodeJS.ProcessEnv;
}>;

export type MeasuredFleet = Readonly<{
  db: Database;
  client: Client;
  sandbox: Sandbox;
  /** Process ids of the workers. */
  pids: readonly number[];
  stop(): Promise<void>;
}>;

/** Input of a provision, without the name. */
export const dropletInput = { region: 'fra1', size: 's-1vcpu-1gb', image: 'debian-12-x64' };

const main = fileURLToPath(new URL('../src/main.ts', import.meta.url));

/** Starts a fleet and returns when its workers are ready. They know the sandbox's rate limits. */
export async function startFleet({ name, postgresUrl, redisUrl, workers, sandbox: sandboxOptions, env: more = {} }: FleetOptions): Promise<MeasuredFleet> {
  const sandbox = await startSandbox(sandboxOptions);
  const databaseUrl = await createDatabase(postgresUrl, name);
  const env = {
    PATH: process.env['PATH'],
    DATABASE_URL: databaseUrl,
    ...(redisUrl === null ? {} : { REDIS_URL: redisUrl }),
    QUEUE_PREFIX: `{${name}}`,
    DIGITALOCEAN_API_URL: sandbox.url,
    DIGITALOCEAN_TOKEN: 'bench',
    DIGITALOCEAN_REQUESTS_PER_MINUTE: String(sandboxOptions.ratePerMinute ?? 1_000_000),
    DIGITALOCEAN_REQUESTS_PER_HOUR: String(sandboxOptions.ratePerHour ?? 10_000_000),
    LOG_LEVEL: 'warn',
    ...more,
  };
  const config = loadConfig(env);
  const db = openDatabase(databaseUrl, { max: 2 });
  await migrate(db, 'default');
  await migrateQueues(queueStoreOf(config));
  const client = openClient({ databaseUrl, queueStore: queueStoreOf(config) });
  const children = Array.from({ length: workers }, () => fork(main, ['worker'], { env, execArgv: heapLimits, stdio: ['ignore', 'pipe', 'inherit', 'ipc'] }));
  await Promise.all(children.map(untilReady));
  return {
    db,
    client,
    sandbox,
    pids: children.flatMap(({ pid }) => pid ?? []),
    stop: async () => {
      for (const child of children) child.kill('SIGTERM');
      await Promise.all(children.filter(({ exitCode, signalCode }) => exitCode === null && signalCode === null).map((child) => once(child, 'exit')));
      await client.close();
      await db.close();
      await sandbox.close();
    },
  };
}

/** Waits for the line that a worker prints when it is ready. Later output is discarded. */
async function untilReady(child: ChildProcess): Promise<void> {
  const { stdout } = child;
  if (stdout === null) throw new Error('a worker without an output');
  const ended = once(child, 'exit').then(() => Promise.reject(new Error('a worker ended before it was ready')));
  ended.catch(() => undefined);
  await Promise.race([once(stdout, 'data'), ended]);
  stdout.resume();
}

/** Creates a database on a server. */
export async function createDatabase(serverUrl: string, name: string): Promise<string> {
  const admin = openDatabase(serverUrl, { max: 1 });
  await admin.sql`create database ${admin.sql(name)}`;
  await admin.close();
  const url = new URL(serverUrl);
  url.pathname = `/${name}`;
  return url.href;
}
