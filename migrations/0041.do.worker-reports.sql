-- What a worker knows and cannot do, as it renews its row: so that somebody is told of sagas that no worker runs, and of
-- workers whose reconciler fails. Null in rows of older versions, which do not tell.
alter table arcadia.workers
  add column steps text[],
  -- Since when each of its passes has failed; null: the last one succeeded.
  add column reconciler_failing_since timestamptz;
