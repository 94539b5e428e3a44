// Whether the queues that this process is pointed at belong to its database. Only reads, so that a command that asks never
// claims queues, as the processes that work on them do.
import { DEAD_AFTER_MS } from '../fleet/sign-of-life.ts';
import type { Database } from '../platform/db.ts';
import type { Environment } from '../processes/environment.ts';
import { ownerOf } from '../processes/environment.ts';
import type { QueueConnection } from '../queues/connection.ts';

/** Queues that are not this database's. `isClaimed`: they are another's; otherwise nobody's yet. */
export type ForeignQueues = Readonly<{ isClaimed: boolean; problem: string; remedy: string }>;

const SET_BOTH = 'Set REDIS_URL and QUEUE_PREFIX as the workers have them.';

/**
 * @returns null if the queues are this database's
 * @throws {QueueStoreError} if the store does not answer
 */
export async function findForeignQueues({ store, readOwner, readTables }: Pick<QueueConnection, 'store' | 'readOwner' | 'readTables'>, environment: Environment, db: Pick<Database, 'run'>): Promise<ForeignQueues | null> {
  if (readTables !== null) return describeTables(await readTables(), db);
  if (store.kind === 'postgres' || readOwner === null) return null;
  const owner = await readOwner();
  const own = ownerOf(environment);
  if (owner === own) return null;
  const queues = `The queues at REDIS_URL under QUEUE_PREFIX ${store.prefix} belong to`;
  if (owner === null) return { isClaimed: false, problem: `${queues} no database: no process of this one has claimed them`, remedy: `${SET_BOTH} If they are right, start a worker. If Redis was emptied, running workers claim them again within seconds.` };
  return { isClaimed: true, problem: `${queues} another database (${owner}; this one is ${own})`, remedy: `${SET_BOTH} Each database needs a QUEUE_PREFIX of its own.` };
}

/** Without REDIS_URL, the queues would be in Postgres. Tables may be there that a fleet with Redis does not use. */
async function describeTables(tables: 'absent' | 'empty' | 'used', db: Pick<Database, 'run'>): Promise<ForeignQueues | null> {
  switch (tables) {
    case 'used':
      return null;
    case 'absent':
      return { isClaimed: false, problem: 'REDIS_URL is not set here, and Postgres has no tables of queues', remedy: 'Set REDIS_URL as the workers have it. If they have none, run `arcadia migrate`.' };
    case 'empty':
      if (!(await haveWorkersHadJobs(db))) return null;
      return { isClaimed: false, problem: 'REDIS_URL is not set here, and Postgres has none of the jobs that the workers work on', remedy: 'Set REDIS_URL as the workers have it.' };
    default:
      return tables satisfies never;
  }
}

/** Whether live workers must have jobs somewhere: of a saga that is not at rest, or of a sync, whose job is kept for days. */
async function haveWorkersHadJobs(db: Pick<Database, 'run'>): Promise<boolean> {
  const [row] = await db.run(
    'queues.had_jobs',
    (sql) => sql<{ hadJobs: boolean }[]>`
      select exists (
        select from arcadia.workers
        where last_seen_at > clock_timestamp() - ${DEAD_AFTER_MS}::float8 * interval '1 millisecond'
          and (exists (select from arcadia.inventory_syncs where requested_by is null and outcome = 'complete' and finished_at > workers.started_at)
            or (workers.started_at < clock_timestamp() - interval '1 minute' and exists (select from arcadia.sagas where wake_at is not null and created_at < clock_timestamp() - interval '1 minute')))
      ) as had_jobs`,
  );
  return row?.hadJobs === true;
}
