-- Bursts of creates leave room for the requests that go before creates, as many as came lately suggest. As in
-- src/do/budget-redis.ts. The draw keeps its parameters, so that workers of the version before follow the rule, too.
alter table arcadia.drawn_requests
  add column is_first boolean not null default false;

-- How many requests a window grants in bursts, with those that go before creates.
create function arcadia.budget_burst_room(p_creates int, p_paced int, p_firsts int, p_recent_firsts int, p_recently interval, p_window interval)
returns int language sql immutable set search_path = pg_catalog, pg_temp as $$
  select greatest(0, p_creates - p_paced - greatest(0, least(p_paced,
    ceil(p_recent_firsts * extract(epoch from p_window) / extract(epoch from p_recently))::int - p_firsts)))
$$;

-- When the request at a place is granted by both windows.
create function arcadia.budget_slot_at(
  p_budget text,
  p_used_minute int, p_minute_others int, p_minute_bursts int, p_minute_limit int, p_minute_creates int, p_minute_most int, p_minute_paced int, p_minute interval, p_paced_at timestamptz, p_minute_ends timestamptz,
  p_used_hour int, p_hour_others int, p_hour_bursts int, p_hour_limit int, p_hour_creates int, p_hour_most int, p_hour_paced int, p_hour interval, p_hour_paced_at timestamptz, p_hour_ends timestamptz,
  p_place int, p_now timestamptz
)
returns timestamptz language sql stable set search_path = pg_catalog, pg_temp as $$
  select greatest(
    arcadia.budget_free_after(p_budget, 'all', p_used_minute, p_minute_limit, p_minute, p_place, p_now),
    arcadia.budget_free_after(p_budget, 'others', p_minute_others, p_minute_creates, p_minute, p_place, p_now),
    arcadia.budget_free_after(p_budget, 'all', p_used_hour, p_hour_limit, p_hour, p_place, p_now),
    arcadia.budget_free_after(p_budget, 'others', p_hour_others, p_hour_creates, p_hour, p_place, p_now),
    least(arcadia.budget_paced_at(p_budget, 'minute_bursts', p_minute_bursts, p_minute_most + p_minute_paced, p_minute_paced, p_minute, p_paced_at, p_place, p_now), p_minute_ends),
    least(arcadia.budget_paced_at(p_budget, 'hour_bursts', p_hour_bursts, p_hour_most + p_hour_paced, p_hour_paced, p_hour, p_hour_paced_at, p_place, p_now), p_hour_ends))
$$;

-- The draw of a request, or its forecast, which changes nothing. A request without a requester waits for no turn.
create or replace function arcadia.draw_turn(
  p_budget text, p_per_minute int, p_per_hour int, p_keep_minute int, p_keep_hour int, p_reads_minute int, p_reads_hour int,
  p_is_read boolean, p_requester text, p_own text, p_weight double precision, p_is_forecast boolean,
  p_margin interval, p_soonest interval, p_grace interval, p_ask_again interval, p_gather interval,
  p_paced_minute double precision, p_paced_hour double precision,
  out wait_ms double precision, out again_ms double precision, out used_minute int, out used_hour int, out others int, out serial bigint
) language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
  budget arcadia.request_budgets;
  gone record;
  t timestamptz;
  left_share double precision;
  minute interval := interval '1 minute' + p_margin;
  hour interval := interval '1 hour' + p_margin;
  minute_limit int;
  hour_limit int;
  hour_room int;
  minute_creates int;
  hour_creates int;
  minute_paced int;
  hour_paced int;
  minute_others int;
  hour_others int;
  minute_bursts int;
  hour_bursts int;
  -- How many of the requests that go before creates were drawn, and how many bursts may hold, which leave room for those to come.
  minute_firsts int;
  hour_firsts int;
  recent_firsts int;
  recently constant interval := interval '20 minutes';
  minute_most int;
  hour_most int;
  waiting int;
  is_back boolean;
  is_entered boolean;
  rank int := 0;
  due int;
  ahead int;
  room timestamptz;
  minute_ends timestamptz;
  hour_ends timestamptz;
  -- Of the places that are looked at: with the pace of the minute, and without it where all that wait have room.
  kept timestamptz;
begin
  if p_is_forecast then
    select * into budget from arcadia.request_budgets where id = p_budget;
    if not found then
      wait_ms := 0;
      return;
    end if;
    t := clock_timestamp();
  else
    insert into arcadia.request_budgets (id) values (p_budget) on conflict do nothing;
    -- One draw at a time; what follows sees what those before it drew.
    select * into budget from arcadia.request_budgets where id = p_budget for update;
    t := clock_timestamp();
    delete from arcadia.drawn_requests where drawn_requests.budget = p_budget and drawn_at <= t - hour;
    -- The web draws without turns, and has no right to change these.
    if p_requester is not null then
      for gone in select requester, own from arcadia.request_waiters where request_waiters.budget = p_budget and due_at < t - p_grace order by due_at limit 500 loop
        budget.virtual_time := arcadia.budget_leave(p_budget, gone.requester, gone.own, 1, false, budget.virtual_time);
      end loop;
    end if;
  end if;
  left_share := case when budget.told_at = '-infinity' then 0
                     else greatest(0, 1 - extract(epoch from t - budget.told_at) / 3600) end;
  others := ceil(budget.foreign_use * left_share);
  hour_limit := p_per_hour - p_keep_hour;
  if left_share > 0 and budget.their_limit is not null then
    hour_limit := least(hour_limit, budget.their_limit - others - p_keep_hour);
  end if;
  hour_room := hour_limit;
  hour_limit := greatest(1, hour_limit);
  minute_limit := greatest(1, floor(p_per_minute * arcadia.budget_share(budget, t))::int - p_keep_minute);
  select count(*) filter (where drawn_at > t - minute), count(*),
    count(*) filter (where drawn_at > t - minute and not is_read), count(*) filter (where not is_read),
    count(*) filter (where drawn_at > t - minute and not is_read and not is_minute_paced), count(*) filter (where not is_read and not is_hour_paced),
    count(*) filter (where drawn_at > t - minute and is_first), count(*) filter (where is_first), count(*) filter (where drawn_at > t - recently and is_first)
  into used_minute, used_hour, minute_others, hour_others, minute_bursts, hour_bursts, minute_firsts, hour_firsts, recent_firsts
  from arcadia.drawn_requests where drawn_requests.budget = p_budget and drawn_at > t - hour;
  serial := 0;
  again_ms := 0;

  if p_requester is null then
    select greatest(
      arcadia.budget_window_at(p_budget, p_is_read, is_queue, minute_limit, p_reads_minute, minute, '{}', t),
      arcadia.budget_window_at(p_budget, p_is_read, is_queue, hour_limit, p_reads_hour, hour, '{}', t)
    ) into room from (select exists (select from arcadia.request_waiters where request_waiters.budget = p_budget and due_at >= t - p_grace) as is_queue) as waiters;
    if budget.held_until > t or room > t then
      wait_ms := ceil(greatest(extract(epoch from greatest(room, budget.held_until, t) - t), extract(epoch from p_soonest)) * 1000);
      wait_ms := arcadia.budget_bounded(wait_ms, budget, others, t);
      again_ms := wait_ms;
    else
      wait_ms := 0;
    end if;
  else
    minute_creates := greatest(1, minute_limit - p_reads_minute);
    hour_creates := greatest(1, hour_limit - p_reads_hour);
    minute_paced := ceil(minute_creates * p_paced_minute);
    hour_paced := ceil(hour_creates * p_paced_hour);
    minute_most := arcadia.budget_burst_room(minute_creates, minute_paced, minute_firsts, recent_firsts, recently, minute);
    hour_most := arcadia.budget_burst_room(hour_creates, hour_paced, hour_firsts, recent_firsts, recently, hour);
    select count(*) into waiting from arcadia.request_turns where request_turns.budget = p_budget;
    is_back := exists (select from arcadia.request_waiters where request_waiters.budget = p_budget and requester = p_requester and own = p_own);
    is_entered := is_back;
    -- Where nobody waits, no place is taken for a request that is granted at once.
    if not is_back and waiting > 0 then
      if p_is_forecast then
        select count(*) into rank from arcadia.request_turns
        where request_turns.budget = p_budget and starts <= arcadia.budget_next_start(p_budget, p_requester, p_weight, budget.virtual_time);
      else
        perform arcadia.budget_enter(p_budget, p_requester, p_own, p_weight, budget.virtual_time);
        is_entered := true;
      end if;
    end if;
    if is_entered then rank := arcadia.budget_rank(p_budget, p_requester, p_own); end if;
    if not is_back then waiting := waiting + 1; end if;
    -- Who does not come within the next seconds takes no room from this one.
    select count(*) into due from arcadia.request_waiters
    where request_waiters.budget = p_budget and due_at <= t + p_grace and not (requester = p_requester and own = p_own);
    ahead := least(rank, due);
    -- By then all that wait have room: nobody is held back.
    minute_ends := greatest(
      arcadia.budget_free_after(p_budget, 'all', used_minute, minute_limit, minute, waiting - 1, t),
      arcadia.budget_free_after(p_budget, 'others', minute_others, minute_limit - p_reads_minute, minute, waiting - 1, t));
    hour_ends := greatest(
      arcadia.budget_free_after(p_budget, 'all', used_hour, hour_limit, hour, waiting - 1, t),
      arcadia.budget_free_after(p_budget, 'others', hour_others, hour_limit - p_reads_hour, hour, waiting - 1, t));

    -- The place after those ahead.
    kept := arcadia.budget_paced_at(p_budget, 'minute_bursts', minute_bursts, minute_most + minute_paced, minute_paced, minute, budget.paced_at, ahead, t);
    room := greatest(
      arcadia.budget_free_after(p_budget, 'all', used_minute, minute_limit, minute, ahead, t),
      arcadia.budget_free_after(p_budget, 'others', minute_others, minute_limit - p_reads_minute, minute, ahead, t),
      arcadia.budget_free_after(p_budget, 'all', used_hour, hour_limit, hour, ahead, t),
      arcadia.budget_free_after(p_budget, 'others', hour_others, hour_limit - p_reads_hour, hour, ahead, t),
      least(arcadia.budget_paced_at(p_budget, 'hour_bursts', hour_bursts, hour_most + hour_paced, hour_paced, hour, budget.hour_paced_at, ahead, t), hour_ends));
    -- Of those that ask for the first time, nobody knows yet how many more come.
    if budget.held_until <= t and greatest(room, case when is_back then least(kept, minute_ends) else kept end) <= t then
      wait_ms := 0;
    else
      wait_ms := ceil(arcadia.budget_bounded_turn(greatest(1, 1000 * extract(epoch from greatest(
        arcadia.budget_slot_at(p_budget, used_minute, minute_others, minute_bursts, minute_limit, minute_creates, minute_most, minute_paced, minute, budget.paced_at, minute_ends,
          used_hour, hour_others, hour_bursts, hour_limit, hour_creates, hour_most, hour_paced, hour, budget.hour_paced_at, hour_ends, rank, t),
        case when budget.held_until > t then budget.held_until + rank * interval '1 minute' / minute_limit end) - t)), budget, others,
        rank + 1 + greatest(0, greatest(used_hour, hour_others + p_reads_hour) - hour_room), p_ask_again, t));
      again_ms := least(wait_ms, greatest(1000 * extract(epoch from p_ask_again), wait_ms / 2));
      if budget.held_until <= t then
        select count(*) into due from arcadia.request_waiters
        where request_waiters.budget = p_budget and due_at <= t and not (requester = p_requester and own = p_own);
        -- There is room, but it belongs to those that are about to come, or are gone.
        if again_ms > 1000 * extract(epoch from p_grace)
          and arcadia.budget_slot_at(p_budget, used_minute, minute_others, minute_bursts, minute_limit, minute_creates, minute_most, minute_paced, minute, budget.paced_at, minute_ends,
            used_hour, hour_others, hour_bursts, hour_limit, hour_creates, hour_most, hour_paced, hour, budget.hour_paced_at, hour_ends, greatest(0, rank - due), t) <= t then
          again_ms := 1000 * extract(epoch from p_grace);
        end if;
        -- Only the pace holds it back, as far as is known.
        if not is_back and greatest(room, least(kept, minute_ends)) <= t then again_ms := 1000 * extract(epoch from p_gather); end if;
      end if;
      again_ms := ceil(again_ms);
    end if;
  end if;

  if p_is_forecast then return; end if;
  if wait_ms = 0 then
    insert into arcadia.drawn_requests (budget, drawn_at, is_read, is_first, is_minute_paced, is_hour_paced)
    values (p_budget, t, p_is_read,
      -- It waits for no turn, and leaves no part to higher priorities.
      p_requester is null and not p_is_read and p_keep_hour = 0,
      p_requester is not null and coalesce(minute_most - minute_bursts <= ahead, false),
      p_requester is not null and coalesce(hour_most - hour_bursts <= ahead, false))
    returning drawn_requests.serial into serial;
    used_minute := used_minute + 1;
    used_hour := used_hour + 1;
    if p_requester is not null then
      if is_entered then budget.virtual_time := arcadia.budget_leave(p_budget, p_requester, p_own, p_weight, true, budget.virtual_time); end if;
      if minute_most - minute_bursts <= ahead then budget.paced_at := t; end if;
      if hour_most - hour_bursts <= ahead then budget.hour_paced_at := t; end if;
    end if;
  elsif p_requester is not null then
    if not is_entered then perform arcadia.budget_enter(p_budget, p_requester, p_own, p_weight, budget.virtual_time); end if;
    update arcadia.request_waiters set due_at = t + again_ms * interval '1 millisecond'
    where request_waiters.budget = p_budget and requester = p_requester and own = p_own;
  end if;
  update arcadia.request_budgets set virtual_time = budget.virtual_time, paced_at = budget.paced_at, hour_paced_at = budget.hour_paced_at
  where id = p_budget and (virtual_time, paced_at, hour_paced_at) is distinct from (budget.virtual_time, budget.paced_at, budget.hour_paced_at);
end $$;
