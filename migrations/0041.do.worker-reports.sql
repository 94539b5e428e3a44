-- What a worker knows and cannot do, as it renews its row: so that somebody is told of sagas that no worker runs, of workers
-- whose reconciler fails, and of a provider that does not answer. Null in rows of older versions, which do not tell.
alter table arcadia.workers
  add column steps text[],
  -- Since when each of its passes has failed; null: the last one succeeded.
  add column reconciler_failing_since timestamptz,
  -- Since when no request of it was answered, or only with an error of the server; null: the last one was answered.
  add column provider_failing_since timestamptz,
  add column provider_answered_at timestamptz;
