-- Requests to DigitalOcean that the workers sent, by the minute and by priority: who spends the request budget.
create table arcadia.request_counts (
  minute timestamptz not null,
  priority text not null,
  requests bigint not null,
  primary key (minute, priority)
);

-- What was left of the request budget when a worker last drew from it: one row.
create table arcadia.requests_left (
  one boolean primary key default true check (one),
  minute integer not null,
  hour integer not null,
  known_at timestamptz not null default clock_timestamp()
);
