// The demo's environment: an embedded Postgres, the sandbox, the migrations, two worker processes and, if it is to stay, the
// web.
import { openClient } from '../client/open-client.ts';
import type { Client } from '../client/client.ts';
import { dropletApp } from '../droplets/app.ts';
import { openDatabase } from '../platform/db.ts';
import type { Database } from '../platform/db.ts';
import { unlessAborted } from '../platform/deadline.ts';
import type { Sandbox } from '../sandbox/server.ts';
import { startSandbox } from '../sandbox/server.ts';
import { startEmbeddedPostgres } from './embedded-postgres/start-embedded-postgres.ts';
import { generateKey, parseKeyRing } from '../platform/key-ring.ts';
import { createLog } from '../platform/create-log.ts';
import { loadConfigFor } from '../processes/inventory.ts';
import { migrate } from '../processes/migrate.ts';
import { startWeb } from '../processes/web.ts';
import { migrateQueues } from '../queues/connection.ts';
import { findPort } from './free-port.ts';
import { describePages, localUrlOf } from './local-web.ts';
import { reportReady } from './report-ready.ts';
import type { WorkerProcess } from './worker-process.ts';
import { startWorkerProcess } from './worker-process.ts';

export type Stage = Readonly<{
  databaseUrl: string;
  /** For ARCADIA_ENCRYPTION_KEYS. */
  encryptionKey: string;
  sandbox: Sandbox;
  db: Database;
  client: Client;
  workers: readonly WorkerProcess[];
  /** The lines that name its pages; null: there is no web. */
  pages: string | null;
  /** Aborted when the demo should end. */
  stop: AbortSignal;
  close(): Promise<void>;
}>;

/** The demo's durations: as in production, but about ten times faster. */
export const demoSettings = {
  DIGITALOCEAN_TIMEOUT_MS: '4000',
  WORKER_LOCK_MS: '5000',
  // When the demo ends, Postgres and the sandbox end too, so waiting longer for a running step is pointless.
  WORKER_SHUTDOWN_MS: '5000',
  ADOPTION_GRACE_MS: '8000',
  RECONCILE_INTERVAL_MS: '2000',
  WAIT_POLL_INTERVAL_MS: '1000',
  STEP_BACKOFF_MS: '500',
} as const;

export const DEMO_MAX_POLLS = 96;

const HOST = '127.0.0.1';
const WEB_PORT = 3_000;

const ACTIVATION_MS = { minMs: 9_000, maxMs: 16_000 };

/**
 * Sets up the environment.
 *
 * @param say receives the name of what is being started
 * @param stop cancels the setup, with its reason; what was already started is stopped first
 * @param options.withWeb also starts the web
 */
export async function setStage(say: (what: string) => void, stop: AbortSignal, { withWeb = false }: Readonly<{ withWeb?: boolean }> = {}): Promise<Stage> {
  const closers: (() => Promise<void>)[] = [];
  const close = async () => {
    for (const closer of closers.splice(0).toReversed()) await closer().catch(() => undefined);
  };
  try {
    say('Postgres, from the binaries that npm installed');
    const postgres = await startEmbeddedPostgres({ signal: stop });
    closers.push(postgres.stop);
    say("a sandbox that behaves like DigitalOcean's API");
    const sandbox = await startSandbox({ activateAfterMs: ACTIVATION_MS });
    closers.push(() => sandbox.close());
    const db = openDatabase(postgres.url, { max: 2 });
    closers.push(db.close);
    await unlessAborted(stop, migrate(db, 'default', dropletApp.catalog));
    const queueStore = { kind: 'postgres', databaseUrl: postgres.url } as const;
    await unlessAborted(stop, migrateQueues(queueStore));
    const encryptionKey = generateKey();
    const fleet = { ...workerEnvironment(postgres.url, sandbox.url), ARCADIA_ENCRYPTION_KEYS: encryptionKey };
    const port = withWeb ? ((await findPort({ host: HOST, port: WEB_PORT })) ?? (await findPort({ host: HOST, port: 0 }))) : null;
    const environment = port === null ? fleet : { ...fleet, PORT: String(port), HOST, PUBLIC_URL: localUrlOf({ host: HOST, basePath: '' }, port) };
    let pages: string | null = null;
    if (port !== null) {
      say('the web');
      const config = loadConfigFor(dropletApp, environment);
      const web = await startWeb(config, createLog('silent'), { app: dropletApp, signal: stop });
      closers.push(web.close);
      closers.push(reportReady(sandbox, config.publicUrl ?? web.url));
      pages = describePages(web.url, web.pages, config.web);
    }
    say('two worker processes');
    const starting = [startWorkerProcess(environment, { stop }), startWorkerProcess(environment, { stop })];
    closers.push(async () => {
      const started = (await Promise.allSettled(starting)).flatMap((one) => (one.status === 'fulfilled' ? [one.value] : []));
      await Promise.all(started.map((worker) => worker.stop()));
    });
    const workers = await Promise.all(starting);
    const client = openClient({ databaseUrl: postgres.url, queueStore, keyRing: parseKeyRing(encryptionKey) });
    closers.push(client.close);
    return { databaseUrl: postgres.url, encryptionKey, sandbox, db, client, workers, pages, stop, close };
  } catch (error) {
    await close();
    throw error;
  }
}

/** Ignores the user's own configuration: a token in the environment must not make the demo touch real droplets. */
function workerEnvironment(databaseUrl: string, sandboxUrl: string): NodeJS.ProcessEnv {
  const { PATH, HOME, TMPDIR, LANG } = process.env;
  return {
    PATH,
    HOME,
    TMPDIR,
    LANG,
    ...demoSettings,
    DATABASE_URL: databaseUrl,
    DIGITALOCEAN_API_URL: sandboxUrl,
    DIGITALOCEAN_TOKEN: 'sandbox',
  };
}
