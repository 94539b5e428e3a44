// Lists leases for people: when each ends, which ones the brake holds, which droplets have none. Also approves held leases.
import type { Database, Sql, SqlFragment } from '../platform/db.ts';
import { jsonText } from '../platform/json.ts';
import { runWithShortLocks } from '../platform/lock-wait.ts';

/**
 * A droplet with or without a lease. `leased`: the lease has not ended. `ended`: it has ended but not expired yet. `protected`: it has
 * ended, but the droplet is protected. `expired`: the droplet is being destroyed. `none`: no lease.
 */
export type LeaseRow = Readonly<{
  /** The saga that provisioned or adopted the droplet. */
  sagaId: string;
  /** Null: no create has been answered yet. */
  dropletId: number | null;
  name: string;
  /** Null: not known. */
  requestedBy: string | null;
  state: 'leased' | 'ended' | 'protected' | 'expired' | 'none';
  leaseUntil: Date | null;
  leaseLimit: Date | null;
  generation: number;
  /** Whether a worker has warned that the lease ends soon. */
  isWarned: boolean;
  expiredAt: Date | null;
  /** The saga that destroys it. */
  destroyedBy: string | null;
  approvedAt: Date | null;
  approvedBy: string | null;
}>;

/**
 * Which leases to list. `ending`: those that end soon. `ended`: those that have ended but not expired. `held`: those of them that the brake
 * holds. `without`: droplets without a lease.
 */
export type LeaseChoice = 'all' | 'ending' | 'ended' | 'held' | 'without';

/** How many there are of each choice, and the brake. */
export type LeaseOverview = Readonly<{
  /** The database's clock. */
  now: Date;
  counts: Readonly<Record<LeaseChoice, number>>;
  /** Number of ended leases whose droplets are protected. */
  endedProtected: number;
  /** Number of leases that have not expired. */
  leased: number;
  /** When so many leases had ended that the brake holds them; null: it is off. */
  heldSince: Date | null;
}>;

// A lease ends soon if a worker has warned of its end, or if it ends within this.
const SOON_S = 3_600;

type Row = Omit<LeaseRow, 'dropletId'> & { dropletId: string | null };

/** Lists the leases of existing droplets, in the order in which they end. */
export async function listLeases(db: Pick<Database, 'run'>, { choice, limit, offset = 0 }: { choice: LeaseChoice; limit: number; offset?: number }): Promise<LeaseRow[]> {
  return readLeases(db, 'leases.list', (sql) => sql`where ${isChosen(sql, choice)} order by lease_until, name, saga_id limit ${limit} offset ${offset}`);
}

/** Returns the leases of the droplets that these sagas provisioned or adopted. */
export async function findLeaseRows(db: Pick<Database, 'run'>, sagaIds: readonly string[]): Promise<LeaseRow[]> {
  return readLeases(db, 'leases.find', (sql) => sql`where saga_id = any(${[...sagaIds]}::uuid[]) order by lease_until, name, saga_id`);
}

async function readLeases(db: Pick<Database, 'run'>, label: string, which: (sql: Sql) => SqlFragment): Promise<LeaseRow[]> {
  const rows = await db.run(
    label,
    (sql) => sql<Row[]>`
      with lease as (${allLeases(sql)})
      select saga_id, droplet_id, name, requested_by, lease_until, lease_limit, generation, is_warned, expired_at,
             case when expired_at is not null then destroyed_by end as destroyed_by, approved_at, approved_by,
             case when lease_until is null then 'none' when expired_at is not null then 'expired' when lease_until > clock_timestamp() then 'leased'
               when protected then 'protected' else 'ended' end as state
      from lease ${which(sql)}`,
  );
  return rows.map((row) => ({ ...row, dropletId: row.dropletId === null ? null : Number(row.dropletId) }));
}

/** Rows of existing droplets: with a lease, without one, and those whose provision is under way. */
function allLeases(sql: Sql): SqlFragment {
  return sql`
    select p.saga_id, r.provider_id as droplet_id, r.name, p.requested_by, p.lease_until, p.lease_limit, p.lease_generation as generation,
           coalesce(p.lease_warned = p.lease_generation, false) as is_warned, p.lease_expired_at as expired_at,
           p.lease_saga_id as destroyed_by, p.lease_approved_at as approved_at, p.lease_approved_by as approved_by, p.protected
    from arcadia.cloud_provisioned p join lateral (
      -- By its id: joined otherwise, all droplets that are gone would be read for it.
      select provider_id, name, deleted_at from arcadia.cloud_resources where id = p.resource_id offset 0
    ) as r on true
    where p.released_at is null and (p.lease_until is not null or r.deleted_at is null)
    union all
    select l.saga_id, s.context->>'droplet_id', coalesce(s.input->>'name', ''), s.requested_by, l.lease_until, l.lease_limit, l.lease_generation,
           coalesce(l.lease_warned = l.lease_generation, false), l.lease_expired_at, l.saga_id, l.lease_approved_at, l.lease_approved_by, false
    from arcadia.provision_leases l left join arcadia.sagas s on s.id = l.saga_id`;
}

/** Of the same rows, what counting them takes: it reads none of the many droplets that are gone. */
function countedLeases(sql: Sql): SqlFragment {
  return sql`
    select p.lease_until, coalesce(p.lease_warned = p.lease_generation, false) as is_warned, p.lease_expired_at as expired_at, p.lease_approved_at as approved_at, p.protected
    from arcadia.cloud_provisioned p
    where p.released_at is null and (p.lease_until is not null or p.resource_id in (select id from arcadia.cloud_resources where deleted_at is null))
    union all
    select lease_until, coalesce(lease_warned = lease_generation, false), lease_expired_at, lease_approved_at, false from arcadia.provision_leases`;
}

function isChosen(sql: Sql, choice: LeaseChoice): SqlFragment {
  const hasEnded = sql`(lease_until <= clock_timestamp() and expired_at is null)`;
  switch (choice) {
    case 'all':
      return sql`lease_until is not null`;
    case 'ending':
      return sql`(lease_until > clock_timestamp() and expired_at is null and (is_warned or lease_until <= clock_timestamp() + ${SOON_S}::float8 * interval '1 second'))`;
    case 'ended':
      return hasEnded;
    case 'held':
      return sql`(${hasEnded} and not protected and approved_at is null and (select is_held from arcadia.lease_brake()))`;
    case 'without':
      return sql`lease_until is null`;
    default:
      return choice satisfies never;
  }
}

/** Counts the leases, and reads the brake against mass expiry. */
export async function readLeaseOverview(db: Pick<Database, 'run'>): Promise<LeaseOverview> {
  const [row] = await db.run(
    'leases.overview',
    (sql) => sql<LeaseOverview[]>`
      with lease as materialized (${countedLeases(sql)}),
      brake as materialized (select leased, is_held, ended_protected from arcadia.lease_brake())
      select clock_timestamp() as now, brake.leased, brake.ended_protected,
        jsonb_build_object(
          'all', count(*) filter (where ${isChosen(sql, 'all')}), 'ending', count(*) filter (where ${isChosen(sql, 'ending')}),
          'ended', count(*) filter (where ${isChosen(sql, 'ended')}), 'held', count(*) filter (where ${isChosen(sql, 'held')}),
          'without', count(*) filter (where ${isChosen(sql, 'without')})) as counts,
        -- The lease whose end was one too many: see arcadia.lease_brake.
        case when brake.is_held then (
          select lease_until from lease where ${isChosen(sql, 'held')} order by lease_until offset greatest(20, brake.leased / 5) limit 1) end as held_since
      from brake left join lease on true group by brake.leased, brake.is_held, brake.ended_protected`,
  );
  if (row === undefined) throw new Error('leases.overview: no answer');
  return row;
}

/** A lease that a person approves. With `generation`, only if it has not been renewed since. */
export type ApprovedLease = Readonly<{ sagaId: string; generation?: number }>;

/**
 * A person approves that these leases expire, however many have ended. One audit row each.
 *
 * @param leases by the sagas that provisioned the droplets
 * @throws {LockHeldError} if a transaction that is not committed yet is changing one of the droplets
 * @returns the sagas whose leases are approved: those that have ended and were neither expired nor renewed meanwhile
 */
export async function approveLeases(db: Pick<Database, 'run'>, leases: readonly ApprovedLease[], by: string): Promise<string[]> {
  const wanted = jsonText(leases.map(({ sagaId, generation }) => ({ saga: sagaId, generation: generation ?? null })));
  const rows = await runWithShortLocks(
    db,
    'leases.approve',
    (sql, limit) => sql<{ sagaId: string }[]>`
      with short as materialized (${limit}),
      wanted as materialized (select saga, generation from short, jsonb_to_recordset(${wanted}::text::jsonb) as wanted (saga uuid, generation int)),
      provisioned as (
        update arcadia.cloud_provisioned p set lease_approved_at = clock_timestamp(), lease_approved_by = ${by} from wanted
        where p.saga_id = wanted.saga and p.lease_generation = coalesce(wanted.generation, p.lease_generation)
          and p.lease_until <= clock_timestamp() and p.lease_expired_at is null and p.released_at is null and not p.protected
        returning p.saga_id, p.lease_until
      ),
      provisioning as (
        update arcadia.provision_leases l set lease_approved_at = clock_timestamp(), lease_approved_by = ${by} from wanted
        where l.saga_id = wanted.saga and l.lease_generation = coalesce(wanted.generation, l.lease_generation) and l.lease_until <= clock_timestamp() and l.lease_expired_at is null
        returning l.saga_id, l.lease_until
      )
      insert into arcadia.audit (actor, action, saga_id, detail)
      select ${by}, 'lease_expiry_approved', saga_id, jsonb_build_object('lease_until', lease_until) from (select * from provisioned union all select * from provisioning) as approved
      returning saga_id`,
  );
  return rows.map(({ sagaId }) => sagaId);
}
