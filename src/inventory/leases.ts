// The workers' part in leases: they warn before a lease ends, expire those that have ended, and start the sagas that destroy
// their droplets. Each function is one statement for many rows; it skips rows that a renewal has locked.
import type { Database } from '../platform/db.ts';

/** The actor in events and in the audit when a lease expires. */
export const LEASE_ACTOR = 'lease-expiry';

// Maximum rows per statement.
const BATCH = 200;

/** A new saga that destroys a droplet whose lease expired. */
export type StartedDestroy = Readonly<{ sagaId: string; dropletId: number; leaseUntil: Date; reason: string }>;

/** A provision in progress whose lease expired, and which the caller must cancel. */
type ExpiredProvision = Readonly<{ sagaId: string; leaseUntil: Date }>;

/** The result of a pass. `held`: the brake is on, so only approved leases expired. */
export type Expiry = Readonly<{
  started: readonly StartedDestroy[];
  toCancel: readonly ExpiredProvision[];
  held: Readonly<{ ended: number; leased: number }> | null;
  /** Number of ended leases that were left alone because their droplets are protected. */
  endedProtected: number;
  hasMore: boolean;
  /** Number of leases, ended or not. */
  leased: number;
}>;

/** What the workers need to expire leases. */
export type LeaseStore = Readonly<{
  /**
   * Expires leases that have ended, oldest end first, and starts the sagas that destroy their droplets. The caller must cancel
   * provisions in progress: each pass lists them until they are cancelled.
   */
  expire(): Promise<Expiry>;
  /**
   * Starts another destroy for droplets whose destroy was cancelled at least `againAfterMs` ago, because their lease is still expired.
   * If the droplet was protected meanwhile, its lease counts as ended instead of expired.
   */
  reopen(againAfterMs: number): Promise<number>;
  /** Records that leases end within `warnMs`, once per renewal. */
  warn(warnMs: number): Promise<number>;
}>;

/** The definition of the saga that destroys a droplet. */
export type DestroySaga = Readonly<{ name: string; steps: readonly string[] }>;

/**
 * Binds the leases to a database.
 *
 * @param options.reconcileGraceMs how long the caller has to enqueue the new sagas before the reconciler does
 */
export function createLeaseStore(db: Pick<Database, 'run'>, options: { destroy: DestroySaga; reconcileGraceMs: number }): LeaseStore {
  return {
    expire: () => expire(db, options),
    reopen: (againAfterMs) => reopen(db, againAfterMs),
    warn: (warnMs) => warn(db, warnMs),
  };
}

type ExpiryRow = Readonly<{
  started: readonly (Omit<StartedDestroy, 'leaseUntil'> & { leaseUntil: string })[];
  toCancel: readonly (Omit<ExpiredProvision, 'leaseUntil'> & { leaseUntil: string })[];
  ended: number;
  leased: number;
  isHeld: boolean;
  endedProtected: number;
  touched: number;
}>;

async function expire(db: Pick<Database, 'run'>, { destroy, reconcileGraceMs }: { destroy: DestroySaga; reconcileGraceMs: number }): Promise<Expiry> {
  const [row] = await db.run(
    'leases.expire',
    (sql) => sql<ExpiryRow[]>`
      with clock as materialized (select clock_timestamp() as now),
      brake as materialized (select ended, leased, is_held, ended_protected from arcadia.lease_brake()),
      ended as materialized (
        select p.id, p.saga_id, p.lease_generation, p.lease_until, p.lease_expired_at, r.provider_id,
               format('lease:droplet:%s:%s', r.provider_id, p.lease_generation) as key,
               format('its lease ended at %s', to_char(p.lease_until at time zone 'utc', 'YYYY-MM-DD"T"HH24:MI:SS"Z"')) as reason
        from arcadia.cloud_provisioned p join arcadia.cloud_resources r on r.id = p.resource_id
        where p.released_at is null and p.lease_until <= (select now from clock) and p.lease_saga_id is null and not p.protected
          and r.provider = 'digitalocean' and r.kind = 'droplet'
          and (p.lease_expired_at is not null or p.lease_approved_at is not null or not (select is_held from brake))
          -- Expired, and its provision's rollback has not ended: a person is needed, or it is under way.
          and (p.lease_expired_at is null or not exists (select from arcadia.sagas s where s.id = p.saga_id and s.status in ('compensating', 'stuck')))
          -- Somebody destroys it already.
          and not exists (
            select from arcadia.sagas s where coalesce(s.context->>'droplet_id', s.input->>'droplet_id') = r.provider_id
              and 'destroy_droplet' = any(s.steps) and s.status in ('pending', 'running', 'compensating', 'stuck')
          )
        order by p.lease_until limit ${BATCH} for update of p skip locked
      ),
      -- While its own saga is under way, that one is rolled back: a destruction would have to wait for it. The rollback of an adoption would
      -- keep the droplet: it is destroyed once the adoption is completed.
      judged as materialized (
        select ended.*, case when s.id is null or s.status in ('completed', 'compensated') then gen_random_uuid() end as new_id, s.status in ('pending', 'running') and 'register_droplet' = any(s.steps) as is_cancelled
        from ended left join arcadia.sagas s on s.id = ended.saga_id
      ),
      started as (
        insert into arcadia.sagas (id, saga8, name, status, steps, input, idempotency_key, requested_by, started_by, wake_at)
        select new_id, left(new_id::text, 8), ${destroy.name}, 'pending', ${[...destroy.steps]}::text[], jsonb_build_object('droplet_id', provider_id::bigint, 'reason', reason), key,
               ${LEASE_ACTOR}, ${LEASE_ACTOR}, (select now from clock) + ${reconcileGraceMs}::double precision * interval '1 millisecond'
        from judged where new_id is not null
        on conflict do nothing
        returning id
      ),
      created as (
        insert into arcadia.saga_events (saga_id, seq, kind, detail)
        select id, 0, 'saga_created', jsonb_build_object('status', 'pending', 'requestedBy', ${LEASE_ACTOR}::text, 'startedBy', ${LEASE_ACTOR}::text) from started
      ),
      audited as (
        insert into arcadia.audit (actor, action, saga_id, detail)
        select ${LEASE_ACTOR}, 'saga_created', started.id, jsonb_build_object('name', ${destroy.name}::text, 'startedBy', ${LEASE_ACTOR}::text, 'droplet_id', judged.provider_id, 'reason', judged.reason)
        from started join judged on judged.new_id = started.id
      ),
      expired as (
        update arcadia.cloud_provisioned p
        set lease_expired_at = coalesce(p.lease_expired_at, (select now from clock)), lease_saga_id = started.id,
            -- Its key, or the first characters of its id, are another saga's: the next pass has another key.
            lease_generation = p.lease_generation + case when judged.new_id is not null and started.id is null then 1 else 0 end
        from judged left join started on started.id = judged.new_id
        where p.id = judged.id
        returning p.id
      ),
      provision_ended as materialized (
        select l.saga_id, l.lease_generation, l.lease_until, l.lease_expired_at from arcadia.provision_leases l
        where l.lease_until <= (select now from clock)
          and case when l.lease_expired_at is null then l.lease_approved_at is not null or not (select is_held from brake)
            else exists (select from arcadia.sagas s where s.id = l.saga_id and s.status in ('pending', 'running')) end
        order by l.lease_until limit ${BATCH} for update of l skip locked
      ),
      provision_expired as (
        update arcadia.provision_leases l set lease_expired_at = (select now from clock)
        from provision_ended where l.saga_id = provision_ended.saga_id and l.lease_expired_at is null
        returning l.saga_id
      ),
      told as (
        insert into arcadia.lease_events (droplet_id, saga_id, generation, type, lease_until)
        select provider_id::bigint, saga_id, lease_generation, 'lease.expired', lease_until from judged where lease_expired_at is null
        union all
        select (s.context->>'droplet_id')::bigint, provision_ended.saga_id, lease_generation, 'lease.expired', lease_until
        from provision_ended left join arcadia.sagas s on s.id = provision_ended.saga_id where lease_expired_at is null
        returning 1
      )
      select brake.*,
        (select count(*)::int from told) as touched,
        (select coalesce(jsonb_agg(jsonb_build_object('sagaId', judged.new_id, 'dropletId', judged.provider_id::bigint, 'leaseUntil', judged.lease_until, 'reason', judged.reason) order by judged.lease_until), '[]')
         from started join judged on judged.new_id = started.id) as started,
        (select coalesce(jsonb_agg(jsonb_build_object('sagaId', saga_id, 'leaseUntil', lease_until) order by lease_until), '[]') from (
           select saga_id, lease_until from judged where is_cancelled
           union all
           select l.saga_id, l.lease_until from provision_ended l join arcadia.sagas s on s.id = l.saga_id and s.status in ('pending', 'running')
         ) as cancelled) as to_cancel
      from brake`,
  );
  if (row === undefined) throw new Error('leases.expire: no answer');
  return {
    started: row.started.map((one) => ({ ...one, leaseUntil: new Date(one.leaseUntil) })),
    toCancel: row.toCancel.map((one) => ({ ...one, leaseUntil: new Date(one.leaseUntil) })),
    held: row.isHeld ? { ended: row.ended, leased: row.leased } : null,
    endedProtected: row.endedProtected,
    hasMore: row.touched >= BATCH,
    leased: row.leased,
  };
}

async function reopen(db: Pick<Database, 'run'>, againAfterMs: number): Promise<number> {
  const rows = await db.run(
    'leases.reopen',
    (sql) => sql`
      with cancelled as (
        select p.id from arcadia.cloud_provisioned p left join arcadia.sagas s on s.id = p.lease_saga_id
        where p.lease_until is not null and p.released_at is null and p.lease_expired_at is not null
          and case when p.protected then coalesce(s.status, 'compensated') = 'compensated'
            else s.status = 'compensated' and s.cancel_requested_at is not null and s.finished_at <= clock_timestamp() - ${againAfterMs}::double precision * interval '1 millisecond' end
        limit ${BATCH} for update of p skip locked
      )
      update arcadia.cloud_provisioned p
      set lease_saga_id = null, lease_generation = p.lease_generation + 1, lease_expired_at = case when p.protected then null else p.lease_expired_at end
      from cancelled where p.id = cancelled.id returning p.id`,
  );
  return rows.length;
}

async function warn(db: Pick<Database, 'run'>, warnMs: number): Promise<number> {
  const [row] = await db.run(
    'leases.warn',
    (sql) => sql<{ told: number }[]>`
      with clock as materialized (select clock_timestamp() as now, clock_timestamp() + ${warnMs}::double precision * interval '1 millisecond' as soon),
      ending as materialized (
        select p.id, p.saga_id, p.lease_generation, p.lease_until, r.provider_id
        from arcadia.cloud_provisioned p join arcadia.cloud_resources r on r.id = p.resource_id, clock
        where p.released_at is null and p.lease_until > clock.now and p.lease_until <= clock.soon
          and p.lease_expired_at is null and p.lease_warned is distinct from p.lease_generation
        order by p.lease_until limit ${BATCH} for update of p skip locked
      ),
      warned as (update arcadia.cloud_provisioned p set lease_warned = p.lease_generation from ending where p.id = ending.id),
      provision_ending as materialized (
        select l.saga_id, l.lease_generation, l.lease_until from arcadia.provision_leases l, clock
        where l.lease_until > clock.now and l.lease_until <= clock.soon and l.lease_expired_at is null and l.lease_warned is distinct from l.lease_generation
        order by l.lease_until limit ${BATCH} for update of l skip locked
      ),
      provision_warned as (update arcadia.provision_leases l set lease_warned = l.lease_generation from provision_ending where l.saga_id = provision_ending.saga_id),
      told as (
        insert into arcadia.lease_events (droplet_id, saga_id, generation, type, lease_until)
        select provider_id::bigint, saga_id, lease_generation, 'lease.ending', lease_until from ending
        union all
        select (s.context->>'droplet_id')::bigint, provision_ending.saga_id, lease_generation, 'lease.ending', lease_until
        from provision_ending left join arcadia.sagas s on s.id = provision_ending.saga_id
        returning 1
      )
      select count(*)::int as told from told`,
  );
  return row?.told ?? 0;
}
