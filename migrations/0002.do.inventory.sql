-- The inventory: what there is (cloud_resources), and what was asked for (cloud_provisioned, the baseline of drift).
create table arcadia.cloud_resources (
  id            uuid primary key default gen_random_uuid(),
  provider      text not null,
  provider_id   text not null,
  kind          text not null,
  name          text not null,
  region        text,
  status        text not null,
  size_slug     text,
  tags          text[] not null default '{}',
  attrs         jsonb not null default '{}',
  first_seen_at timestamptz not null default now(),
  last_seen_at  timestamptz not null default now(),
  deleted_at    timestamptz,
  unique (provider, kind, provider_id)
);

create table arcadia.cloud_provisioned (
  id             uuid primary key default gen_random_uuid(),
  resource_id    uuid not null unique references arcadia.cloud_resources,
  spec           jsonb not null,
  provisioned_by text not null,
  -- No foreign key: the row outlives the retention of its saga.
  saga_id        uuid not null,
  created_at     timestamptz not null default now(),
  -- Set when a destroy_droplet saga took it down: nothing is desired any more, and its absence is no drift.
  released_at    timestamptz
);

create index cloud_provisioned_by_saga on arcadia.cloud_provisioned (saga_id);
