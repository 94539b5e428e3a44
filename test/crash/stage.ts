// What one case of the crash matrix plays on: a database, a queue prefix and a sandbox of its own, with two droplets in
// it that are not ours; workers in this process, and one in a process of its own that ends where it is told to.

import { once } from 'node:events';
import { createServer } from 'node:http';
import { z } from 'zod';
import type { Config } from '../../src/platform/config.ts';
import { loadConfig } from '../../src/platform/config.ts';
import type { Database } from '../../src/platform/db.ts';
import { openDatabase } from '../../src/platform/db.ts';
import type { Rule, Sandbox } from '../../src/sandbox/server.ts';
import { startSandbox } from '../../src/sandbox/server.ts';
import type { Io } from '../../src/platform/io.ts';
import { directIo } from '../../src/platform/io.ts';
import { silentLog } from '../../src/platform/log.ts';
import type { QueueConnection } from '../../src/queues/connection.ts';
import { openQueueConnection, queueStoreOf } from '../../src/queues/connection.ts';
import type { StepQueues } from '../../src/queues/step-queues.ts';
import { openStepQueues } from '../../src/queues/step-queues.ts';
import type { Saga } from '../../src/saga/saga.ts';
import { isAtRest } from '../../src/saga/saga.ts';
import type { StoredEvent } from '../../src/saga/events.ts';
import { listEvents } from '../../src/saga/events.ts';
import type { RunningWorker } from '../../src/processes/worker.ts';
import { startWorker } from '../../src/processes/worker.ts';
import { problemsAtRest } from '../support/at-rest.ts';
import { encryptionKeys } from '../support/keys.ts';
import { createTestRedis } from '../support/services-redis.ts';
import { waitFor } from '../support/wait-for.ts';
import { withSequel } from './boundaries.ts';
import { cancelEverySaga } from './cancel.ts';
import type { CrashPlan } from './crash-plan.ts';
import { giveBack, takeDatabase } from './databases.ts';
import type { Scenario } from './scenarios.ts';
import { DROPLET_NAME } from './scenarios.ts';
import { compileCache } from '../support/compile-cache.ts';
import { listSagas } from '../support/list-sagas.ts';
import { forkBound } from '../support/child-process.ts';
import { patience as machinePatience } from '../support/patience.ts';
import { programFile } from '../support/programs.ts';

/** Where the jobs are: the run's Redis, a Redis of the test's own, or Postgres. */
export type QueueBackend = 'redis' | 'postgres' | { readonly redisUrl: string };

export type Stage = {
  readonly config: Config;
  readonly db: Database;
  readonly queues: QueueConnection;
  readonly stepQueues: StepQueues;
  readonly sandbox: Sandbox;
  readonly foreign: readonly number[];
  /** Where droplets answer over HTTP; 0: nowhere. */
  readonly machinePort: number;
  /** Starts an ordinary worker in this process; `io` is what its I/Os go through. */
  readonly startWorker: (io?: Io) => Promise<RunningWorker>;
  /** Starts a worker in a process of its own that is killed, or frozen, at a boundary. */
  readonly startVictim: (plan: Omit<CrashPlan, 'cancelAfter'>) => Victim;
  /** Resolves with the newest saga once it is at rest. */
  readonly untilAtRest: () => Promise<Saga>;
  /** Says what is wrong at rest. */
  readonly problems: () => Promise<string[]>;
  /** Names of the workers that wrote the newest saga's events. */
  readonly authors: () => Promise<string[]>;
  /** Which of the newest saga's steps were executed, or compensated, such as `forward create_droplet`. */
  readonly ran: () => Promise<string[]>;
  readonly close: () => Promise<void>;
};

export type Victim = {
  readonly pid: number;
  /** Resolves when it is dead, or frozen, with the names of its numbered I/Os up to there. */
  readonly struck: Promise<string[]>;
  readonly exited: Promise<NodeJS.Signals | null>;
  readonly signal: (signal: NodeJS.Signals) => void;
};

/** As in production, some twenty times faster. */
const times = { WAIT_POLL_INTERVAL_MS: '150', STEP_BACKOFF_MS: '50' } as const;

/** What runs out where something hangs, is frozen, was killed or got lost: request < lock < grace. In milliseconds. */
const limits = { RECONCILE_INTERVAL_MS: 400, DIGITALOCEAN_TIMEOUT_MS: 700, WORKER_LOCK_MS: 1_200, ADOPTION_GRACE_MS: 1_800 } as const;

// On a slow machine, what is only late must not be taken for lost.
const slowness = Math.min(2, machinePatience());

const REST_WITHIN_MS = 50_000 * slowness;

/** Faults of the sandbox that go before the scenario's own. */
export type ExtraRules = readonly Rule[];

/**
 * Sets the stage of a scenario and asks for its saga.
 *
 * @param patience factor of the limits after which a request, a worker or a job is taken for lost: 1 is quick, and on a
 *   slow machine takes for lost what is only late
 */
export async function openCrashStage(scenario: Scenario, backend: QueueBackend, rules: ExtraRules = [], patience = 1): Promise<Stage> {
  const database = await takeDatabase();
  const redis = createTestRedis();
  const sandbox = await startSandbox({ activateAfterMs: 0, ratePerMinute: null, ratePerHour: null, loopbackAddresses: true });
  const machine = scenario.machineStatuses === undefined ? null : await startMachine(scenario.machineStatuses);
  const foreign = [
    sandbox.addForeignDroplet({ name: DROPLET_NAME, created_at: '2024-01-01T00:00:00Z' }).id,
    sandbox.addForeignDroplet({ name: 'other', tags: ['managed-by-arcadia-cloud', 'arcadia-saga-id-00000000-0000-4000-8000-000000000000'] }).id,
  ];
  const environment = {
    ...times,
    ...Object.fromEntries(Object.entries(limits).map(([name, ms]) => [name, String(Math.round(ms * patience * slowness))])),
    DATABASE_URL: database.url,
    ...(backend === 'postgres' ? {} : { REDIS_URL: backend === 'redis' ? redis.url : backend.redisUrl }),
    QUEUE_PREFIX: redis.prefix,
    DIGITALOCEAN_API_URL: sandbox.url,
    DIGITALOCEAN_TOKEN: 'dop_v1_crash_matrix',
    ARCADIA_ENCRYPTION_KEYS: encryptionKeys,
    WORKER_CONCURRENCY: '4',
    LOG_LEVEL: 'silent',
    READY_PROBE_ALLOW: '127.0.0.0/8',
    ...scenario.settings,
  };
  const config = loadConfig(environment);
  const db = openDatabase(database.url, { max: 2 });
  const queues = openQueueConnection(queueStoreOf(config), silentLog);
  const stepQueues = openStepQueues(queues, directIo);
  const workers: RunningWorker[] = [];
  const victims: Victim[] = [];

  const stage: Stage = {
    config,
    db,
    queues,
    stepQueues,
    sandbox,
    foreign,
    machinePort: machine?.port ?? 0,
    startWorker: async (io = directIo) => {
      const { cancelAfter } = scenario;
      const worker = await startWorker(config, silentLog, cancelAfter === undefined ? io : withSequel(io, cancelAfter, () => cancelEverySaga(db)));
      workers.push(worker);
      return worker;
    },
    startVictim: (plan) => {
      const victim = startVictim({ ...environment, ARCADIA_CRASH_PLAN: JSON.stringify({ ...plan, cancelAfter: scenario.cancelAfter ?? null }) });
      victims.push(victim);
      return victim;
    },
    untilAtRest: () =>
      waitFor(
        async () => {
          const [saga] = await listSagas(db, { limit: 1 });
          return saga !== undefined && (scenario.saga ?? saga.name) === saga.name && isAtRest(saga.status) && saga;
        },
        { what: `the saga's end (${scenario.name})`, deadlineMs: REST_WITHIN_MS, everyMs: 20 },
      ),
    problems: async () => {
      const sagas = await listSagas(db, { limit: 10 });
      const expectedCount = 1 + (scenario.preparedSagas ?? 0);
      const [saga] = sagas;
      if (saga === undefined || sagas.length !== expectedCount) return [`there are ${sagas.length} sagas, not ${expectedCount}`];
      return problemsAtRest({ db, queues, sandbox, foreign }, saga.id, scenario.expected);
    },
    authors: async () => [...new Set((await newestEvents(db)).map((event) => event.worker ?? ''))],
    ran: async () => (await newestEvents(db)).flatMap(({ kind, step }) => directionsOf(kind).map((direction) => `${direction} ${step}`)),
    close: async () => {
      for (const victim of victims) victim.signal('SIGKILL');
      await Promise.all(victims.map((victim) => victim.exited));
      await Promise.allSettled(workers.map((worker) => worker.close()));
      machine?.close();
      await stepQueues.close();
      await Promise.allSettled([queues.close(), db.close(), sandbox.close()]);
      await Promise.allSettled([giveBack(database), backend === 'redis' ? redis.drop() : undefined]);
    },
  };
  try {
    await scenario.prepare?.(stage);
    sandbox.setFaults({ ...scenario.faults, rules: [...rules, ...(scenario.faults?.rules ?? [])] });
    await scenario.start(stage);
  } catch (error) {
    await stage.close();
    throw error;
  }
  return stage;
}

/** What answers for all droplets: their addresses are this machine's. */
async function startMachine(statuses: readonly number[]): Promise<{ port: number; close: () => void }> {
  const left = [...statuses];
  const server = createServer((_request, response) => void response.writeHead(left.shift() ?? 200).end());
  server.listen(0, '0.0.0.0');
  await once(server, 'listening');
  const address = server.address();
  if (address === null || typeof address === 'string') throw new Error('the machine does not listen on TCP');
  return { port: address.port, close: () => void server.close() };
}

async function newestEvents(db: Database): Promise<StoredEvent[]> {
  const [saga] = await listSagas(db, { limit: 1 });
  return saga === undefined ? [] : listEvents(db, saga.id);
}

function directionsOf(kind: StoredEvent['kind']): string[] {
  if (kind === 'step_completed' || kind === 'step_failed') return ['forward'];
  return kind === 'compensation_completed' ? ['backward'] : [];
}

/** Starts a worker process that is killed, or frozen, where the plan in its environment says. */
export function startVictim(environment: NodeJS.ProcessEnv): Victim {
  const { PATH } = process.env;
  const child = forkBound(programFile('crashing-worker'), [], {
    env: { PATH, ...compileCache, ...environment },
    execArgv: [],
    stdio: ['ignore', 'pipe', 'pipe', 'ipc'],
  });
  let output = '';
  const struck = Promise.withResolvers<string[]>();
  const read = (chunk: Buffer) => {
    output += chunk.toString();
    const report = /^striking (.*)\n/m.exec(output)?.[1];
    if (report !== undefined) struck.resolve(z.array(z.string()).parse(JSON.parse(report)));
  };
  child.stdout?.on('data', read);
  child.stderr?.on('data', read);
  // oxlint-disable-next-line typescript/no-unsafe-type-assertion -- a name of a signal, or null
  const exited = once(child, 'exit').then(([, signal]: unknown[]) => signal as NodeJS.Signals | null);
  // What it wrote last may be read after its end: `close` comes after all of it.
  child.once('close', (code) => struck.reject(new Error(`the worker ended (${String(code)}) before it came to its boundary: ${output}`)));
  // Whoever awaits it is told; nobody has to.
  struck.promise.catch(() => undefined);
  return { pid: child.pid ?? 0, struck: struck.promise, exited, signal: (signal) => void child.kill(signal) };
}
