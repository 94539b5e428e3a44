// Reads the sagas whose ids droplets carry: from their rows, or from the records of deleted rows.
import type { Database } from '../platform/db.ts';
import type { SagaStatus } from '../saga/saga.ts';
import { dropletIdSql } from './droplet-of-saga.ts';

/** The parts of a saga that determine the ownership of a droplet. */
export type SagaOwner = Readonly<{
  id: string;
  name: string;
  status: SagaStatus;
  /** The droplet on record; null: none. */
  dropletId: number | null;
  dropletName: string | null;
  createdAt: Date;
  finishedAt: Date | null;
  /** One of its steps enters its droplet into the inventory. Not known, and so false, once its row is deleted. */
  isRegistered: boolean;
  /** Its row is deleted, so nothing works on it any more, whatever its status was. */
  isBuried: boolean;
}>;

// As in the contract; the inventory knows no step.
const registering = ['register_droplet', 'register_adopted_droplet'];

/** Finds sagas by id. Omits ids that this database never had. */
export async function findOwners(db: Pick<Database, 'run'>, sagaIds: readonly string[]): Promise<ReadonlyMap<string, SagaOwner>> {
  if (sagaIds.length === 0) return new Map();
  const rows = await db.run(
    'sagas.owners',
    (sql) => sql<(Omit<SagaOwner, 'dropletId'> & { dropletId: string | null })[]>`
      select id, name, status, context->>'droplet_id' as droplet_id, input->>'name' as droplet_name, created_at, finished_at,
        steps && ${registering}::text[] as is_registered, false as is_buried
      from arcadia.sagas where id = any(${[...sagaIds]}::uuid[])
      union all
      select saga_id, name, status, droplet_id, droplet_name, created_at, finished_at, false, true
      from arcadia.saga_tombstones tombstone
      where saga_id = any(${[...sagaIds]}::uuid[]) and not exists (select from arcadia.sagas where id = tombstone.saga_id)`,
  );
  return new Map(rows.map((row) => [row.id, { ...row, dropletId: row.dropletId === null ? null : Number(row.dropletId) }]));
}

/**
 * Returns those of these droplets for which a saga with this name completed, and when the last one did.
 *
 * @param name such as `destroy_droplet`
 */
export async function findCompletedOn(db: Pick<Database, 'run'>, name: string, dropletIds: readonly number[]): Promise<ReadonlyMap<number, Date>> {
  const ids = dropletIds.map(String);
  const rows = await db.run(
    'sagas.completed_on',
    (sql) => sql<{ dropletId: string; finishedAt: Date }[]>`
      select droplet_id, max(finished_at) as finished_at from (
        select ${dropletIdSql(sql)} as droplet_id, finished_at from arcadia.sagas
        where ${dropletIdSql(sql)} = any(${ids}::text[]) and name = ${name} and status = 'completed'
        union all
        select droplet_id, finished_at from arcadia.saga_tombstones
        where droplet_id = any(${ids}::text[]) and name = ${name} and status = 'completed'
      ) as completed
      where finished_at is not null group by droplet_id`,
  );
  return new Map(rows.map(({ dropletId, finishedAt }) => [Number(dropletId), finishedAt]));
}
