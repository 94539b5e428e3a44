// Finds the work in a database that a worker would do and that is not the smoke test's. A smoke test starts a worker, and a
// worker takes whatever is due.
import { endsWithin } from '../../platform/deadline.ts';
import type { Database } from '../../platform/db.ts';
import { silentLog } from '../../platform/log.ts';
import { counted } from '../../platform/text.ts';
import { openQueueConnection } from '../../queues/connection.ts';
import type { QueueStore } from '../../queues/connection.ts';
import { queueNames } from '../../queues/jobs.ts';
import { keyPrefix } from './stage.ts';

const CLOSE_WITHIN_MS = 500;

// Longer than any run: its acts and its cleanup have deadlines of less than three hours together.
const RUN_WITHIN = '1 day';

type WorkRow = Readonly<{ sagas: number; name: string | null; id: string | null; leases: number; orphans: number }>;

/**
 * Describes what others left to a worker: unfinished sagas, requests in the queue `sagas`, leases that end during a run, and
 * surplus droplets that the orphan sweep destroys. Empty: nothing.
 *
 * @param run the run whose own sagas and droplets do not count
 */
export async function findOthersWork(db: Pick<Database, 'run'>, queues: QueueStore, run: string): Promise<string[]> {
  const [rows, requests] = await Promise.all([readWork(db, run), countRequests(queues)]);
  const { sagas = 0, name = null, id = null, leases = 0, orphans = 0 } = rows[0] ?? {};
  return [
    ...(sagas === 0 ? [] : [`${counted(sagas, 'unfinished saga')} (the oldest: ${name ?? ''} ${id ?? ''})`]),
    ...(requests === 0 ? [] : [`${counted(requests, 'request')} in the queue ${queueNames.intake}`]),
    ...(leases === 0 ? [] : [`${counted(leases, 'lease')} ending within a day`]),
    ...(orphans === 0 ? [] : [counted(orphans, 'surplus droplet')]),
  ];
}

async function readWork(db: Pick<Database, 'run'>, run: string): Promise<readonly WorkRow[]> {
  return db.run(
    'smoke.others',
    (sql) => sql<WorkRow[]>`
      with own as materialized (select id from arcadia.sagas where starts_with(idempotency_key, ${keyPrefix(run)})),
      other as materialized (
        select id, name, created_at from arcadia.sagas where wake_at is not null and id not in (select id from own)
      ),
      oldest as (select id, name from other order by created_at limit 1)
      select
        (select count(*)::int from other) as sagas, (select name from oldest), (select id from oldest),
        (select count(*)::int from (
           select saga_id, lease_until from arcadia.cloud_provisioned where released_at is null and not protected
           union all
           select saga_id, lease_until from arcadia.provision_leases where lease_expired_at is null
         ) lease where lease_until <= clock_timestamp() + ${RUN_WITHIN}::interval and saga_id not in (select id from own)) as leases,
        (select count(*)::int from arcadia.cloud_orphans orphan join arcadia.cloud_resources resource on resource.id = orphan.resource_id
         where orphan.resolved_at is null and orphan.category = 'surplus' and resource.deleted_at is null
           and coalesce(orphan.saga_id not in (select id from own), true)) as orphans`,
  );
}

/** Counts the requests of other backends that are not sagas yet. */
async function countRequests(store: QueueStore): Promise<number> {
  const connection = openQueueConnection(store, silentLog);
  const queue = connection.queue(queueNames.intake);
  try {
    return await queue.getJobCountByTypes('waiting', 'prioritized', 'delayed', 'active');
  } finally {
    await endsWithin(CLOSE_WITHIN_MS, queue.close());
    await endsWithin(CLOSE_WITHIN_MS, connection.close());
  }
}
