-- Where each worker has its queues, so that somebody is told of processes that have them elsewhere. No host and no secret. Null in
-- rows of older versions, which do not tell.
alter table arcadia.workers
  -- redis or postgres.
  add column queue_store text,
  -- Only of Redis.
  add column queue_prefix text;
