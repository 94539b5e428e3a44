// `status` shows the fleet's state, for people and scripts. It reads the stores directly and needs no web process.
import type { Config } from '../platform/config.ts';
import type { Database } from '../platform/db.ts';
import { openDatabase, isDatabaseOutage, isNotMigrated } from '../platform/db.ts';
import { withDeadline } from '../platform/deadline.ts';
import type { Environment } from '../processes/environment.ts';
import { readMigrations } from '../processes/due-migrations.ts';
import { checkEnvironment } from '../processes/environment.ts';
import { hasInventory, loadConfigFor } from '../processes/inventory.ts';
import type { App } from '../saga/app.ts';
import type { Condition, QueueFacts } from '../fleet/condition.ts';
import type { FleetStatus, UsersFileFact } from '../fleet/conditions.ts';
import { judgeFleet } from '../fleet/conditions.ts';
import type { PostgresFacts } from '../fleet/facts.ts';
import { readFleetFacts } from '../fleet/facts.ts';
import { statusBody } from '../fleet/report.ts';
import { createLog } from '../platform/create-log.ts';
import type { QueueConnection } from '../queues/connection.ts';
import { openQueueConnection, placeOf, queueStoreOf } from '../queues/connection.ts';
import { queueNames } from '../queues/jobs.ts';
import { refusesWrites } from '../platform/store-failure.ts';
import { printable } from '../platform/text.ts';
import { problemOfUsersFile } from '../web/users.ts';
import { findForeignQueues } from './foreign-queues.ts';
import { write } from './output.ts';

const ANSWER_WITHIN_MS = 5_000;

/**
 * @throws {EnvironmentMismatchError} if the database belongs to another environment
 */
export async function statusCommand(app: App, options: { json?: boolean }): Promise<number> {
  const config = loadConfigFor(app, process.env, ['DATABASE_URL']);
  const db = openDatabase(config.databaseUrl ?? '', { max: 2, timeoutMs: ANSWER_WITHIN_MS });
  const connection = openQueueConnection(queueStoreOf(config), createLog('silent', 2));
  try {
    const environment = orNull(() => checkEnvironment(db, config.environment));
    const readPostgres = async (): Promise<PostgresFacts | null> => ((await environment) === null ? null : orNull(() => readFleetFacts(db)));
    const [postgres, isDue, { facts: queues, trouble }, usersFile] = await Promise.all([readPostgres(), lacksMigrations(db), readQueues(connection, environment, db), readUsersFileFact(config.web)]);
    const judged = judgeFleet({ postgres, queues, usersFile, isNotMigrated: isDue }, { ...config, queuePlace: placeOf(connection.store), ...(hasInventory(app) ? {} : { inventorySyncIntervalMs: null }) }, new Date(Date.now()));
    const status = trouble === null ? judged : explain(judged, trouble);
    write(options.json === true ? JSON.stringify(statusBody(status)) : formatStatus(status));
    return status.status === 'attention' ? 1 : 0;
  } finally {
    await Promise.allSettled([withDeadline(ANSWER_WITHIN_MS, connection.close(), () => new Error('late')), db.close()]);
  }
}

/** Whether migrations are due. If that cannot be read, another line of the status says why. */
async function lacksMigrations(db: Database): Promise<boolean> {
  return readMigrations(db).then(({ due }) => due.length > 0, () => false);
}

/** Null if Postgres does not answer, or lacks what is read. */
async function orNull<T>(read: () => Promise<T>): Promise<T | null> {
  try {
    return await read();
  } catch (error) {
    if (isDatabaseOutage(error) || isNotMigrated(error)) return null;
    throw error;
  }
}

async function readUsersFileFact(web: Config['web']): Promise<UsersFileFact | null> {
  const message = await problemOfUsersFile(web);
  return message === null ? null : { message, since: null };
}

/** Why nothing is known of the queues, though their store may answer. */
type QueueTrouble = Pick<Condition, 'title' | 'detail' | 'action'>;

/** A stuck queue shows only over time, so the web process reports that. */
async function readQueues(connection: QueueConnection, environment: Promise<Environment | null>, db: Database): Promise<Readonly<{ facts: QueueFacts | null; trouble: QueueTrouble | null }>> {
  try {
    const own = await environment;
    const foreign = own === null ? null : await withDeadline(ANSWER_WITHIN_MS, findForeignQueues(connection, own, db), () => new Error('late'));
    if (foreign !== null) return { facts: null, trouble: { title: foreign.problem, detail: 'Nothing is known of the queues of this fleet.', action: foreign.remedy } };
    return { facts: await readOwnQueues(connection), trouble: null };
  } catch (error) {
    return { facts: null, trouble: refusesWrites(error) ? refusal(error) : null };
  }
}

/** Only for queues of our own: BullMQ writes a key for each queue that it opens. */
async function readOwnQueues(connection: QueueConnection): Promise<QueueFacts> {
  const queues = Object.values(queueNames).map((name) => connection.queue(name));
  try {
    const asked = Promise.all(queues.map(async (queue) => ((await queue.isPaused()) ? [queue.name] : [])));
    // A store that takes no writes answers reads too.
    const [paused, memory] = await withDeadline(ANSWER_WITHIN_MS, Promise.all([asked, connection.memory(), connection.requireWrites()]), () => new Error('late'));
    return { paused: paused.flat(), stalled: [], ...memory };
  } finally {
    await withDeadline(1_000, Promise.allSettled(queues.map((queue) => queue.close())), () => new Error('late')).catch(() => undefined);
  }
}

function refusal(error: unknown): QueueTrouble {
  const message = error instanceof Error ? error.message : String(error);
  return { title: 'The queue store takes no writes', detail: 'No steps run. New sagas are kept in Postgres.', action: `${message} Sagas then resume by themselves.` };
}

/** Says what is known of the queue store in place of "does not answer". */
function explain(status: FleetStatus, trouble: QueueTrouble): FleetStatus {
  return { ...status, conditions: status.conditions.map((one) => (one.name === 'queue_store_away' ? { ...one, ...trouble } : one)) };
}

const signs = { critical: '!!', warning: '! ', info: 'i ' } as const;

function formatStatus(status: FleetStatus): string {
  const { conditions, facts } = printable(status);
  const { postgres } = facts;
  const alive = postgres?.workers.filter(({ isAlive }) => isAlive).length ?? 0;
  const summary = postgres === null ? [] : [`${alive} ${alive === 1 ? 'worker' : 'workers'}, ${postgres.unfinished} ${postgres.unfinished === 1 ? 'saga' : 'sagas'} unfinished`];
  if (conditions.length === 0) return ['No problems.', ...summary].join(' ');
  const lines = conditions.map(({ severity, title, detail, action, since, until }) => {
    const times = [since === null ? null : `since ${since.toISOString()}`, until === null ? null : `next check at ${until.toISOString()}`].filter((part) => part !== null);
    return `${signs[severity]} ${title}. ${detail}${times.length === 0 ? '' : ` (${times.join(', ')})`}\n   ${action}`;
  });
  return [...lines, ...summary].join('\n');
}
