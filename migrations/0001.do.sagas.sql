-- The sagas and their events: the truth from which every job can be made again.
create table arcadia.sagas (
  id                  uuid primary key,
  -- The first 8 characters of the id stand in the droplets' tags: unique, so that no saga can take another's droplet.
  saga8               text not null unique check (saga8 = left(id::text, 8)),
  name                text not null,
  status              text not null check (status in ('pending', 'running', 'completed', 'compensating', 'compensated', 'stuck')),
  -- Stored with the saga, so that a deploy that changes the catalogue leaves sagas under way as they were.
  steps               text[] not null check (cardinality(steps) > 0),
  cursor              int not null default 0 check (cursor between 0 and cardinality(steps) - 1),
  -- The fencing token: goes up by one with each transition; a job or a worker that holds an older one is late.
  revision            int not null default 0,
  -- Failed attempts of the current step in the current direction.
  attempt             int not null default 0,
  input               jsonb not null,
  context             jsonb not null default '{}',
  -- Counters of the current step's waits, saved now and then; lost without harm.
  memo                jsonb not null default '{}',
  error               jsonb,
  idempotency_key     text unique,
  requested_by        text,
  cancel_requested_at timestamptz,
  step_started_at     timestamptz not null default now(),
  -- By when something must have happened; the reconciler takes sagas that are overdue. Null once finished or stuck.
  wake_at             timestamptz default now(),
  created_at          timestamptz not null default now(),
  updated_at          timestamptz not null default now(),
  finished_at         timestamptz
);

create index sagas_due on arcadia.sagas (wake_at) where status in ('pending', 'running', 'compensating');
create index sagas_recent on arcadia.sagas (created_at desc, id);
create index sagas_by_status on arcadia.sagas (status, created_at desc);

create table arcadia.saga_events (
  saga_id       uuid not null references arcadia.sagas on delete cascade,
  -- The saga's revision after the transition that this event tells of: gapless from 0.
  seq           int not null,
  at            timestamptz not null default clock_timestamp(),
  kind          text not null,
  step          text,
  attempt       int,
  detail        jsonb not null default '{}',
  worker        text,
  -- Names one attempt to write this event, so that a writer whose reply was lost can tell its own from another's.
  transition_id uuid not null default gen_random_uuid(),
  primary key (saga_id, seq)
);
