// Checks the queue store: that it is reachable, that jobs are safe in it, that its queues are this database's, and that none
// is paused.
import type { Config } from '../../platform/config.ts';
import { openDatabase } from '../../platform/db.ts';
import { endsWithin } from '../../platform/deadline.ts';
import { silentLog } from '../../platform/log.ts';
import { checkEnvironment } from '../../processes/environment.ts';
import { openQueueConnection, queueStoreOf } from '../../queues/connection.ts';
import type { QueueConnection } from '../../queues/connection.ts';
import { queueNames } from '../../queues/jobs.ts';
import type { ForeignQueues } from '../foreign-queues.ts';
import { findForeignQueues } from '../foreign-queues.ts';
import type { Finding } from './finding.ts';
import { fail, ok, warn } from './finding.ts';

const CHECK = 'queues';
const CLOSE_WITHIN_MS = 500;
const ANSWER_WITHIN_MS = 2_500;

/** Checks the store. Writes nothing. */
export async function checkQueues(config: Config): Promise<Finding[]> {
  const where = config.redisNodes === null ? 'Postgres' : 'Redis';
  let connection: QueueConnection | null = null;
  try {
    connection = openQueueConnection(queueStoreOf(config), silentLog);
    const server = await connection.inspect();
    const foreign = await foreignTo(config, connection);
    if (foreign !== null) return [fail(CHECK, foreign.problem, foreign.remedy)];
    const paused = await readPaused(connection);
    if (paused.length > 0) return [warn(CHECK, `in ${server}, reachable; paused: ${paused.join(', ')}`, 'Resume them on the page of the queues.')];
    return [ok(CHECK, `in ${server}, reachable, none paused`)];
  } catch (error) {
    const message = error instanceof Error ? error.message : String(error);
    if (error instanceof Error && error.name === 'SchemaMigrationRequiredError') return [fail(CHECK, 'BullMQ has no tables in Postgres', 'Run `arcadia migrate`.')];
    return [fail(CHECK, message, `Check ${where} and ${where === 'Redis' ? 'REDIS_URL' : 'DATABASE_URL'}.`)];
  } finally {
    if (connection !== null) await endsWithin(CLOSE_WITHIN_MS, connection.close());
  }
}

/** Whether the queues are not those of the database. Null also if Postgres cannot tell, because another line reports that. */
export async function foreignTo({ databaseUrl, environment }: Config, connection: QueueConnection): Promise<ForeignQueues | null> {
  if (databaseUrl === null) return null;
  const db = openDatabase(databaseUrl, { max: 1, timeoutMs: ANSWER_WITHIN_MS, applicationName: 'arcadia-doctor' });
  try {
    const own = await checkEnvironment(db, environment).catch(() => null);
    return own === null ? null : await findForeignQueues(connection, own, db);
  } finally {
    await endsWithin(CLOSE_WITHIN_MS, db.close());
  }
}

async function readPaused(connection: QueueConnection): Promise<string[]> {
  const queues = Object.values(queueNames).map((name) => connection.queue(name));
  try {
    return (await Promise.all(queues.map(async (queue) => ((await queue.isPaused()) ? [queue.name] : [])))).flat();
  } finally {
    await endsWithin(CLOSE_WITHIN_MS, Promise.allSettled(queues.map((queue) => queue.close())));
  }
}
