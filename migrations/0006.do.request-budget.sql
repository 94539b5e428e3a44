-- Where there is no Redis: the fleet's account of requests to DigitalOcean, and what its workers saw of droplets.
-- All of it may be lost at any moment, so the tables are unlogged: cheap to write, empty after a crash of Postgres.

create unlogged table arcadia.request_budgets (
  id text primary key,
  -- After a 429.
  held_until timestamptz not null default '-infinity',
  share double precision not null default 1,
  cut_at timestamptz not null default '-infinity',
  -- What DigitalOcean last said of the hour: its limit, and how many requests were not ours.
  their_limit int,
  foreign_use int not null default 0,
  told_at timestamptz not null default '-infinity',
  -- When those who were sent away were told to come back.
  promised timestamptz[] not null default '{}'
);

create unlogged table arcadia.drawn_requests (
  budget text not null,
  drawn_at timestamptz not null
);
create index drawn_requests_by_time on arcadia.drawn_requests (budget, drawn_at);

-- When a window has room for one more, and for those who were promised room before: as in the script for Redis
-- (src/do/budget-redis.ts), which this follows line by line.
create function arcadia.budget_free_at(p_budget text, p_window interval, p_limit int, p_ahead int, p_now timestamptz)
returns timestamptz language plpgsql stable as $$
declare
  used int;
  need int;
  entry timestamptz;
begin
  select count(*) into used from arcadia.drawn_requests where budget = p_budget and drawn_at > p_now - p_window;
  need := used - p_limit + 1 + p_ahead;
  if need <= 0 or used = 0 then return p_now; end if;
  select drawn_at into entry from arcadia.drawn_requests
  where budget = p_budget and drawn_at > p_now - p_window
  order by drawn_at offset (need - 1) % used limit 1;
  return entry + p_window * (1 + (need - 1) / used);
end $$;

create function arcadia.draw_request(
  p_budget text, p_per_minute int, p_per_hour int, p_keep_minute int, p_keep_hour int, p_margin interval,
  out wait_ms double precision, out used_minute int, out used_hour int, out others int
) language plpgsql as $$
declare
  budget arcadia.request_budgets;
  t timestamptz;
  left_share double precision;
  minute interval := interval '1 minute' + p_margin;
  hour interval := interval '1 hour' + p_margin;
  minute_limit int;
  hour_limit int;
  ahead int;
  room timestamptz;
begin
  insert into arcadia.request_budgets (id) values (p_budget) on conflict do nothing;
  -- One draw at a time; what follows sees what those before it drew.
  select * into budget from arcadia.request_budgets where id = p_budget for update;
  t := clock_timestamp();
  delete from arcadia.drawn_requests where drawn_requests.budget = p_budget and drawn_at <= t - hour;
  left_share := case when budget.told_at = '-infinity' then 0
                     else greatest(0, 1 - extract(epoch from t - budget.told_at) / 3600) end;
  others := ceil(budget.foreign_use * left_share);
  hour_limit := p_per_hour - p_keep_hour;
  if left_share > 0 and budget.their_limit is not null then
    hour_limit := least(hour_limit, budget.their_limit - others - p_keep_hour);
  end if;
  hour_limit := greatest(1, hour_limit);
  minute_limit := greatest(1, floor(p_per_minute * arcadia.budget_share(budget, t))::int - p_keep_minute);
  room := greatest(
    arcadia.budget_free_at(p_budget, minute, minute_limit, 0, t),
    arcadia.budget_free_at(p_budget, hour, hour_limit, 0, t)
  );
  if budget.held_until > t or room > t then
    budget.promised := array(select at from unnest(budget.promised) as at where at > t);
    ahead := cardinality(budget.promised);
    room := greatest(
      arcadia.budget_free_at(p_budget, minute, minute_limit, ahead, t),
      arcadia.budget_free_at(p_budget, hour, hour_limit, ahead, t),
      case when budget.held_until > t then budget.held_until + ahead * interval '1 minute' / minute_limit end,
      t + interval '1 millisecond'
    );
    wait_ms := ceil(extract(epoch from room - t) * 1000);
    if others > 0 then wait_ms := least(wait_ms, greatest(60000, extract(epoch from budget.held_until - t) * 1000)); end if;
    update arcadia.request_budgets set promised = budget.promised || (t + wait_ms * interval '1 millisecond') where id = p_budget;
  else
    wait_ms := 0;
    insert into arcadia.drawn_requests values (p_budget, t);
  end if;
  select count(*) filter (where drawn_at > t - minute), count(*) into used_minute, used_hour
  from arcadia.drawn_requests where drawn_requests.budget = p_budget;
end $$;

-- The limit of a minute after a 429: half of what it was taken for, and a tenth more each minute.
create function arcadia.budget_share(budget arcadia.request_budgets, t timestamptz)
returns double precision language sql immutable as $$
  select case when budget.cut_at = '-infinity' then 1
              else least(1, budget.share + 0.1 * extract(epoch from t - budget.cut_at) / 60) end
$$;

create unlogged table arcadia.droplet_observations (
  scope text not null,
  droplet_id bigint not null,
  observed_at timestamptz not null,
  droplet jsonb not null,
  primary key (scope, droplet_id)
);
create index droplet_observations_by_age on arcadia.droplet_observations (observed_at);

create unlogged table arcadia.droplet_waves (
  scope text not null,
  wave text not null,
  pages int not null default 1,
  -- Droplets of the wave that were not active yet.
  in_flight int not null default 0,
  listed_at timestamptz not null default '-infinity',
  leased_by text,
  leased_until timestamptz not null default '-infinity',
  primary key (scope, wave)
);
