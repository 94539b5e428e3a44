-- Callbacks of creates that were sent while an earlier create of the same saga might have made a droplet too. Each such create has
-- a token of its own, so that the report of the droplet that is kept can be told from that of another. The first create's token
-- stays in ready_callbacks.
create table arcadia.resent_callbacks (
  saga_id     uuid not null references arcadia.sagas (id) on delete cascade,
  -- How many creates before it might have made a droplet.
  number      int not null check (number > 0),
  key_id      text not null,
  token_hash  bytea not null,
  created_at  timestamptz not null default clock_timestamp(),
  -- Set once: a token is for one answer.
  answered_at timestamptz,
  answer      text check (answer in ('ok', 'failed')),
  log         text,
  primary key (saga_id, number)
);
