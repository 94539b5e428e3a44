-- What keeps the inventory right: syncs, drift, orphans, and what is remembered of sagas that are gone.

-- One row a sync, so that there is one at a time in the whole fleet, and so that everybody knows when the next is due.
create table arcadia.inventory_syncs (
  number       int primary key,
  -- In milliseconds, as everything else that is compared with it.
  started_at   timestamptz not null default date_trunc('milliseconds', clock_timestamp()),
  finished_at  timestamptz,
  outcome      text check (outcome in ('complete', 'failed', 'interrupted', 'abandoned')),
  -- Whoever runs it says so again and again; past this moment it is abandoned.
  lease_until  timestamptz not null,
  worker       text not null,
  -- Null: it was due.
  requested_by text,
  summary      jsonb not null default '{}',
  error        text
);

create unique index inventory_syncs_one_at_once on arcadia.inventory_syncs ((true)) where finished_at is null;

-- Complete syncs in a row that did not show it.
alter table arcadia.cloud_resources add column absences int not null default 0;
-- {id, slug} of what it was made from, as the last sync saw it.
alter table arcadia.cloud_resources add column image jsonb;

create table arcadia.cloud_drift (
  -- Small, for people to type.
  id            bigint generated always as identity primary key,
  resource_id   uuid not null references arcadia.cloud_resources on delete cascade,
  field         text not null,
  desired       text not null,
  actual        text not null,
  first_seen_at timestamptz not null default clock_timestamp(),
  last_seen_at  timestamptz not null default clock_timestamp(),
  resolved_at   timestamptz,
  resolution    text check (resolution in ('put_back', 'accepted', 'released'))
);

create unique index cloud_drift_open on arcadia.cloud_drift (resource_id, field) where resolved_at is null;

create table arcadia.cloud_orphans (
  id                 bigint generated always as identity primary key,
  resource_id        uuid not null references arcadia.cloud_resources on delete cascade,
  -- surplus: ours by full id, and too many. unknown: reported, never touched.
  category           text not null check (category in ('surplus', 'unknown')),
  reason             text not null,
  -- No foreign key: it may be another environment's, and outlives the retention of our own.
  saga_id            uuid,
  price_usd_per_hour double precision,
  created_at         timestamptz not null,
  -- When the saga that it is too many of came to its end.
  ended_at           timestamptz,
  first_seen_at      timestamptz not null default clock_timestamp(),
  last_seen_at       timestamptz not null default clock_timestamp(),
  first_sync         int not null,
  last_sync          int not null,
  -- A person said that it may be destroyed although there are many.
  approved_at        timestamptz,
  approved_by        text,
  destroy_sent_at    timestamptz,
  resolved_at        timestamptz,
  resolution         text check (resolution in ('destroyed', 'gone', 'explained'))
);

create unique index cloud_orphans_open on arcadia.cloud_orphans (resource_id) where resolved_at is null;

-- What must be known of a saga for ever: a droplet of its may show up long after its row is gone.
create table arcadia.saga_tombstones (
  saga_id      uuid primary key,
  name         text not null,
  status       text not null,
  droplet_id   text,
  droplet_name text,
  created_at   timestamptz not null,
  finished_at  timestamptz,
  deleted_at   timestamptz not null default clock_timestamp()
);

create index saga_tombstones_by_droplet on arcadia.saga_tombstones (droplet_id);

create function arcadia.bury_saga() returns trigger language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
  insert into arcadia.saga_tombstones (saga_id, name, status, droplet_id, droplet_name, created_at, finished_at)
  values (old.id, old.name, old.status, old.context->>'droplet_id', old.input->>'name', old.created_at, old.finished_at)
  on conflict do nothing;
  return old;
end;
$$;

-- Whoever deletes a saga, retention or a person, need not remember to do this.
create trigger bury_saga before delete on arcadia.sagas for each row execute function arcadia.bury_saga();
