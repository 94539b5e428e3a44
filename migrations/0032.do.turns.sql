-- Requests that wait for the budget take turns over their requesters. The rules are those of the script for Redis
-- (src/do/budget-redis.ts), which this follows line by line; src/do/budget-local.ts and src/do/turns.ts say them in words.
-- What a worker of the version before calls stays as it is beside these: the functions of the same names take other
-- parameters.
alter table arcadia.request_budgets
  add column virtual_time double precision not null default 0,
  add column paced_at timestamptz not null default '-infinity',
  add column hour_paced_at timestamptz not null default '-infinity';

-- Whether the request took one of those that are granted evenly over the minute, or the hour.
alter table arcadia.drawn_requests
  add column is_minute_paced boolean not null default false,
  add column is_hour_paced boolean not null default false;

create unlogged table arcadia.request_waiters (
  budget text not null,
  requester text not null,
  -- Its place among those of its requester.
  own text collate "C" not null,
  -- When it asks again.
  due_at timestamptz not null,
  primary key (budget, requester, own)
);
create index request_waiters_by_time on arcadia.request_waiters (budget, due_at);

-- The places of the requesters that wait, as many as each has requests.
create unlogged table arcadia.request_turns (
  budget text not null,
  requester text collate "C" not null,
  place bigint not null,
  starts double precision not null,
  primary key (budget, requester, place)
);
create index request_turns_in_order on arcadia.request_turns (budget, starts, requester);

-- Requesters that were served ahead, and do not wait any more.
create unlogged table arcadia.request_finishes (
  budget text not null,
  requester text not null,
  finish double precision not null,
  primary key (budget, requester)
);

-- The virtual start of a requester's next place.
create function arcadia.budget_next_start(p_budget text, p_requester text, p_weight double precision, p_virtual_time double precision)
returns double precision language sql stable set search_path = pg_catalog, pg_temp as $$
  select coalesce(
    (select starts + 1 / p_weight from arcadia.request_turns where budget = p_budget and requester = p_requester order by place desc limit 1),
    greatest(p_virtual_time, (select finish from arcadia.request_finishes where budget = p_budget and requester = p_requester)))
$$;

create function arcadia.budget_enter(p_budget text, p_requester text, p_own text, p_weight double precision, p_virtual_time double precision)
returns void language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
  insert into arcadia.request_turns (budget, requester, place, starts)
  select p_budget, p_requester,
    coalesce((select max(place) + 1 from arcadia.request_turns where budget = p_budget and requester = p_requester), 0),
    arcadia.budget_next_start(p_budget, p_requester, p_weight, p_virtual_time);
  insert into arcadia.request_waiters (budget, requester, own, due_at) values (p_budget, p_requester, p_own, 'infinity');
  delete from arcadia.request_finishes where budget = p_budget and requester = p_requester;
end $$;

-- Gives up the place of a request. Returns the virtual time then.
create function arcadia.budget_leave(p_budget text, p_requester text, p_own text, p_weight double precision, p_is_served boolean, p_virtual_time double precision)
returns double precision language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
  virtual_now double precision := p_virtual_time;
  given double precision;
begin
  delete from arcadia.request_waiters where budget = p_budget and requester = p_requester and own = p_own;
  if not found then return virtual_now; end if;
  -- A request that was not served gives its requester's last place back.
  delete from arcadia.request_turns as turn
  where turn.budget = p_budget and turn.requester = p_requester and turn.place = (
    select case when p_is_served then min(place) else max(place) end from arcadia.request_turns where budget = p_budget and requester = p_requester)
  returning turn.starts into given;
  if p_is_served then virtual_now := greatest(virtual_now, given); end if;
  if not exists (select from arcadia.request_turns where budget = p_budget and requester = p_requester) then
    insert into arcadia.request_finishes (budget, requester, finish)
    values (p_budget, p_requester, case when p_is_served then given + 1 / p_weight else given end);
  end if;
  -- Once nobody waits, nobody is ahead of anybody.
  if not exists (select from arcadia.request_turns where budget = p_budget) then
    virtual_now := greatest(virtual_now, (select max(finish) from arcadia.request_finishes where budget = p_budget));
  end if;
  delete from arcadia.request_finishes where budget = p_budget and finish <= virtual_now;
  return virtual_now;
end $$;

-- Gives up the place of a request that will not ask again.
create function arcadia.withdraw_request(p_budget text, p_requester text, p_own text)
returns void language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
  before double precision;
begin
  select virtual_time into before from arcadia.request_budgets where id = p_budget for update;
  if not found then return; end if;
  update arcadia.request_budgets set virtual_time = arcadia.budget_leave(p_budget, p_requester, p_own, 1, false, before) where id = p_budget;
end $$;

-- The number of requests whose turns come before this one, which waits.
create function arcadia.budget_rank(p_budget text, p_requester text, p_own text)
returns int language sql stable set search_path = pg_catalog, pg_temp as $$
  with mine as (
    select starts from arcadia.request_turns
    where budget = p_budget and requester = p_requester
    order by place
    offset (select count(*) from arcadia.request_waiters where budget = p_budget and requester = p_requester and own < p_own collate "C") limit 1
  )
  select count(*)::int from arcadia.request_turns, mine
  where budget = p_budget and (request_turns.starts, requester) < (mine.starts, p_requester collate "C")
$$;

-- When a window has room for one more of these (all, reads, others, minute_bursts, hour_bursts) after so many others. Each
-- leaves the window after its length, and those ahead take its place.
create function arcadia.budget_free_after(p_budget text, p_kind text, p_used int, p_limit int, p_window interval, p_ahead int, p_now timestamptz)
returns timestamptz language plpgsql stable set search_path = pg_catalog, pg_temp as $$
declare
  size int := greatest(1, p_limit);
  free int := greatest(0, size - p_used);
  place int := p_ahead % size;
  rounds int := p_ahead / size;
  entry timestamptz;
begin
  if place < free then return p_now + rounds * p_window; end if;
  select drawn_at into entry from arcadia.drawn_requests
  where budget = p_budget and drawn_at > p_now - p_window
    and (p_kind = 'all' or is_read = (p_kind = 'reads'))
    and not (p_kind = 'minute_bursts' and is_minute_paced) and not (p_kind = 'hour_bursts' and is_hour_paced)
  order by drawn_at, serial offset greatest(0, p_used - size) + place - free limit 1;
  return coalesce(entry, p_now) + p_window * (1 + rounds);
end $$;

-- When a window grants the request at a place, if it grants in bursts and, besides, one after each gap.
create function arcadia.budget_paced_at(p_budget text, p_kind text, p_used int, p_creates int, p_paced int, p_window interval, p_paced_at timestamptz, p_place int, p_now timestamptz)
returns timestamptz language plpgsql stable set search_path = pg_catalog, pg_temp as $$
declare
  gap interval := p_window / p_paced;
  next_paced timestamptz := greatest(p_now, p_paced_at + p_window / p_paced);
  low int := 0;
  high int := p_place + 1;
  middle int;
begin
  if p_creates = p_paced then return next_paced + p_place * gap; end if;
  -- All of them go in the burst.
  if p_creates - p_paced - p_used > p_place then return p_now; end if;
  -- How many of the first place + 1 are paced: the least number after which the next paced one would come no sooner than
  -- the last burst.
  while low < high loop
    middle := (low + high) / 2;
    if arcadia.budget_free_after(p_budget, p_kind, p_used, p_creates - p_paced, p_window, p_place - middle, p_now) <= next_paced + middle * gap then
      high := middle;
    else
      low := middle + 1;
    end if;
  end loop;
  return greatest(
    case when low > 0 then next_paced + (low - 1) * gap end,
    case when low <= p_place then arcadia.budget_free_after(p_budget, p_kind, p_used, p_creates - p_paced, p_window, p_place - low, p_now) end);
end $$;

-- The draw of a request, or its forecast, which changes nothing. A request without a requester waits for no turn.
create function arcadia.draw_turn(
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
  minute_creates int;
  hour_creates int;
  minute_paced int;
  hour_paced int;
  minute_others int;
  hour_others int;
  minute_bursts int;
  hour_bursts int;
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
  hour_limit := greatest(1, hour_limit);
  minute_limit := greatest(1, floor(p_per_minute * arcadia.budget_share(budget, t))::int - p_keep_minute);
  select count(*) filter (where drawn_at > t - minute), count(*),
    count(*) filter (where drawn_at > t - minute and not is_read), count(*) filter (where not is_read),
    count(*) filter (where drawn_at > t - minute and not is_read and not is_minute_paced), count(*) filter (where not is_read and not is_hour_paced)
  into used_minute, used_hour, minute_others, hour_others, minute_bursts, hour_bursts
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
    kept := arcadia.budget_paced_at(p_budget, 'minute_bursts', minute_bursts, minute_creates, minute_paced, minute, budget.paced_at, ahead, t);
    room := greatest(
      arcadia.budget_free_after(p_budget, 'all', used_minute, minute_limit, minute, ahead, t),
      arcadia.budget_free_after(p_budget, 'others', minute_others, minute_limit - p_reads_minute, minute, ahead, t),
      arcadia.budget_free_after(p_budget, 'all', used_hour, hour_limit, hour, ahead, t),
      arcadia.budget_free_after(p_budget, 'others', hour_others, hour_limit - p_reads_hour, hour, ahead, t),
      least(arcadia.budget_paced_at(p_budget, 'hour_bursts', hour_bursts, hour_creates, hour_paced, hour, budget.hour_paced_at, ahead, t), hour_ends));
    -- Of those that ask for the first time, nobody knows yet how many more come.
    if budget.held_until <= t and greatest(room, case when is_back then least(kept, minute_ends) else kept end) <= t then
      wait_ms := 0;
    else
      wait_ms := ceil(arcadia.budget_bounded(greatest(1, 1000 * extract(epoch from greatest(
        arcadia.budget_slot_at(p_budget, used_minute, minute_others, minute_bursts, minute_limit, minute_creates, minute_paced, minute, budget.paced_at, minute_ends,
          used_hour, hour_others, hour_bursts, hour_limit, hour_creates, hour_paced, hour, budget.hour_paced_at, hour_ends, rank, t),
        case when budget.held_until > t then budget.held_until + rank * interval '1 minute' / minute_limit end) - t)), budget, others, t));
      again_ms := least(wait_ms, greatest(1000 * extract(epoch from p_ask_again), wait_ms / 2));
      if budget.held_until <= t then
        select count(*) into due from arcadia.request_waiters
        where request_waiters.budget = p_budget and due_at <= t and not (requester = p_requester and own = p_own);
        -- There is room, but it belongs to those that are about to come, or are gone.
        if again_ms > 1000 * extract(epoch from p_grace)
          and arcadia.budget_slot_at(p_budget, used_minute, minute_others, minute_bursts, minute_limit, minute_creates, minute_paced, minute, budget.paced_at, minute_ends,
            used_hour, hour_others, hour_bursts, hour_limit, hour_creates, hour_paced, hour, budget.hour_paced_at, hour_ends, greatest(0, rank - due), t) <= t then
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
    insert into arcadia.drawn_requests (budget, drawn_at, is_read, is_minute_paced, is_hour_paced)
    values (p_budget, t, p_is_read,
      p_requester is not null and coalesce(minute_creates - minute_paced - minute_bursts <= ahead, false),
      p_requester is not null and coalesce(hour_creates - hour_paced - hour_bursts <= ahead, false))
    returning drawn_requests.serial into serial;
    used_minute := used_minute + 1;
    used_hour := used_hour + 1;
    if p_requester is not null then
      if is_entered then budget.virtual_time := arcadia.budget_leave(p_budget, p_requester, p_own, p_weight, true, budget.virtual_time); end if;
      if minute_creates - minute_paced - minute_bursts <= ahead then budget.paced_at := t; end if;
      if hour_creates - hour_paced - hour_bursts <= ahead then budget.hour_paced_at := t; end if;
    end if;
  elsif p_requester is not null then
    if not is_entered then perform arcadia.budget_enter(p_budget, p_requester, p_own, p_weight, budget.virtual_time); end if;
    update arcadia.request_waiters set due_at = t + again_ms * interval '1 millisecond'
    where request_waiters.budget = p_budget and requester = p_requester and own = p_own;
  end if;
  update arcadia.request_budgets set virtual_time = budget.virtual_time, paced_at = budget.paced_at, hour_paced_at = budget.hour_paced_at
  where id = p_budget and (virtual_time, paced_at, hour_paced_at) is distinct from (budget.virtual_time, budget.paced_at, budget.hour_paced_at);
end $$;

-- Nobody knows when the requests of others leave the window; and after a 429 the limit grows back meanwhile.
create function arcadia.budget_bounded(p_wait_ms double precision, p_budget arcadia.request_budgets, p_others int, p_now timestamptz)
returns double precision language sql immutable set search_path = pg_catalog, pg_temp as $$
  select case when p_others > 0 or arcadia.budget_share(p_budget, p_now) < 1
    then least(p_wait_ms, case when p_budget.held_until > p_now then greatest(60000, extract(epoch from p_budget.held_until - p_now) * 1000) else 60000 end)
    else p_wait_ms end
$$;

-- When the request at a place is granted by both windows.
create function arcadia.budget_slot_at(
  p_budget text,
  p_used_minute int, p_minute_others int, p_minute_bursts int, p_minute_limit int, p_minute_creates int, p_minute_paced int, p_minute interval, p_paced_at timestamptz, p_minute_ends timestamptz,
  p_used_hour int, p_hour_others int, p_hour_bursts int, p_hour_limit int, p_hour_creates int, p_hour_paced int, p_hour interval, p_hour_paced_at timestamptz, p_hour_ends timestamptz,
  p_place int, p_now timestamptz
)
returns timestamptz language sql stable set search_path = pg_catalog, pg_temp as $$
  select greatest(
    arcadia.budget_free_after(p_budget, 'all', p_used_minute, p_minute_limit, p_minute, p_place, p_now),
    arcadia.budget_free_after(p_budget, 'others', p_minute_others, p_minute_creates, p_minute, p_place, p_now),
    arcadia.budget_free_after(p_budget, 'all', p_used_hour, p_hour_limit, p_hour, p_place, p_now),
    arcadia.budget_free_after(p_budget, 'others', p_hour_others, p_hour_creates, p_hour, p_place, p_now),
    least(arcadia.budget_paced_at(p_budget, 'minute_bursts', p_minute_bursts, p_minute_creates, p_minute_paced, p_minute, p_paced_at, p_place, p_now), p_minute_ends),
    least(arcadia.budget_paced_at(p_budget, 'hour_bursts', p_hour_bursts, p_hour_creates, p_hour_paced, p_hour, p_hour_paced_at, p_place, p_now), p_hour_ends))
$$;
