-- What versions that run side by side, as in a deploy, need to know of each other and of what another has left.
-- The names of the sagas that a worker knows, so that somebody is told of sagas that no worker can start. Null in rows of older
-- versions, which do not tell.
alter table arcadia.workers add column sagas text[];

-- A digest of the schema of the input, so that a worker sees that a request may be meant for another version. Null: it cannot be
-- computed, or an older version wrote the row.
alter table arcadia.saga_definitions
  add column input_digest text,
  -- When `migrate` last changed the row; null: before it wrote this down.
  add column changed_at timestamptz;

-- The resource that another saga took while this one was stuck. Once resumed, it takes the same one again, whatever its definition
-- says by then.
alter table arcadia.sagas add column former_resource text;
