-- Outcomes are told to callers: by webhook, in a queue, and by NOTIFY. Each is an event of a saga, or a finding, that stands
-- here already; a subscription keeps how far it has read them.
do $$
begin
  perform set_config('lock_timeout', '500ms', true);
  loop
    begin
      lock table arcadia.saga_events in access exclusive mode;
      exit;
    exception when lock_not_available or deadlock_detected then
      perform pg_sleep(0.05);
    end;
  end loop;
  perform set_config('lock_timeout', '0', true);
end $$;

-- The transaction that wrote a row. Rows become visible in another order than that of any sequence or clock; a snapshot of
-- Postgres tells, by this number, which of them were visible to it. Null: written before there were outcomes.
alter table arcadia.saga_events add column xid xid8;
alter table arcadia.saga_events alter column xid set default pg_current_xact_id();
-- The event with which a saga came to rest. Only these have an entry.
create index saga_events_ends on arcadia.saga_events (xid) where xid is not null and detail->>'status' in ('completed', 'compensated', 'stuck');

alter table arcadia.cloud_drift add column xid xid8;
alter table arcadia.cloud_drift alter column xid set default pg_current_xact_id();
create index cloud_drift_by_xid on arcadia.cloud_drift (xid);

alter table arcadia.cloud_orphans add column xid xid8;
alter table arcadia.cloud_orphans alter column xid set default pg_current_xact_id();
create index cloud_orphans_by_xid on arcadia.cloud_orphans (xid);

alter table arcadia.lease_events add column xid xid8;
alter table arcadia.lease_events alter column xid set default pg_current_xact_id();
create index lease_events_told on arcadia.lease_events (xid) where xid is not null and type in ('lease.ending', 'lease.expired');

create table arcadia.outcome_subscriptions (
  name          text primary key,
  -- Where outcomes go, for people: nothing secret.
  target        text not null,
  created_at    timestamptz not null default clock_timestamp(),
  -- When a worker that is configured for it was last seen.
  configured_at timestamptz not null default clock_timestamp(),
  -- One worker at a time reads for it.
  leased_by     uuid,
  lease_until   timestamptz not null default '-infinity',
  -- All that was visible in this snapshot has been taken over.
  seen          pg_snapshot not null default pg_current_snapshot(),
  -- While there is more than fits at once: what is visible in this snapshot is being taken over, and was up to this row.
  reading       pg_snapshot,
  read_xid      xid8,
  read_line     text,
  read_place    bigint,
  -- Failed deliveries in a row, and since when.
  failures      int not null default 0,
  failing_since timestamptz,
  last_error    text,
  -- The receiver asked to be left alone until then.
  not_before    timestamptz,
  paused_at     timestamptz,
  paused_reason text
) with (fillfactor = 50);

-- Outcomes that a subscription has taken over and not delivered yet: a bounded number of them.
create table arcadia.outcome_deliveries (
  subscription text not null references arcadia.outcome_subscriptions on delete cascade,
  -- As the receiver sees it.
  id           text not null,
  source       text not null,
  type         text not null,
  -- Outcomes of one line, such as those of one saga, are delivered one after the other, by their place.
  line         text not null,
  place        bigint not null,
  attempts     int not null default 0,
  due_at       timestamptz not null default clock_timestamp(),
  last_error   text,
  taken_at     timestamptz not null default clock_timestamp(),
  primary key (subscription, id)
);
create index outcome_deliveries_by_line on arcadia.outcome_deliveries (line, place);
create index outcome_deliveries_due on arcadia.outcome_deliveries (subscription, due_at);
