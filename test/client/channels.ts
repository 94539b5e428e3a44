// The four ways to start a saga, on one database: each returns the saga's id, or throws why not.
import type { Client } from '../../src/client/client.ts';
import { openClient } from '../../src/client/open-client.ts';
import { loadConfig } from '../../src/platform/config.ts';
import { directIo } from '../../src/platform/io.ts';
import type { JsonObject } from '../../src/platform/json.ts';
import { silentLog } from '../../src/platform/log.ts';
import { startWeb } from '../../src/processes/web.ts';
import { startIntakeWorker } from '../../src/queues/intake.ts';
import { queueNames } from '../../src/queues/jobs.ts';
import type { NamedSaga } from '../../src/saga/app.ts';
import { startSaga } from '../../src/saga/start.ts';
import { loadSaga } from '../../src/saga/store.ts';
import { z } from 'zod';
import { reconcileGraceMs } from '../support/engine.ts';
import { encryptionKeys, keyRing } from '../support/keys.ts';
import { waitFor } from '../support/wait-for.ts';
import type { Fleet } from '../queues/stage.ts';

export type Start = (name: string, input: JsonObject, key?: string) => Promise<string>;
export type Channels = Readonly<Record<'client' | 'sql' | 'http' | 'queue', Start>>;

/** Opens the processes of a version whose sagas these are. SQL knows what was migrated last. */
export async function openChannels({ engine, connection }: Fleet, catalog: Readonly<Record<string, NamedSaga>>): Promise<Channels & AsyncDisposable> {
  const { db, directUrl } = engine;
  const client: Client = openClient({ databaseUrl: directUrl, keyRing });
  const web = await startWeb(loadConfig({ ARCADIA_ENV: 'test', DATABASE_URL: directUrl, PORT: '0', ARCADIA_ENCRYPTION_KEYS: encryptionKeys }), silentLog, { app: { catalog } });
  const intake = connection.queue(queueNames.intake);
  const start = (request: Parameters<typeof startSaga>[2]) => startSaga(db, catalog, request, reconcileGraceMs, keyRing);
  const worker = startIntakeWorker(connection, { settings: { concurrency: 1, lockMs: 10_000 }, start, exists: async (sagaId) => (await loadSaga(db, sagaId)) !== null, io: directIo, log: silentLog });
  return {
    client: async (name, input, idempotencyKey) => (await client.start(catalog[name] ?? name, input, { idempotencyKey })).sagaId,
    sql: async (name, input, key) => {
      const [row] = await db.sql<{ id: string }[]>`select arcadia.start_saga(${name}, ${JSON.stringify(input)}::text::jsonb, ${key ?? null}) as id`;
      return row?.id ?? '';
    },
    http: async (name, input, key) => {
      const headers = { 'content-type': 'application/json', ...(key === undefined ? {} : { 'idempotency-key': key }) };
      const response = await fetch(`${web.url}/v1/sagas/${name}`, { method: 'POST', headers, body: JSON.stringify(input) });
      const answer: unknown = await response.json();
      if (response.status !== 202) throw new Error(`${response.status} ${JSON.stringify(answer)}`);
      return z.object({ sagaId: z.string() }).parse(answer).sagaId;
    },
    queue: async (name, input, idempotencyKey) => {
      const { id = '' } = await intake.add(name, { input, idempotencyKey });
      const job = await waitFor(
        async () => {
          const state = await intake.getJobState(id);
          return state === 'completed' || state === 'failed' ? await intake.getJob(id) : undefined;
        },
        { what: `request ${id} to be answered` },
      );
      if (job.failedReason !== undefined && job.failedReason !== '') throw new Error(job.failedReason);
      return z.object({ sagaId: z.string() }).parse(job.returnvalue).sagaId;
    },
    [Symbol.asyncDispose]: async () => {
      await worker.close();
      await intake.close();
      await web.close();
      await client.close();
    },
  };
}
