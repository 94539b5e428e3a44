-- Sagas that one transaction starts begin one after the other: with one time for all, their order was that of their ids, and
-- Postgres 18 took the index of recent sagas for a short way to any id, which grows with each saga that starts later.
alter table arcadia.sagas
  alter column created_at set default clock_timestamp(),
  alter column updated_at set default clock_timestamp(),
  alter column step_started_at set default clock_timestamp();
