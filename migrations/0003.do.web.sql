-- What the web process adds: who asked for what (the audit), and the indexes that its searches use.
create table arcadia.audit (
  id      bigint generated always as identity primary key,
  at      timestamptz not null default clock_timestamp(),
  -- Who: cli:<user>, http:<name of the credentials>, or what another backend gave as requestedBy.
  actor   text not null,
  -- What: the kind of the event that it caused, or dashboard:<method> for a change made to the queues themselves.
  action  text not null,
  -- No foreign key: the audit outlives the retention of the saga. Null where no one saga is concerned.
  saga_id uuid,
  detail  jsonb not null default '{}'
);

create index audit_by_saga on arcadia.audit (saga_id, id) where saga_id is not null;

create index sagas_by_name on arcadia.sagas (name, created_at desc);
create index sagas_by_droplet on arcadia.sagas ((coalesce(context->>'droplet_id', input->>'droplet_id')));
create index sagas_by_tag on arcadia.sagas using gin ((input->'tags') jsonb_path_ops);

-- Events are written in the order of time: a few pages find those of the last minutes.
create index saga_events_recent on arcadia.saga_events using brin (at);
