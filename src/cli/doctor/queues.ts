// Checks the queue store: that it is reachable, that jobs are safe in it, and that no queue is paused.
import type { Config } from '../../platform/config.ts';
import { endsWithin } from '../../platform/deadline.ts';
import { silentLog } from '../../platform/log.ts';
import { openQueueConnection, queueStoreOf } from '../../queues/connection.ts';
import type { QueueConnection } from '../../queues/connection.ts';
import { queueNames } from '../../queues/jobs.ts';
import type { Finding } from './finding.ts';
import { fail, ok, warn } from './finding.ts';

const CHECK = 'queues';
const CLOSE_WITHIN_MS = 500;

/** Checks the store. Writes nothing. */
export async function checkQueues(config: Config): Promise<Finding[]> {
  const where = config.redisNodes === null ? 'Postgres' : 'Redis';
  let connection: QueueConnection | null = null;
  try {
    connection = openQueueConnection(queueStoreOf(config), silentLog);
    const server = await connection.inspect();
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

async function readPaused(connection: QueueConnection): Promise<string[]> {
  const queues = Object.values(queueNames).map((name) => connection.queue(name));
  try {
    return (await Promise.all(queues.map(async (queue) => ((await queue.isPaused()) ? [queue.name] : [])))).flat();
  } finally {
    await endsWithin(CLOSE_WITHIN_MS, Promise.allSettled(queues.map((queue) => queue.close())));
  }
}
