-- The sagas whose step has run on a worker for long, so that somebody is told of a step that never returns. Null in rows of older
-- versions, which do not tell.
alter table arcadia.workers
  add column long_runs uuid[],
  -- The step of each.
  add column long_run_steps text[],
  -- Since when the longest of them has run; null: there is none.
  add column long_run_since timestamptz;
