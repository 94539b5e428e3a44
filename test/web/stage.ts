// A web process inside the test: a database and queues of its own, and requests over real HTTP.

import { pino } from 'pino';
import { z } from 'zod';
import { loadConfig } from '../../src/platform/config.ts';
import type { Config } from '../../src/platform/config.ts';
import { openDatabase } from '../../src/platform/db.ts';
import type { Database } from '../../src/platform/db.ts';
import type { Log } from '../../src/platform/log.ts';
import { silentLog } from '../../src/platform/log.ts';
import type { QueueStore } from '../../src/queues/connection.ts';
import { queueStoreOf } from '../../src/queues/connection.ts';
import { startedAnswer } from '../../src/web/api/saga-shapes.ts';
import { startWeb } from '../../src/processes/web.ts';
import { createEngineDatabase } from '../support/engine.ts';
import { encryptionKeys } from '../support/keys.ts';
import { createTestRedis } from '../support/services-redis.ts';
import { queueStoreKinds } from '../support/topology.ts';

export const backends = queueStoreKinds();
export type Backend = (typeof backends)[number];

export const secrets = {
  read: 'read-secret-3f0d1a',
  start: 'start-secret-77b2c9',
  operate: 'operate-secret-c01dee',
  all: 'all-secret-5eed5eed',
  password: 'pass:word-with-colon',
} as const;

/** Credentials for people and programs of every kind. */
export const credentials: NodeJS.ProcessEnv = {
  DASHBOARD_USER: 'ada',
  DASHBOARD_PASSWORD: secrets.password,
  API_TOKENS: `reader:read:${secrets.read},starter:start:${secrets.start},operator:operate:${secrets.operate},${secrets.all}`,
};

export const bearer = (secret: string): { authorization: string } => ({ authorization: `Bearer ${secret}` });
export const basic = (user = 'ada', password: string = secrets.password): { authorization: string } => ({
  authorization: `Basic ${Buffer.from(`${user}:${password}`).toString('base64')}`,
});

export type Answer = { readonly status: number; readonly headers: Headers; readonly text: string; readonly json: () => unknown };

/** The saga that was started, as the answer says. */
export function sagaIdOf(answer: Answer): string {
  return startedAnswer.parse(answer.json()).sagaId;
}

export type Web = {
  readonly url: string;
  readonly db: Database;
  readonly config: Config;
  readonly queueStore: QueueStore;
  readonly call: (method: string, path: string, more?: { body?: unknown; headers?: Record<string, string> }) => Promise<Answer>;
  readonly close: () => Promise<void>;
  readonly [Symbol.asyncDispose]: () => Promise<void>;
};

/** Opens a web on a free port; `changes` are laid over its environment. */
export async function openWebStage(changes: NodeJS.ProcessEnv = {}, backend: Backend = 'redis', log = silentLog): Promise<Web> {
  const database = await createEngineDatabase();
  const redis = createTestRedis();
  const config = loadConfig({
    ARCADIA_ENV: 'test',
    DATABASE_URL: database.url,
    PORT: '0',
    RECONCILE_INTERVAL_MS: '1000',
    ARCADIA_ENCRYPTION_KEYS: encryptionKeys,
    ...(backend === 'redis' ? { REDIS_URL: redis.url, QUEUE_PREFIX: redis.prefix } : {}),
    ...changes,
  });
  const web = await startWeb(config, log);
  const db = openDatabase(database.url, { max: 3 });
  return {
    url: web.url,
    db,
    config,
    queueStore: queueStoreOf(config),
    call: async (method, path, { body, headers = {} } = {}) => {
      const text = body === undefined || typeof body === 'string' ? body : JSON.stringify(body);
      const response = await fetch(`${web.url}${path}`, {
        method,
        redirect: 'manual',
        headers: { ...(text === undefined ? {} : { 'content-type': 'application/json' }), ...headers },
        ...(text === undefined ? {} : { body: text }),
      });
      const answered = await response.text();
      return { status: response.status, headers: response.headers, text: answered, json: (): unknown => JSON.parse(answered) };
    },
    close: web.close,
    [Symbol.asyncDispose]: async () => {
      await web.close();
      await db.close();
      await redis.drop();
      await database.drop();
    },
  };
}

export const droplet = { name: 'web-1', region: 'fra1', size: 's-1vcpu-1gb', image: 'debian-12-x64' };

/** A log whose lines are kept, as they would be written. */
export function openLog(level = 'warn'): { log: Log; lines: Record<string, unknown>[] } {
  const lines: Record<string, unknown>[] = [];
  const log = pino({ level, base: null }, { write: (line: string) => void lines.push(z.record(z.string(), z.unknown()).parse(JSON.parse(line))) });
  return { log, lines };
}
