-- Creates queue for the request budget, and reads have a share of their own. What a worker of the version before calls stays
-- as it is beside these: the functions of the same names take other parameters.
alter table arcadia.drawn_requests add column is_read boolean not null default false;
alter table arcadia.drawn_requests add column serial bigint generated always as identity primary key;

-- When a window has room for one more of these (reads, others, null: all): as soon as the one that is so many before it
-- leaves. Before it are those that were drawn, and those who were promised room: as in the script for Redis
-- (src/do/budget-redis.ts), which this follows line by line.
create function arcadia.budget_free_at(p_budget text, p_reads boolean, p_limit int, p_window interval, p_ahead timestamptz[], p_now timestamptz)
returns timestamptz language plpgsql stable as $$
declare
  place int;
  entry timestamptz;
begin
  select count(*) + cardinality(p_ahead) - greatest(1, p_limit) into place from arcadia.drawn_requests
  where budget = p_budget and drawn_at > p_now - p_window and (p_reads is null or is_read = p_reads);
  if place < 0 then return p_now; end if;
  select at into entry from (
    select drawn_at as at from arcadia.drawn_requests
    where budget = p_budget and drawn_at > p_now - p_window and (p_reads is null or is_read = p_reads)
    union all select unnest(p_ahead)
  ) as before order by at offset place limit 1;
  return entry + p_window;
end $$;

-- Reads count for their share at least, where others ask; and ask for room within their share, or, where nobody is queued,
-- beside that of others. A fifth of the share is for a fifth of the minute: a look after another, not all at once.
create function arcadia.budget_window_at(
  p_budget text, p_is_read boolean, p_is_queue boolean, p_limit int, p_share int, p_window interval, p_ahead timestamptz[], p_now timestamptz
)
returns timestamptz language plpgsql stable as $$
declare
  room timestamptz := arcadia.budget_free_at(p_budget, null, p_limit, p_window, p_ahead, p_now);
begin
  if not p_is_read then return greatest(room, arcadia.budget_free_at(p_budget, false, p_limit - p_share, p_window, p_ahead, p_now)); end if;
  room := greatest(room, arcadia.budget_free_at(p_budget, true, p_share, p_window, p_ahead, p_now));
  if p_window < interval '1 hour' then
    room := greatest(room, arcadia.budget_free_at(p_budget, true, ceil(p_share / 5.0)::int, p_window / 5, p_ahead, p_now));
  end if;
  if p_is_queue then return room; end if;
  return least(room, arcadia.budget_free_at(p_budget, null, p_limit - p_share, p_window, p_ahead, p_now));
end $$;

-- Those who were promised room go first: all of them. But where one of them came late, or too early, there is room well before
-- somebody's turn, and nobody else would come for it.
create function arcadia.budget_ahead(
  p_budget text, p_limit int, p_share int, p_minute interval, p_margin interval, p_promised timestamptz[], p_now timestamptz
)
returns timestamptz[] language plpgsql stable as $$
declare
  -- Turns come round by the minute: it shows in the turns of two minutes, or in the next one after them.
  turns timestamptz[] := p_promised[:1 + (select count(*) from unnest(p_promised) as at where at <= p_now + 2 * p_minute)];
  drawn timestamptz[];
  others timestamptz[];
  drawn_count int;
  others_count int;
  gap int;
begin
  -- As many turns within half a minute as will leave it until then: somebody comes for each.
  if (select count(*) from unnest(p_promised) as at where at <= p_now + p_minute / 2) >= (
    select count(*) from arcadia.drawn_requests
    where budget = p_budget and drawn_at > p_now - p_minute and drawn_at <= p_now - p_minute / 2 and not is_read
  ) then return p_promised; end if;
  select coalesce(array_agg(drawn_at order by drawn_at), '{}'), coalesce(array_agg(drawn_at order by drawn_at) filter (where not is_read), '{}')
  into drawn, others
  from arcadia.drawn_requests where budget = p_budget and drawn_at > p_now - p_minute;
  drawn_count := cardinality(drawn);
  others_count := cardinality(others);
  drawn := drawn || turns;
  others := others || turns;
  select min(place) into gap from generate_series(1, cardinality(turns)) as place
  where greatest(
    drawn[drawn_count + place - greatest(1, p_limit)],
    others[others_count + place - greatest(1, p_limit - p_share)],
    p_now - p_minute
  ) + p_minute + p_margin < turns[place];
  return case when gap is null then p_promised else p_promised[:gap - 1] end;
end $$;

create function arcadia.draw_request(
  p_budget text, p_per_minute int, p_per_hour int, p_keep_minute int, p_keep_hour int, p_reads_minute int, p_reads_hour int,
  p_is_read boolean, p_is_queued boolean, p_margin interval, p_soonest interval,
  out wait_ms double precision, out used_minute int, out used_hour int, out others int, out serial bigint
) language plpgsql as $$
declare
  budget arcadia.request_budgets;
  t timestamptz;
  left_share double precision;
  minute interval := interval '1 minute' + p_margin;
  hour interval := interval '1 hour' + p_margin;
  minute_limit int;
  hour_limit int;
  ahead timestamptz[];
  is_queue boolean;
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
  budget.promised := array(select at from unnest(budget.promised) as at where at > t order by at);
  is_queue := cardinality(budget.promised) > 0;
  room := greatest(
    arcadia.budget_window_at(p_budget, p_is_read, is_queue, minute_limit, p_reads_minute, minute, '{}', t),
    arcadia.budget_window_at(p_budget, p_is_read, is_queue, hour_limit, p_reads_hour, hour, '{}', t)
  );
  if budget.held_until > t or room > t then
    ahead := case when p_is_queued then arcadia.budget_ahead(p_budget, minute_limit, p_reads_minute, minute, p_margin, budget.promised, t) else '{}' end;
    if ahead <> budget.promised and arcadia.budget_window_at(p_budget, p_is_read, is_queue, hour_limit, p_reads_hour, hour, ahead, t)
      >= budget.promised[cardinality(ahead) + 1] then
      ahead := budget.promised;
    end if;
    room := greatest(
      arcadia.budget_window_at(p_budget, p_is_read, is_queue, minute_limit, p_reads_minute, minute, ahead, t),
      arcadia.budget_window_at(p_budget, p_is_read, is_queue, hour_limit, p_reads_hour, hour, ahead, t),
      case when budget.held_until > t then budget.held_until + cardinality(ahead) * interval '1 minute' / minute_limit end,
      t + case when p_is_queued then interval '1 millisecond' else p_soonest end
    );
    wait_ms := ceil(extract(epoch from room - t) * 1000);
    -- After a 429 the limit of a minute grows back: who was told to wait by what it is now would come back far too late.
    if others > 0 or arcadia.budget_share(budget, t) < 1 then wait_ms := least(wait_ms, greatest(60000, extract(epoch from budget.held_until - t) * 1000)); end if;
    if p_is_queued then
      update arcadia.request_budgets set promised = budget.promised || (t + wait_ms * interval '1 millisecond') where id = p_budget;
    end if;
  else
    wait_ms := 0;
    insert into arcadia.drawn_requests (budget, drawn_at, is_read) values (p_budget, t, p_is_read) returning drawn_requests.serial into serial;
  end if;
  select count(*) filter (where drawn_at > t - minute), count(*) into used_minute, used_hour
  from arcadia.drawn_requests where drawn_requests.budget = p_budget;
end $$;
