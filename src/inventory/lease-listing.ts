// Lists leases for people: when each ends, which ones the brake holds, which droplets have none. Also approves held leases.
import type { Database } from '../platform/db.ts';

/**
 * A droplet with or without a lease. `leased`: the lease has not ended. `ended`: it has ended but not expired yet. `protected`: it has
 * ended, but the droplet is protected. `expired`: the droplet is being destroyed. `none`: no lease.
 */
export type LeaseRow = Readonly<{
  /** The saga that provisioned the droplet. */
  sagaId: string;
  /** Null: no create has been answered yet. */
  dropletId: number | null;
  name: string;
  state: 'leased' | 'ended' | 'protected' | 'expired' | 'none';
  leaseUntil: Date | null;
  leaseLimit: Date | null;
  generation: number;
  expiredAt: Date | null;
  /** The saga that destroys it. */
  destroyedBy: string | null;
  approvedAt: Date | null;
  approvedBy: string | null;
}>;

/** Which leases to list. `ended`: those that have ended but not expired. `without`: droplets without a lease. */
export type LeaseChoice = 'all' | 'ended' | 'without';

type Row = Omit<LeaseRow, 'dropletId'> & { dropletId: string | null };

/** Lists the leases of existing droplets, in the order in which they end. */
export async function listLeases(db: Pick<Database, 'run'>, { choice, limit }: { choice: LeaseChoice; limit: number }): Promise<LeaseRow[]> {
  const rows = await db.run(
    'leases.list',
    (sql) => sql<Row[]>`
      with lease as (
        select p.saga_id, r.provider_id as droplet_id, r.name, p.lease_until, p.lease_limit, p.lease_generation as generation, p.lease_expired_at as expired_at,
               p.lease_saga_id as destroyed_by, p.lease_approved_at as approved_at, p.lease_approved_by as approved_by, p.protected
        from arcadia.cloud_provisioned p join arcadia.cloud_resources r on r.id = p.resource_id
        where p.released_at is null and p.lease_until is ${choice === 'without' ? sql`null and r.deleted_at is null` : sql`not null`}
        union all
        select l.saga_id, s.context->>'droplet_id', coalesce(s.input->>'name', ''), l.lease_until, l.lease_limit, l.lease_generation, l.lease_expired_at, l.saga_id, l.lease_approved_at, l.lease_approved_by, false
        from arcadia.provision_leases l left join arcadia.sagas s on s.id = l.saga_id
        where ${choice === 'without' ? sql`false` : sql`true`}
      )
      select saga_id, droplet_id, name, lease_until, lease_limit, generation, expired_at, case when expired_at is not null then destroyed_by end as destroyed_by, approved_at, approved_by,
             case when lease_until is null then 'none' when expired_at is not null then 'expired' when lease_until > clock_timestamp() then 'leased'
               when protected then 'protected' else 'ended' end as state
      from lease
      where ${choice === 'ended' ? sql`lease_until <= clock_timestamp() and expired_at is null` : sql`true`}
      order by lease_until, name, saga_id limit ${limit}`,
  );
  return rows.map((row) => ({ ...row, dropletId: row.dropletId === null ? null : Number(row.dropletId) }));
}

/**
 * A person approves that these leases expire, however many have ended. One audit row each.
 *
 * @param sagaIds the sagas that provisioned the droplets
 * @returns the sagas whose leases are approved: those that have ended and were neither expired nor renewed meanwhile
 */
export async function approveLeases(db: Pick<Database, 'run'>, sagaIds: readonly string[], by: string): Promise<string[]> {
  const rows = await db.run(
    'leases.approve',
    (sql) => sql<{ sagaId: string }[]>`
      with provisioned as (
        update arcadia.cloud_provisioned p set lease_approved_at = clock_timestamp(), lease_approved_by = ${by}
        where p.saga_id = any(${[...sagaIds]}::uuid[]) and p.lease_until <= clock_timestamp() and p.lease_expired_at is null and p.released_at is null and not p.protected
        returning p.saga_id, p.lease_until
      ),
      provisioning as (
        update arcadia.provision_leases l set lease_approved_at = clock_timestamp(), lease_approved_by = ${by}
        where l.saga_id = any(${[...sagaIds]}::uuid[]) and l.lease_until <= clock_timestamp() and l.lease_expired_at is null
        returning l.saga_id, l.lease_until
      )
      insert into arcadia.audit (actor, action, saga_id, detail)
      select ${by}, 'lease_expiry_approved', saga_id, jsonb_build_object('lease_until', lease_until) from (select * from provisioned union all select * from provisioning) as approved
      returning saga_id`,
  );
  return rows.map(({ sagaId }) => sagaId);
}
