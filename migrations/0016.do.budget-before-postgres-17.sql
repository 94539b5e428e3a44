-- Before Postgres 17 nothing can be subtracted from -infinity, which stands for "never held": the draw of a request failed
-- there as soon as others used the token, or a 429 had come. Both versions of the function, the older for workers of a
-- version before this one; all else in them is as it was.
create or replace function arcadia.draw_request(
  p_budget text, p_per_minute int, p_per_hour int, p_keep_minute int, p_keep_hour int, p_reads_minute int, p_reads_hour int,
  p_is_read boolean, p_is_queued boolean, p_margin interval, p_soonest interval,
  out wait_ms double precision, out used_minute int, out used_hour int, out others int, out serial bigint
) language plpgsql set search_path = pg_catalog, pg_temp as $$
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
    if others > 0 or arcadia.budget_share(budget, t) < 1 then wait_ms := least(wait_ms, case when budget.held_until > t then greatest(60000, extract(epoch from budget.held_until - t) * 1000) else 60000 end); end if;
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

create or replace function arcadia.draw_request(
  p_budget text, p_per_minute int, p_per_hour int, p_keep_minute int, p_keep_hour int, p_margin interval,
  out wait_ms double precision, out used_minute int, out used_hour int, out others int
) language plpgsql set search_path = pg_catalog, pg_temp as $$
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
    if others > 0 then wait_ms := least(wait_ms, case when budget.held_until > t then greatest(60000, extract(epoch from budget.held_until - t) * 1000) else 60000 end); end if;
    update arcadia.request_budgets set promised = budget.promised || (t + wait_ms * interval '1 millisecond') where id = p_budget;
  else
    wait_ms := 0;
    insert into arcadia.drawn_requests values (p_budget, t);
  end if;
  select count(*) filter (where drawn_at > t - minute), count(*) into used_minute, used_hour
  from arcadia.drawn_requests where drawn_requests.budget = p_budget;
end $$;
