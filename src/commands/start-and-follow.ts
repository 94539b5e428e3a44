// What `provision` and `destroy` have in common: start a saga, show its progress, and say how it ended.
import { checkSession } from '../check-session.ts';
import type { Client } from '../client.ts';
import { openClient } from '../client.ts';
import type { Config } from '../config.ts';
import { loadConfig } from '../config.ts';
import { openDatabase } from '../db.ts';
import { checkEnvironment } from '../environment.ts';
import { createLog } from '../log.ts';
import { queueStoreOf } from '../queues/connection.ts';
import { redactSaga } from '../saga/redact.ts';
import type { Saga } from '../saga/saga.ts';
import { followSaga } from './follow.ts';
import { showLive } from './live-progress.ts';
import { drain, printLines } from './plain-progress.ts';
import { describeResult } from './saga-text.ts';

export type FollowOptions = Readonly<{ detach?: boolean | undefined; json?: boolean | undefined }>;

/**
 * Starts a saga and follows it until it is at rest.
 *
 * @returns the exit code: 0 when it completed (or was only to be started), 1 when not
 */
export async function startAndFollow(title: string, start: (client: Client) => Promise<{ sagaId: string }>, options: FollowOptions): Promise<number> {
  return withClient(async (client, maxPolls) => {
    const { sagaId } = await start(client);
    if (options.detach === true) {
      write(options.json === true ? JSON.stringify({ sagaId }) : sagaId);
      return 0;
    }
    return reportEnd(await follow(title, sagaId, client, maxPolls, options), options);
  });
}

/** Says how a saga ended; returns the exit code. */
export function reportEnd(saga: Saga, options: Pick<FollowOptions, 'json'>): number {
  write(options.json === true ? JSON.stringify(redactSaga(saga)) : describeResult(saga));
  return saga.status === 'completed' ? 0 : 1;
}

/**
 * Opens a client by the environment, and closes it again.
 *
 * @throws {EnvironmentMismatchError} where the database is another environment's: its workers would carry out what is asked
 */
export async function withClient<T>(use: (client: Client, maxPolls: number) => Promise<T>): Promise<T> {
  const config = loadConfig(process.env, ['DATABASE_URL']);
  await requireEnvironment(config);
  const log = createLog(config.logLevel === 'info' ? 'warn' : config.logLevel, 2);
  const client = openClient({ databaseUrl: config.databaseUrl ?? '', poolMax: Math.min(4, config.databasePoolMax), queueStore: queueStoreOf(config), keyRing: config.keyRing, log });
  try {
    return await use(client, config.wait.maxPolls);
  } finally {
    await client.close();
  }
}

async function requireEnvironment({ databaseUrl, environment, logLevel }: Config): Promise<void> {
  const db = openDatabase(databaseUrl ?? '', { max: 1 });
  try {
    await checkSession(db, databaseUrl ?? '', createLog(logLevel === 'info' ? 'warn' : logLevel, 2));
    await checkEnvironment(db, environment);
  } finally {
    await db.close();
  }
}

/** Prints data to stdout. */
export function write(text: string): void {
  process.stdout.write(`${text}\n`);
}

/** Shows the progress of a saga until it is at rest: live on a terminal, in lines elsewhere. */
export async function follow(title: string, sagaId: string, client: Client, maxPolls: number, options: FollowOptions): Promise<Saga> {
  const stopWatching = () => {
    process.stderr.write(`\nstopped watching; the saga goes on. Look at it with: arcadia saga ${sagaId}\n`);
    process.exit(130);
  };
  process.once('SIGINT', stopWatching);
  try {
    const snapshots = followSaga(client, sagaId);
    if (options.json === true) return await drain(snapshots, () => undefined);
    const steps = (await client.get(sagaId))?.steps ?? [];
    if (process.stdout.isTTY) return await showLive(`${title}  (saga ${sagaId})`, steps, snapshots, maxPolls);
    write(`${title} (saga ${sagaId})`);
    return await drain(snapshots, printLines(maxPolls, write));
  } finally {
    process.off('SIGINT', stopWatching);
  }
}
