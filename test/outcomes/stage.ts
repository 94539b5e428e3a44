// A receiver of outcomes over real HTTP, and the part of a worker that tells it, on either queue store.

import { once } from 'node:events';
import { createServer } from 'node:http';
import type { ServerResponse } from 'node:http';
import { text } from 'node:stream/consumers';
import { Webhook } from 'standardwebhooks';
import { z } from 'zod';
import type { Database } from '../../src/platform/db.ts';
import { directIo } from '../../src/platform/io.ts';
import type { Io } from '../../src/platform/io.ts';
import { silentLog } from '../../src/platform/log.ts';
import type { WorkerOutcomes, OutcomeTimings } from '../../src/processes/worker-outcomes.ts';
import { openOutcomes } from '../../src/processes/worker-outcomes.ts';
import type { QueueConnection, QueueStore } from '../../src/queues/connection.ts';
import { openQueueConnection } from '../../src/queues/connection.ts';
import type { Catalog } from '../../src/saga/definition.ts';
import { sagaOutcomes } from '../../src/saga/saga-outcomes.ts';
import type { Engine, Ledger } from '../support/engine.ts';
import { openEngine } from '../support/engine.ts';
import { createTestRedis } from '../support/services-redis.ts';

export const SECRET = `whsec_${Buffer.from('a secret of more than 24 bytes').toString('base64')}`;
export const OLD_SECRET = `whsec_${Buffer.from('the secret that came before it').toString('base64')}`;

export const bodySchema = z.object({
  type: z.string(),
  timestamp: z.string(),
  data: z.object({
    id: z.string(), saga_id: z.string().nullable(), name: z.string().nullable(), status: z.string(),
    subject: z.object({ kind: z.string(), name: z.string().nullable(), id: z.string().nullable() }).nullable(),
    outputs: z.record(z.string(), z.unknown()),
    error: z.object({ code: z.string(), message: z.string(), step: z.string().nullable(), retryable: z.boolean() }).nullable(),
  }),
});

export type Received = Readonly<{ body: z.infer<typeof bodySchema>; raw: string; headers: Record<string, string>; at: number }>;

export type Receiver = Readonly<{
  url: string;
  /** What it took, as it came. */
  taken: readonly Received[];
  /** All requests, whatever they were answered. */
  requests: readonly Received[];
  [Symbol.asyncDispose](): Promise<void>;
}>;

/** Answers a request; true: it took the outcome. Left out: it takes each. */
export type Answer = (received: Received, response: ServerResponse) => boolean;

const take: Answer = (_received, response) => {
  response.writeHead(204).end();
  return true;
};

/** Starts a receiver. It checks each signature, and throws a request away that is not signed. */
export async function startReceiver(answer: Answer = take): Promise<Receiver> {
  const taken: Received[] = [];
  const requests: Received[] = [];
  const server = createServer((request, response) => {
    const receive = async () => {
      const raw = await text(request);
      const headers = Object.fromEntries(Object.entries(request.headers).map(([name, value]) => [name, String(value)]));
      const body = bodySchema.parse(new Webhook(SECRET).verify(raw, headers));
      const received = { body, raw, headers, at: Date.now() };
      requests.push(received);
      if (answer(received, response)) taken.push(received);
    };
    receive().catch(() => response.destroy());
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const address = server.address();
  const port = typeof address === 'object' && address !== null ? address.port : 0;
  return {
    url: `http://127.0.0.1:${port}/hooks?key=private`,
    taken,
    requests,
    [Symbol.asyncDispose]: async () => {
      server.closeAllConnections();
      server.close();
      await once(server, 'close');
    },
  };
}

export type Telling = Readonly<{ outcomes: WorkerOutcomes; stop(): Promise<void> }>;

export type OutcomeStage = Readonly<{
  engine: Engine;
  connection: QueueConnection;
  /** Starts what a worker tells outcomes with. `lockMs`: after so long without a turn, a job is taken for lost. */
  tell(config: { url?: string; queue?: string; notify?: boolean }, how?: { timings?: OutcomeTimings; io?: Io; db?: Database; lockMs?: number }): Promise<Telling>;
  /** Runs a saga to its end. Returns its id. */
  end(input?: Record<string, string>): Promise<string>;
  [Symbol.asyncDispose](): Promise<void>;
}>;

/** Some fifty times faster than in production. */
export const timings: OutcomeTimings = {
  pollMs: 50,
  leaseMs: 1_000,
  lateMs: 500,
  timeoutMs: 2_000,
  delivery: { backoffMs: 50, backoffCapMs: 500, maxAttempts: 30, pauseAfterMs: 60_000 },
};

export async function openOutcomeStage(backend: QueueStore['kind'], catalog: Catalog<Ledger>): Promise<OutcomeStage> {
  const engine = await openEngine(catalog);
  const redis = createTestRedis();
  const store: QueueStore = backend === 'redis' ? { kind: 'redis', nodes: redis.nodes, prefix: redis.prefix } : { kind: 'postgres', databaseUrl: engine.url };
  const connection = openQueueConnection(store, silentLog);
  const running: Telling[] = [];
  return {
    engine,
    connection,
    tell: async ({ url, queue, notify = true }, how = {}) => {
      const outcomes = openOutcomes({
        config: { webhook: url === undefined ? null : { url, secrets: [SECRET, OLD_SECRET] }, queue: queue ?? null, notify },
        db: how.db ?? engine.db,
        connection,
        settings: { concurrency: 10, lockMs: how.lockMs ?? 2_000 },
        sources: [sagaOutcomes(catalog)],
        io: how.io ?? directIo,
        log: silentLog,
        timings: how.timings ?? timings,
      });
      const stopping = new AbortController();
      const loops = outcomes.run(stopping.signal);
      await Promise.all(outcomes.workers.map((worker) => worker.waitUntilReady()));
      let stopped: Promise<void> | null = null;
      const stop = async () => {
        stopping.abort();
        await Promise.all([...loops, ...outcomes.workers.map((worker) => worker.close())]);
        await outcomes.close();
      };
      const telling = { outcomes, stop: () => (stopped ??= stop()) };
      running.push(telling);
      return telling;
    },
    end: async (input = {}) => {
      const job = await engine.start(input);
      await engine.drive(job);
      return job.sagaId;
    },
    [Symbol.asyncDispose]: async () => {
      await Promise.all(running.map(({ stop }) => stop()));
      await connection.close();
      await engine[Symbol.asyncDispose]();
      await redis.drop();
    },
  };
}
