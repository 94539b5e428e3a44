// `dev`: everything in one process, for local development: embedded Postgres unless DATABASE_URL is set, the migrations,
// a worker and the web application. An app with droplets also gets the sandbox, unless a token is set.
import { randomBytes } from 'node:crypto';
import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { requireClosedWeb } from '../platform/closed-ports.ts';
import { ConfigError } from '../platform/config-error.ts';
import type { Config } from '../platform/config.ts';
import { openDatabase } from '../platform/db.ts';
import type { Blocker } from '../platform/lock-retries.ts';
import { endsWithin, unlessAborted, untilAborted } from '../platform/deadline.ts';
import { startSandbox } from '../sandbox/server.ts';
import { arcadia } from './how-to-call.ts';
import { startEmbeddedPostgres } from './embedded-postgres/start-embedded-postgres.ts';
import { errorCodeOf } from '../platform/error-code.ts';
import { generateKey, parseKeyRing } from '../platform/key-ring.ts';
import type { Log } from '../platform/log.ts';
import { createLog } from '../platform/create-log.ts';
import { migrate } from '../processes/migrate.ts';
import { hasInventory, loadConfigFor } from '../processes/inventory.ts';
import type { App } from '../saga/app.ts';
import { migrateQueues, queueStoreOf } from '../queues/connection.ts';
import type { RunningWeb } from '../processes/web.ts';
import { startWeb } from '../processes/web.ts';
import { startWorker } from '../processes/worker.ts';
import { complain, write } from '../cli/output.ts';
import { startUnlessStopped } from '../cli/stop.ts';
import { findPort } from './free-port.ts';
import { describePages, localUrlOf } from './local-web.ts';
import { reportReady } from './report-ready.ts';

// Long enough to see the wait, short enough not to bore.
const SANDBOX_ACTIVATION_MS = { minMs: 8_000, maxMs: 15_000 };

// For the connections of a cancelled migration.
const GIVING_UP_MS = 1_500;

export async function devCommand(app: App, options: { dataDir?: string }, stop: AbortSignal): Promise<number> {
  return (await startUnlessStopped(stop, () => runEverything(app, options, stop))) ?? 0;
}

async function runEverything(app: App, options: { dataDir?: string }, stop: AbortSignal): Promise<number> {
  const given = loadConfigFor(app, process.env);
  requireClosedWeb(given.web);
  const hasDroplets = hasInventory(app);
  if (hasDroplets && given.digitalOcean.token !== null && given.databaseUrl === null && options.dataDir === undefined) {
    throw new ConfigError(
      'DIGITALOCEAN_TOKEN is set, so `dev` would create real droplets and forget them when it ends: ' +
        'unset DIGITALOCEAN_TOKEN to use the sandbox, or set --data-dir or DATABASE_URL to keep the data',
    );
  }
  const log = createLog(given.logLevel);
  const closers: (() => Promise<void>)[] = [];
  try {
    const postgres = given.databaseUrl === null ? await startEmbeddedPostgres({ ...(options.dataDir === undefined ? {} : { dataDir: options.dataDir }), signal: stop }) : null;
    if (postgres !== null) closers.push(postgres.stop);
    const sandbox = hasDroplets && given.digitalOcean.token === null ? await startSandbox({ activateAfterMs: SANDBOX_ACTIVATION_MS }) : null;
    if (sandbox !== null) closers.push(() => sandbox.close());
    const isThrownAway = postgres !== null && options.dataDir === undefined && given.redisNodes !== null;
    const ownKey = postgres === null || given.keyRing.keys.length > 0 ? null : await keyBeside(options.dataDir);
    const port = await findPort(given.web);
    // A real droplet cannot reach this machine by the address that programs here use.
    const ownUrl = sandbox === null || port === null || given.publicUrl !== null ? null : localUrlOf(given.web, port);
    const config: Config = {
      ...given,
      keyRing: ownKey === null ? given.keyRing : parseKeyRing(ownKey),
      databaseUrl: given.databaseUrl ?? postgres?.url ?? null,
      // A unique prefix: nothing will use the queues of a temporary database again.
      queuePrefix: isThrownAway ? `{arcadia-dev-${randomBytes(4).toString('hex')}}` : given.queuePrefix,
      publicUrl: given.publicUrl ?? ownUrl,
      web: { ...given.web, port: port ?? given.web.port },
      digitalOcean: sandbox === null ? given.digitalOcean : { ...given.digitalOcean, token: 'sandbox', apiUrl: sandbox.url },
    };
    const onBlocked = (blockers: readonly Blocker[]) => log.warn({ blockers }, 'migrate waits for locks that others hold: it tries again until it gets them');
    const db = openDatabase(config.databaseUrl ?? '', { max: 2 });
    try {
      await unlessAborted(stop, migrate(db, config.environment, app.catalog, { onBlocked }));
    } finally {
      await endsWithin(GIVING_UP_MS, db.close());
    }
    await unlessAborted(stop, migrateQueues(queueStoreOf(config), { onBlocked }));
    const worker = await startWorker(config, log, undefined, app, stop);
    closers.push(worker.close);
    const web = await startWebIfFree(config, log, { app, workerMetrics: worker.metrics, signal: stop });
    if (web !== null) closers.push(web.close);
    if (sandbox !== null && ownUrl !== null) closers.push(reportReady(sandbox, ownUrl));
    write(whereItRuns(hasDroplets, sandbox !== null));
    if (postgres !== null) {
      write('In another terminal:\n');
      write(`  export DATABASE_URL='${postgres.url}'`);
      // A quote would end the text for the shell.
      if (config.redisNodes !== null) write(`  export REDIS_URL='${config.redisNodes.join(',').replaceAll("'", '%27')}'`);
      if (isThrownAway) write(`  export QUEUE_PREFIX='${config.queuePrefix}'`);
      if (ownKey !== null) write(`  export ARCADIA_ENCRYPTION_KEYS='${ownKey}'`);
      // `sync` calls DigitalOcean itself.
      if (sandbox !== null) write(`  export DIGITALOCEAN_API_URL='${sandbox.url}' DIGITALOCEAN_TOKEN=sandbox`);
      // A plan tells whether droplets can call back.
      if (ownUrl !== null) write(`  export PUBLIC_URL='${ownUrl}'`);
      write(`  ${arcadia} ${hasDroplets ? 'provision --name web-1 --region fra1 --size s-1vcpu-1gb --image debian-12-x64' : `start ${app.sagas[0]?.name ?? '<saga>'} --input '{…}'`}`);
      write(`  ${arcadia} sagas\n`);
    }
    if (web === null) write(`Port ${config.web.port} is in use, so the web is not running. Set PORT to another one.`);
    else write(describePages(`${web.url}${config.web.basePath}`, web.pages, config.web));
    write('Ctrl-C stops it.');
    const reason = await Promise.race([untilAborted(stop).then(() => null), worker.cannotGoOn]);
    if (reason === null) return 0;
    complain(reason);
    return 1;
  } finally {
    // A failure to close one part must not leave the others running.
    for (const close of closers.toReversed()) await close().catch((error: unknown) => log.warn({ err: error }, 'could not be closed'));
  }
}

function whereItRuns(hasDroplets: boolean, hasSandbox: boolean): string {
  if (!hasDroplets) return 'arcadia-cloud runs your app.';
  return hasSandbox ? 'arcadia-cloud runs on the sandbox: nothing costs money.' : 'arcadia-cloud runs against the REAL DigitalOcean: droplets cost money.';
}

/** The key that seals user_data lasts as long as the data: in a file next to the data if it is kept, else only in memory. */
async function keyBeside(dataDir: string | undefined): Promise<string> {
  if (dataDir === undefined) return generateKey();
  const file = join(dataDir, 'encryption-keys');
  await writeFile(file, `${generateKey()}\n`, { flag: 'wx', mode: 0o600 }).catch((error: unknown) => {
    if (errorCodeOf(error) !== 'EEXIST') throw error;
  });
  return (await readFile(file, 'utf8')).trim();
}

/** A port in use is no reason not to start. */
async function startWebIfFree(config: Config, log: Log, options: Parameters<typeof startWeb>[2]): Promise<RunningWeb | null> {
  try {
    return await startWeb(config, log, options);
  } catch (error) {
    if (errorCodeOf(error) === 'EADDRINUSE') return null;
    throw error;
  }
}
