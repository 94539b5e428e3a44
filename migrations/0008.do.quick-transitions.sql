-- A transition rewrites its saga's row. Where no indexed column changes and the page has room, Postgres leaves the
-- indexes alone (a heap-only tuple, HOT): from one step to the next neither the status nor wake_at need change.
alter table arcadia.sagas set (fillfactor = 70);

-- Whether a saga is unfinished is told by wake_at alone: an index that names the status in its condition would be
-- written anew whenever the status changes.
drop index arcadia.sagas_due;
create index sagas_due on arcadia.sagas (wake_at) where wake_at is not null;
