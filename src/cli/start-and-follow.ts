// The common part of `provision` and `destroy`: starts a saga, shows its progress and reports how it ended.
import { checkSession } from '../platform/check-session.ts';
import type { ClockWatch } from '../platform/clock.ts';
import { keepDatabaseTime } from '../platform/clock.ts';
import type { Client } from '../client/client.ts';
import { openClient } from '../client/open-client.ts';
import type { Config } from '../platform/config.ts';
import { openDatabase } from '../platform/db.ts';
import { CLOSING_MS, endsWithin, unlessAborted } from '../platform/deadline.ts';
import { loadConfigFor } from '../processes/inventory.ts';
import { checkEnvironment } from '../processes/environment.ts';
import { createLog } from '../platform/create-log.ts';
import { silentLog } from '../platform/log.ts';
import { queueStoreOf } from '../queues/queue-store.ts';
import type { App } from '../saga/app.ts';
import type { Deployment } from '../saga/definition.ts';
import type { Saga } from '../saga/saga.ts';
import type { SubjectFields } from '../saga/subject.ts';
import { subjectFieldsOf } from '../saga/subject.ts';
import type { Surface } from '../saga/words.ts';
import { surfaceOf } from '../saga/words.ts';
import { printable } from '../platform/text.ts';
import { followSaga } from './follow.ts';
import { write } from './output.ts';
import { drain, printLines } from './plain-progress.ts';
import { lastAnswersOf } from './last-answers.ts';
import { describeResult } from './saga-text.ts';
import { StopRequested } from './stop.ts';

export type FollowOptions = Readonly<{ detach?: boolean | undefined; json?: boolean | undefined }>;

/**
 * Starts a saga and follows it until it is at rest.
 *
 * @param stop stops following; the saga continues
 * @returns the exit code: 0 if the saga completed (or was only to be started), else 1
 * @throws {StopRequested} if stopped
 */
export async function startAndFollow(app: App, title: string, start: (client: Client) => Promise<{ sagaId: string }>, options: FollowOptions, stop: AbortSignal): Promise<number> {
  return withClient(app, async (client, { maxPolls, surface }) => {
    const { sagaId } = await unlessAborted(stop, start(client)).catch((error: unknown) => {
      if (error instanceof StopRequested && error.isAsked) process.stderr.write('\nStopped before the saga was confirmed. It may have started anyway.\n  See the newest sagas:  arcadia sagas --limit 5\n');
      throw error;
    });
    if (options.detach === true) {
      write(options.json === true ? JSON.stringify({ sagaId }) : sagaId);
      return 0;
    }
    return reportEnd(client, await follow({ title, sagaId, client, maxPolls, surface }, options, stop), options, surface);
  }, stop);
}

/** Reports how a saga ended, and returns the exit code. */
export async function reportEnd(client: Client, saga: Saga, options: Pick<FollowOptions, 'json'>, surface: Surface): Promise<number> {
  write(options.json === true ? JSON.stringify(surface.redact.saga(saga)) : describeResult(saga, surface, await lastAnswersOf(client, [saga])));
  return saga.status === 'completed' ? 0 : 1;
}

/**
 * Opens a client from the environment, and closes it again.
 *
 * @param stop cancels the opening; `use` must handle it itself
 * @throws {EnvironmentMismatchError} if the database belongs to another environment, whose workers would carry out the
 *   request
 */
export async function withClient<T>(app: App, use: (client: Client, how: { maxPolls: number; surface: Surface; subjectFields: SubjectFields }) => Promise<T>, stop?: AbortSignal): Promise<T> {
  const config = loadConfigFor(app, process.env, ['DATABASE_URL']);
  const clock = await (stop === undefined ? requireEnvironment(config) : unlessAborted(stop, requireEnvironment(config)));
  const log = createLog(config.logLevel === 'info' ? 'warn' : config.logLevel, 2);
  const client = openClient({ databaseUrl: config.databaseUrl ?? '', poolMax: Math.min(4, config.databasePoolMax), queueStore: queueStoreOf(config), keyRing: config.keyRing, deployment: deploymentOf(config), log });
  try {
    return await use(client, { maxPolls: config.wait.maxPolls, surface: surfaceOf(app.catalog), subjectFields: subjectFieldsOf(app.catalog) });
  } finally {
    clock.close();
    // If Postgres does not answer, nobody who pressed Ctrl-C should wait for it.
    await endsWithin(CLOSING_MS, client.close());
  }
}

/** PUBLIC_URL may be set for the web and the workers alone, so that it is missing here says nothing. */
function deploymentOf({ publicUrl, lease }: Config): Deployment {
  return { ...(publicUrl === null ? {} : { publicUrl }), longestLeaseS: lease.maxS };
}

/**
 * @returns the watch that keeps this process on the database's time
 */
async function requireEnvironment({ databaseUrl, environment, logLevel }: Config): Promise<ClockWatch> {
  const db = openDatabase(databaseUrl ?? '', { max: 1 });
  try {
    await checkSession(db, databaseUrl ?? '', createLog(logLevel === 'info' ? 'warn' : logLevel, 2));
    await checkEnvironment(db, environment);
    return await keepDatabaseTime({ db, everyMs: Number.POSITIVE_INFINITY, log: silentLog });
  } finally {
    await db.close();
  }
}

/**
 * Shows a saga's progress until it is at rest: live on a terminal, else as lines.
 *
 * @throws {StopRequested} if `stop` is aborted; after a signal, first prints that the saga continues and what to do about
 *   it
 */
export async function follow(what: Readonly<{ title: string; sagaId: string; client: Client; maxPolls: number; surface: Surface }>, options: FollowOptions, stop: AbortSignal): Promise<Saga> {
  const { title, sagaId, client, maxPolls, surface } = what;
  return sayingThatItGoesOn(sagaId, async () => {
    const snapshots = followSaga(client, sagaId, stop, surface);
    if (options.json === true) return drain(snapshots, () => undefined);
    const steps = (await unlessAborted(stop, client.get(sagaId)))?.steps ?? [];
    // Loaded only for a terminal, because the display code is large.
    if (process.stdout.isTTY) return (await import('./live-progress.ts')).showLive(`${title}  (saga ${sagaId})`, steps, snapshots, maxPolls, stop, surface);
    write(`${printable(title)} (saga ${sagaId})`);
    return drain(snapshots, printLines(maxPolls, write, surface));
  });
}

/** Follows a saga. If the user stops it, tells them what happens to the saga. */
export async function sayingThatItGoesOn<T>(sagaId: string, watch: () => Promise<T>): Promise<T> {
  try {
    return await watch();
  } catch (error) {
    if (error instanceof StopRequested && error.isAsked) {
      process.stderr.write(`\nStopped watching. Saga ${sagaId} continues.\n  Follow it again:         arcadia saga ${sagaId} --follow\n  Look at it:              arcadia saga ${sagaId}\n  Cancel and roll it back: arcadia cancel ${sagaId}\n`);
    }
    throw error;
  }
}
