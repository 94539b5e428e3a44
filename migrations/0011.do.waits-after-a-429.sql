-- After a 429 the limit of a minute grows back: who was told to wait by what it was then would come back far too late.
create or replace function arcadia.draw_request(
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
    if others > 0 or arcadia.budget_share(budget, t) < 1 then wait_ms := least(wait_ms, greatest(60000, extract(epoch from budget.held_until - t) * 1000)); end if;
    update arcadia.request_budgets set promised = budget.promised || (t + wait_ms * interval '1 millisecond') where id = p_budget;
  else
    wait_ms := 0;
    insert into arcadia.drawn_requests values (p_budget, t);
  end if;
  select count(*) filter (where drawn_at > t - minute), count(*) into used_minute, used_hour
  from arcadia.drawn_requests where drawn_requests.budget = p_budget;
end $$;
