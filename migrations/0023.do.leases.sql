-- Leases: a droplet whose lease nobody renews in time is destroyed. All times are those of this database's clock.
do $$
begin
  perform set_config('lock_timeout', '500ms', true);
  loop
    begin
      lock table arcadia.sagas in share row exclusive mode;
      lock table arcadia.cloud_provisioned in access exclusive mode;
      exit;
    exception when lock_not_available or deadlock_detected then
      perform pg_sleep(0.05);
    end;
  end loop;
  perform set_config('lock_timeout', '0', true);
end $$;

alter table arcadia.cloud_provisioned
  -- Null: no lease.
  add column lease_until       timestamptz,
  -- No renewal goes beyond this.
  add column lease_limit       timestamptz,
  -- Goes up with each renewal.
  add column lease_generation  int not null default 0,
  -- The generation whose end was announced.
  add column lease_warned      int,
  -- From then on it cannot be renewed: the droplet is to be destroyed.
  add column lease_expired_at  timestamptz,
  -- The saga that destroys it.
  add column lease_saga_id     uuid,
  -- A person let it expire although many expire at once.
  add column lease_approved_at timestamptz,
  add column lease_approved_by text;

create index cloud_provisioned_leased on arcadia.cloud_provisioned (lease_until) where lease_until is not null and released_at is null;

-- Leases of droplets whose provision is under way: from the announcement of the first create until the droplet is registered,
-- or the saga has ended. The columns are those of cloud_provisioned.
create table arcadia.provision_leases (
  -- No foreign key: a saga that is under way is not deleted.
  saga_id           uuid primary key,
  lease_until       timestamptz not null,
  lease_limit       timestamptz,
  lease_generation  int not null default 1,
  lease_warned      int,
  lease_expired_at  timestamptz,
  lease_approved_at timestamptz,
  lease_approved_by text
);

-- What happened to leases, for others to read. Rows are only ever added, by the statement that brings the fact about.
create table arcadia.lease_events (
  id          bigint generated always as identity primary key,
  -- Null: no create of the saga has an answer yet.
  droplet_id  bigint,
  -- The saga that provisioned the droplet.
  saga_id     uuid not null,
  generation  int not null,
  type        text not null check (type in ('lease.ending', 'lease.expired', 'lease.renewed')),
  at          timestamptz not null default clock_timestamp(),
  lease_until timestamptz not null
);

create index lease_events_by_droplet on arcadia.lease_events (droplet_id, id);

-- Seconds, as an input or a context has them; null for anything else.
create function arcadia.lease_seconds(given text) returns interval
  language sql
  immutable
  set search_path = pg_catalog, pg_temp
as $$
  select case when given ~ '^[0-9]{1,9}$' then make_interval(secs => given::int) end
$$;

-- The first create of a saga is announced: its lease begins. A trigger, so that it begins whatever version the worker has.
create function arcadia.begin_lease() returns trigger
  language plpgsql
  -- Whoever moves a saga need not write the table of leases.
  security definer
  set search_path = pg_catalog, pg_temp
as $$
declare
  -- A worker writes what its own policy makes of the input into the context.
  lease jsonb := coalesce(new.context->'lease', new.input->'lease');
  ttl interval := arcadia.lease_seconds(lease->>'ttl_s');
  now timestamptz := clock_timestamp();
begin
  if ttl is not null and 'register_droplet' = any(new.steps) then
    insert into arcadia.provision_leases (saga_id, lease_until, lease_limit)
    values (new.id, now + ttl, now + greatest(ttl, arcadia.lease_seconds(lease->>'max_s')) * case when lease ? 'max_s' then 1 end)
    on conflict do nothing;
  end if;
  return null;
end;
$$;

create trigger begin_lease after update of context on arcadia.sagas
  for each row when (new.context ? 'create_intent_at' and not old.context ? 'create_intent_at')
  execute function arcadia.begin_lease();

-- Registered, the lease goes on in the droplet's own row. A renewal that is not committed yet is waited for.
create function arcadia.move_lease() returns trigger
  language plpgsql
  security definer
  set search_path = pg_catalog, pg_temp
as $$
declare
  lease arcadia.provision_leases;
begin
  delete from arcadia.provision_leases l where l.saga_id = new.saga_id returning l.* into lease;
  if lease.saga_id is not null then
    new.lease_until := lease.lease_until;
    new.lease_limit := lease.lease_limit;
    new.lease_generation := lease.lease_generation;
    new.lease_warned := lease.lease_warned;
    new.lease_expired_at := lease.lease_expired_at;
    new.lease_approved_at := lease.lease_approved_at;
    new.lease_approved_by := lease.lease_approved_by;
  end if;
  return new;
end;
$$;

create trigger move_lease before insert on arcadia.cloud_provisioned for each row execute function arcadia.move_lease();

-- A saga that has ended has no provision under way.
create function arcadia.end_provision_lease() returns trigger
  language plpgsql
  security definer
  set search_path = pg_catalog, pg_temp
as $$
begin
  delete from arcadia.provision_leases where saga_id = new.id;
  return null;
end;
$$;

create trigger end_provision_lease after update of status on arcadia.sagas
  for each row when (new.status in ('completed', 'compensated') and old.status <> new.status and new.context ? 'create_intent_at')
  execute function arcadia.end_provision_lease();

-- The brake against mass expiry, as after a restored backup or a clock that jumped: when more than 20 leases, and more than a
-- fifth of all, have ended at once, none of them expires until a person approves. Protected droplets and approved leases do
-- not count as ended.
create function arcadia.lease_brake(out ended int, out leased int, out is_held boolean, out ended_protected int)
  language sql
  stable
  -- Counts alone: who may see how the fleet is need not read the inventory.
  security definer
  set search_path = pg_catalog, pg_temp
as $$
  with lease as (
    select lease_until <= clock_timestamp() as has_ended, lease_approved_at is not null as is_approved, protected
    from arcadia.cloud_provisioned where lease_until is not null and released_at is null and lease_expired_at is null
    union all
    select lease_until <= clock_timestamp(), lease_approved_at is not null, false from arcadia.provision_leases where lease_expired_at is null
  ), counted as (
    select count(*) filter (where has_ended and not is_approved and not protected)::int as ended, count(*)::int as leased,
           count(*) filter (where has_ended and protected)::int as ended_protected
    from lease
  )
  select ended, leased, ended > 20 and ended * 5 > leased, ended_protected from counted
$$;

-- Renews the lease of a droplet in the caller's transaction: it ends no sooner than `ttl` from now, unless its limit says so.
-- A renewal never shortens a lease. Returns when it ends. Audited.
--
-- Errors: SG400 malformed; SG404 no such droplet is on record as provisioned here, or it is gone; SG409 its lease expired, or it
-- has none; SG423 a saga destroys it. DETAIL is a code: lease_expired, lease_absent, lease_limit, droplet_unknown,
-- droplet_being_destroyed.
create function arcadia.renew_lease(droplet_id bigint, ttl interval, requested_by text default null)
  returns timestamptz
  language plpgsql
  security definer
  set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
  wanted text := renew_lease.droplet_id::text;
  lease record;
  found_in text;
  busy record;
  ends timestamptz;
begin
  if renew_lease.droplet_id is null or renew_lease.ttl is null or renew_lease.ttl < interval '1 second' or renew_lease.ttl > interval '366 days' or length(renew_lease.requested_by) > 255 then
    raise exception using errcode = 'SG400', message = 'expected a droplet_id, a ttl from 1 second to 366 days, and requested_by of at most 255 characters';
  end if;
  -- An expiry locks the same row: whoever has it first wins. Between the two looks the lease may move from one table to the other.
  for look in 1..3 loop
    select p.saga_id, p.lease_until, p.lease_limit, p.lease_generation, p.lease_expired_at, p.lease_saga_id, p.released_at, r.deleted_at into lease
    from arcadia.cloud_provisioned p join arcadia.cloud_resources r on r.id = p.resource_id
    where r.provider = 'digitalocean' and r.kind = 'droplet' and r.provider_id = wanted
    for no key update of p;
    if found then
      found_in := 'cloud_provisioned';
      exit;
    end if;
    select l.saga_id, l.lease_until, l.lease_limit, l.lease_generation, l.lease_expired_at, null::uuid as lease_saga_id, null::timestamptz as released_at, null::timestamptz as deleted_at into lease
    from arcadia.sagas s join arcadia.provision_leases l on l.saga_id = s.id
    where coalesce(s.context->>'droplet_id', s.input->>'droplet_id') = wanted
    for no key update of l;
    if found then
      found_in := 'provision_leases';
      exit;
    end if;
  end loop;
  if found_in is null or lease.released_at is not null or lease.deleted_at is not null then
    raise exception using errcode = 'SG404', detail = 'droplet_unknown',
      message = case when found_in is null then format('no droplet %s is on record as provisioned here', wanted) else format('droplet %s is gone', wanted) end;
  end if;
  if lease.lease_expired_at is not null then
    raise exception using errcode = 'SG409', detail = 'lease_expired',
      message = format('the lease of droplet %s expired at %s, so the droplet is destroyed%s', wanted, to_char(lease.lease_expired_at at time zone 'utc', 'YYYY-MM-DD"T"HH24:MI:SS"Z"'),
        coalesce(format(' by saga %s', coalesce(lease.lease_saga_id, case when found_in = 'provision_leases' then lease.saga_id end)), ''));
  end if;
  select s.id, s.status into busy from arcadia.sagas s
  where coalesce(s.context->>'droplet_id', s.input->>'droplet_id') = wanted
    and case when 'destroy_droplet' = any(s.steps)
      -- A deletion that DigitalOcean has accepted may still come, whatever became of its saga.
      then s.status in ('pending', 'running', 'compensating', 'stuck') or s.context ? ('deletion_accepted_at_' || wanted)
      else s.id = lease.saga_id and (s.status in ('compensating', 'compensated') or (s.status = 'stuck' and s.error->>'direction' is distinct from 'forward')) end
  limit 1;
  if busy.id is not null then
    raise exception using errcode = 'SG423', detail = 'droplet_being_destroyed', message = format('droplet %s is being destroyed by saga %s, so its lease cannot be renewed', wanted, busy.id);
  end if;
  if lease.lease_until is null then
    raise exception using errcode = 'SG409', detail = 'lease_absent', message = format('droplet %s has no lease, so there is nothing to renew: it lives until somebody destroys it', wanted);
  end if;
  ends := least(greatest(lease.lease_until, clock_timestamp() + renew_lease.ttl), lease.lease_limit);
  if ends <= clock_timestamp() then
    raise exception using errcode = 'SG409', detail = 'lease_limit',
      message = format('the lease of droplet %s reached its limit at %s, so it cannot be renewed', wanted, to_char(lease.lease_limit at time zone 'utc', 'YYYY-MM-DD"T"HH24:MI:SS"Z"'));
  end if;
  if ends = lease.lease_until then
    return ends;
  end if;
  if found_in = 'cloud_provisioned' then
    update arcadia.cloud_provisioned p set lease_until = ends, lease_generation = lease.lease_generation + 1, lease_approved_at = null, lease_approved_by = null where p.saga_id = lease.saga_id
      and p.resource_id = (select r.id from arcadia.cloud_resources r where r.provider = 'digitalocean' and r.kind = 'droplet' and r.provider_id = wanted);
  else
    update arcadia.provision_leases l set lease_until = ends, lease_generation = lease.lease_generation + 1, lease_approved_at = null, lease_approved_by = null where l.saga_id = lease.saga_id;
  end if;
  insert into arcadia.lease_events (droplet_id, saga_id, generation, type, lease_until)
  values (renew_lease.droplet_id, lease.saga_id, lease.lease_generation + 1, 'lease.renewed', ends);
  insert into arcadia.audit (actor, action, saga_id, detail)
  values (coalesce(renew_lease.requested_by, 'sql:' || session_user), 'lease_renewed', lease.saga_id, jsonb_build_object('droplet_id', renew_lease.droplet_id, 'lease_until', ends));
  return ends;
end;
$$;

comment on function arcadia.renew_lease is
  'Renews the lease of a droplet in the caller''s transaction and returns when it ends. Errors: SG400 malformed, SG404 unknown droplet, SG409 its lease expired or it has none, SG423 it is being destroyed.';
revoke all on function arcadia.renew_lease from public;

-- The leases of droplets that these sagas provisioned, as far as they live. Clients that see sagas need not read the inventory.
create function arcadia.leases_of_sagas(saga_ids uuid[])
  returns table (saga_id uuid, lease_until timestamptz, lease_limit timestamptz, expired_at timestamptz)
  language sql
  stable
  security definer
  set search_path = pg_catalog, pg_temp
as $$
  select p.saga_id, p.lease_until, p.lease_limit, p.lease_expired_at from arcadia.cloud_provisioned p
  where p.saga_id = any(saga_ids) and p.lease_until is not null and p.released_at is null
  union all
  select l.saga_id, l.lease_until, l.lease_limit, l.lease_expired_at from arcadia.provision_leases l where l.saga_id = any(saga_ids)
$$;

revoke all on function arcadia.leases_of_sagas from public;
