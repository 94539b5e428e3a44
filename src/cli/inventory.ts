// `sync`, `drift` and `orphans`: the inventory, for people.
import { hostname } from 'node:os';
import { createInterface } from 'node:readline/promises';
import { setTimeout as delay } from 'node:timers/promises';
import { createDatabaseClock } from '../platform/clock.ts';
import type { Config } from '../platform/config.ts';
import type { Database } from '../platform/db.ts';
import { CLOSING_MS, endsWithin } from '../platform/deadline.ts';
import { budgetId, createRequestBudget } from '../do/budget.ts';
import { createDigitalOceanClient } from '../do/client.ts';
import { requireMigrated } from '../processes/due-migrations.ts';
import type { Environment } from '../processes/environment.ts';
import { ownerOf } from '../processes/environment.ts';
import { checkAccount } from '../droplets/account.ts';
import { acceptDrift, listDrift } from '../inventory/drift-store.ts';
import { acknowledgeOrphans, unacknowledgeOrphans } from '../inventory/orphan-acknowledgement.ts';
import { approveOrphans, listOrphans } from '../inventory/orphans.ts';
import { listSyncs, readSyncAge } from '../inventory/syncs.ts';
import { directIo } from '../platform/io.ts';
import type { Log } from '../platform/log.ts';
import { createLog } from '../platform/create-log.ts';
import { openQueueConnection, queueStoreOf } from '../queues/connection.ts';
import { openPeriodicQueue } from '../queues/periodic-queue.ts';
import { syncWork } from '../droplets/sync-work.ts';
import { syncInventory, syncSettings } from '../inventory/sync/sync-inventory.ts';
import type { SyncReport } from '../inventory/sync/sync-inventory.ts';
import { printable } from '../platform/text.ts';
import { sharedStores } from '../droplets/shared-stores.ts';
import { findForeignQueues } from './foreign-queues.ts';
import type { AsOf } from './inventory-text.ts';
import { describeCost, formatDrift, formatOrphans, formatSync } from './inventory-text.ts';
import type { App } from '../saga/app.ts';
import { requester } from './requester.ts';
import { complain, terminalWidth, write } from './output.ts';
import { UsageError } from './usage-error.ts';
import { withInventoryDatabase } from './with-database.ts';

// Between two looks whether the sync that is under way is over.
const LOOK_MS = 500;

const TELL_AFTER_MS = 3_000;

const MOST_ROWS = 10_000;

/** Syncs in this process, with the fleet's request budget. */
export async function syncCommand(app: App, options: { json?: boolean }, stop: AbortSignal): Promise<number> {
  return withInventoryDatabase(app, ['DATABASE_URL', 'DIGITALOCEAN_TOKEN'], async (db, config, log, environment) => {
    await requireMigrated(db);
    const { token, apiUrl, timeoutMs, requestsPerMinute: perMinute, requestsPerHour: perHour } = config.digitalOcean;
    const connection = openQueueConnection(queueStoreOf(config), log);
    const queue = openPeriodicQueue(connection, syncWork, directIo);
    try {
      const { budget: store } = sharedStores(config, { db, runScript: connection.runScript }, budgetId(token ?? '', apiUrl));
      const budget = createRequestBudget({ store, perMinute, perHour, io: directIo, log });
      const client = createDigitalOceanClient({ apiUrl, token: token ?? '', timeoutMs, budget });
      // Whether it may destroy is a matter of these queues.
      await connection.check(ownerOf(environment));
      const isSettled = await checkAccount({ db, digitalOcean: client.at('now'), log: createLog(config.logLevel === 'info' ? 'warn' : config.logLevel, 2) });
      if (!isSettled) throw new Error('DigitalOcean did not report the account of DIGITALOCEAN_TOKEN, so nothing was synced. Try again in a moment');
      const digitalOcean = client.at('sync');
      const worker = `${requester()}@${hostname()}:${process.pid}`;
      const deps = { db, digitalOcean, worker, settings: syncSettings(config), isPaused: queue.isPaused, onThrottled: tellOfWait(), signal: stop, log };
      const report = await untilOurs(db, stop, () => syncInventory(deps, { intervalMs: null, requestedBy: requester() }));
      write(options.json === true ? JSON.stringify(report) : formatSync(report));
      return 0;
    } finally {
      await endsWithin(CLOSING_MS, queue.close().then(() => connection.close()));
    }
  }, stop);
}

/** Tells once that the sync waits for the request budget, and until when; not of a few seconds. */
function tellOfWait(): (waitMs: number) => void {
  let waitedMs = 0;
  let said = false;
  return (waitMs) => {
    waitedMs += waitMs;
    if (said || waitedMs < TELL_AFTER_MS) return;
    said = true;
    complain(`waiting for the request budget: a sync leaves a quarter of it to sagas. It asks again at ${new Date(Date.now() + waitMs).toISOString()}`);
  };
}

/** There is one sync at a time: where a worker is at one, ours comes after it. */
async function untilOurs(db: Database, signal: AbortSignal, sync: () => Promise<SyncReport | null>): Promise<SyncReport> {
  for (let said = false; ; said = true) {
    const report = await sync();
    if (report !== null) return report;
    const [running] = await listSyncs(db, 1);
    if (!said && running !== undefined) complain(`waiting for sync ${running.number}, started by ${printable(running.worker)} at ${running.startedAt.toISOString()}`);
    await delay(LOOK_MS, undefined, { signal });
  }
}

async function readAsOf(db: Database): Promise<AsOf> {
  const [sync, nowMs] = await Promise.all([readSyncAge(db), createDatabaseClock(db)()]);
  return { sync, now: new Date(nowMs) };
}

export async function listDriftCommand(app: App, options: { all?: boolean; json?: boolean }): Promise<number> {
  return withInventoryDatabase(app, ['DATABASE_URL'], async (db) => {
    const findings = await listDrift(db, { withResolved: options.all === true, limit: MOST_ROWS });
    write(options.json === true ? JSON.stringify(findings) : formatDrift(findings, await readAsOf(db), terminalWidth()));
    return 0;
  });
}

export async function acceptDriftCommand(app: App, id: number, options: { json?: boolean }): Promise<number> {
  return withInventoryDatabase(app, ['DATABASE_URL'], async (db) => {
    const accepted = await acceptDrift(db, id, requester());
    if (options.json === true) write(JSON.stringify(accepted));
    switch (accepted.kind) {
      case 'accepted': {
        const { providerId, name, field, actual } = printable(accepted.drift);
        const what = field === 'existence' ? 'its absence is now the desired state' : `${field} ${actual} is now the desired state`;
        if (options.json !== true) write(`accepted: droplet ${providerId} ${name}: ${what}`);
        return 0;
      }
      case 'resolved':
        complain(`drift ${id} is already resolved (${accepted.drift.resolution ?? 'no desired state is left'})`);
        return 1;
      case 'moved_on':
        complain(`drift ${id} has just changed: run \`arcadia drift\` again to see it`);
        return 1;
      case 'not_found':
        complain(`drift ${id} not found; \`arcadia drift\` lists all open drift`);
        return 1;
      default:
        return accepted satisfies never;
    }
  });
}

export async function orphansCommand(app: App, options: { destroy?: boolean; yes?: boolean; json?: boolean }): Promise<number> {
  return withInventoryDatabase(app, ['DATABASE_URL'], async (db, config, log, environment) => {
    const orphans = await listOrphans(db, MOST_ROWS);
    if (options.destroy !== true) {
      write(options.json === true ? JSON.stringify(orphans) : formatOrphans(orphans, await readAsOf(db), terminalWidth()));
      return 0;
    }
    const surplus = orphans.filter(({ category, approvedAt }) => category === 'surplus' && approvedAt === null);
    if (options.json !== true) write(formatOrphans(surplus, { what: 'surplus droplets', ...(await readAsOf(db)) }, terminalWidth()));
    if (surplus.length > 0 && options.yes !== true && !(await isConfirmed(`Destroy these ${surplus.length} droplets (${describeCost(surplus)})?`, surplus.length))) {
      complain('nothing was approved');
      return 1;
    }
    const approved = await approveOrphans(db, surplus.map(({ id }) => id), requester());
    if (options.json === true) write(JSON.stringify({ approved }));
    else if (approved.length > 0) write(`approved ${approved.length}: ${whenDestroyed(await isInventoryPaused(db, config, environment, log))}`);
    return 0;
  });
}

export async function acknowledgeOrphansCommand(app: App, ids: readonly number[], options: { reason?: string; json?: boolean }): Promise<number> {
  return withInventoryDatabase(app, ['DATABASE_URL'], async (db) => {
    const known = await acknowledgeOrphans(db, ids, { by: requester(), reason: options.reason ?? null });
    return reportMarked(ids, known, { ...options, done: 'acknowledged: no longer reported as a problem' });
  });
}

export async function unacknowledgeOrphansCommand(app: App, ids: readonly number[], options: { json?: boolean }): Promise<number> {
  return withInventoryDatabase(app, ['DATABASE_URL'], async (db) => {
    const known = await unacknowledgeOrphans(db, ids, { by: requester() });
    return reportMarked(ids, known, { ...options, done: 'reported as a problem again' });
  });
}

function reportMarked(ids: readonly number[], known: readonly number[], { json, done }: { json?: boolean; done: string }): number {
  if (json === true) write(JSON.stringify({ ids: known }));
  else for (const id of known) write(`orphan ${id} ${done}`);
  const others = [...new Set(ids)].filter((id) => !known.includes(id));
  for (const id of others) complain(`orphan ${id} is not an unknown orphan; \`arcadia orphans\` lists them`);
  return others.length === 0 ? 0 : 1;
}

/** @param isPaused null: not known */
function whenDestroyed(isPaused: boolean | null): string {
  const next = 'the next sync destroys them after the grace period, if DigitalOcean still lists them';
  if (isPaused === true) return `the queue ${syncWork.queue} is paused, so none is destroyed. Resume it on the Queues page: then ${next}`;
  if (isPaused === null) return `${next}, unless the queue ${syncWork.queue} is paused, which could not be read`;
  return `${next} (\`arcadia sync\` syncs now)`;
}

async function isInventoryPaused(db: Database, config: Config, environment: Environment, log: Log): Promise<boolean | null> {
  const connection = openQueueConnection(queueStoreOf(config), log);
  try {
    if ((await findForeignQueues(connection, environment, db)) !== null) return null;
    const queue = openPeriodicQueue(connection, syncWork, directIo);
    try {
      return await queue.isPaused();
    } finally {
      await endsWithin(CLOSING_MS, queue.close());
    }
  } catch {
    return null;
  } finally {
    await endsWithin(CLOSING_MS, connection.close());
  }
}

/**
 * Destroying takes more than a reflex: asks, and takes the number of droplets for a yes.
 *
 * @throws {UsageError} without a terminal
 */
export async function isConfirmed(question: string, count: number): Promise<boolean> {
  if (!process.stdin.isTTY) throw new UsageError('--destroy: add --yes, because there is no terminal to ask for confirmation');
  const prompt = createInterface({ input: process.stdin, output: process.stderr });
  // The prompt takes Ctrl-C for itself.
  prompt.once('SIGINT', () => process.kill(process.pid, 'SIGINT'));
  try {
    const answer = await prompt.question(`${question} This cannot be undone. Type the number of droplets to confirm: `);
    return answer.trim() === String(count);
  } finally {
    prompt.close();
  }
}
