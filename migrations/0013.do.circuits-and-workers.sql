-- What holds the fleet, and who is in it. A circuit is open while DigitalOcean refuses something for one cause: what needs
-- it waits, and one request at a time probes. Workers show that they live.
create table arcadia.circuits (
  -- Of this opening: a circuit that opens again gets another id.
  id            uuid not null unique default gen_random_uuid(),
  -- Fingerprint of the token: another token is another matter.
  scope         text not null,
  cause         text not null,
  kind          text not null,
  -- The request that is refused, such as POST /v2/droplets, and the optional fields that it used. Null: whatever is asked.
  request       text,
  fields        text[] not null default '{}',
  -- While only one has been refused (a droplet's name, or its path), the circuit holds that one alone. Null: it holds all.
  subject       text,
  detail        jsonb not null default '{}',
  opened_at     timestamptz not null default clock_timestamp(),
  closed_at     timestamptz,
  delay_ms      double precision not null,
  probes        int not null default 0,
  -- How often it was opened again right after a probe had closed it.
  relapses      int not null default 0,
  next_probe_at timestamptz not null,
  leased_by     uuid,
  leased_until  timestamptz not null default '-infinity',
  -- Until then, somebody is waking a saga that is to probe.
  waking_until  timestamptz not null default '-infinity',
  primary key (scope, cause)
);

-- Sagas that wait for a circuit to close, at the revision at which they do. Whoever closes it wakes them.
create table arcadia.held_sagas (
  saga_id  uuid primary key,
  revision int not null,
  circuit  uuid not null,
  held_at  timestamptz not null default clock_timestamp()
);
create index held_sagas_by_circuit on arcadia.held_sagas (circuit);

-- Each worker renews its row every few seconds and deletes it when it ends; rows of the dead are removed by the others.
create table arcadia.workers (
  id              uuid primary key,
  -- As in the events that it writes.
  name            text not null,
  host            text not null,
  pid             int not null,
  version         text not null,
  node_version    text not null,
  started_at      timestamptz not null default clock_timestamp(),
  last_seen_at    timestamptz not null default clock_timestamp(),
  concurrency     int not null,
  jobs            int not null default 0,
  -- Fingerprint of its token, as in circuits.
  scope           text,
  -- Until then, it was told, the request budget has no room.
  throttled_until timestamptz
) with (fillfactor = 50);
