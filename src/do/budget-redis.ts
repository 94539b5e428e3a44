// The fleet's request budget in Redis: one entry per request of the last hour, so both windows roll exactly. Each
// operation is one script, which Redis runs atomically and by its own clock.

import { z } from 'zod';
import type { RedisScript, RunRedisScript } from '../platform/redis-script.ts';
import type { BudgetAnswer, BudgetAsk, BudgetForecast, BudgetStore, Turn } from './budget-store.ts';
import { ARRIVAL_MARGIN_MS, ASK_AGAIN_MS, FIRSTS_OVER_MS, GATHER_MS, PACED_HOUR, PACED_MINUTE, SOONEST_MS, TURN_GRACE_MS } from './budget-store.ts';

// KEYS: drawn (sorted set, by time), state (hash), then the drawn requests split into two sets: reads, others. Then those of
// the others that no pace held back, by the minute and by the hour: bursts, hourBursts. Then the requests that wait: due
// (sorted set, by when they ask again), line (sorted set, in the order of each requester), turns (sorted set of the places
// of the requesters, by virtual start), places (hash: the first and the last place of each requester), finishes (sorted set
// of requesters that were served ahead and wait no longer, by virtual time). Then firsts: those of the others that go before
// creates.
//
// A version before this one shares drawn, state, reads and others, and keeps its own queue in another set.
const now = `
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local drawn, state, reads, others, bursts, hourBursts = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6]
local due, line, turns, places, finishes, firsts = KEYS[7], KEYS[8], KEYS[9], KEYS[10], KEYS[11], KEYS[12]
local function read(field) return tonumber(redis.call('HGET', state, field) or '0') end
local function count(set, since) return redis.call('ZCOUNT', set, '(' .. since, '+inf') end
`;

// The share of the minute limit that applies after a 429: half of the previous share, growing by a tenth each minute.
const share = `
local function share()
  local cutAt = read('cutAt')
  if cutAt == 0 then return 1 end
  return math.min(1, read('share') + 0.1 * (now - cutAt) / 60000)
end
`;

// The turns: as in turns.ts. A member of line and due is the requester (16 characters), a colon and the request's own place.
const turns = `
local function requesterOf(member) return string.sub(member, 1, 16) end
local function placesOf(requester)
  local found = redis.call('HGET', places, requester)
  if not found then return nil end
  local first, last = string.match(found, '^(%d+):(%d+)$')
  return tonumber(first), tonumber(last)
end
local function placeOf(requester, place) return requester .. ':' .. string.format('%d', place) end
local function startOf(requester, place) return tonumber(redis.call('ZSCORE', turns, placeOf(requester, place)) or '0') end
local function newStartOf(requester)
  return math.max(read('virtualTime'), tonumber(redis.call('ZSCORE', finishes, requester) or '0'))
end
local function enter(member, weight)
  local requester = requesterOf(member)
  local first, last = placesOf(requester)
  local start
  if first then start = startOf(requester, last) + 1 / weight else first, last, start = 0, -1, newStartOf(requester) end
  redis.call('ZADD', turns, start, placeOf(requester, last + 1))
  redis.call('HSET', places, requester, string.format('%d:%d', first, last + 1))
  redis.call('ZADD', line, 0, member)
  redis.call('ZREM', finishes, requester)
end
local function leave(member, weight, isServed)
  redis.call('ZREM', due, member)
  if redis.call('ZREM', line, member) == 0 then return end
  local requester = requesterOf(member)
  local first, last = placesOf(requester)
  local given = isServed and first or last
  local start = startOf(requester, given)
  redis.call('ZREM', turns, placeOf(requester, given))
  local virtualTime = read('virtualTime')
  if isServed then
    virtualTime = math.max(virtualTime, start)
    first = first + 1
  else
    last = last - 1
  end
  if first <= last then
    redis.call('HSET', places, requester, string.format('%d:%d', first, last))
  else
    redis.call('HDEL', places, requester)
    redis.call('ZADD', finishes, isServed and start + 1 / weight or start, requester)
  end
  -- Once nobody waits, nobody is ahead of anybody.
  if redis.call('ZCARD', line) == 0 then
    virtualTime = math.max(virtualTime, tonumber(redis.call('ZRANGE', finishes, -1, -1, 'WITHSCORES')[2] or '0'))
  end
  redis.call('ZREMRANGEBYSCORE', finishes, '-inf', virtualTime)
  redis.call('HSET', state, 'virtualTime', virtualTime)
end
local function ownPlaceOf(member) return redis.call('ZLEXCOUNT', line, '[' .. requesterOf(member) .. ':', '(' .. member) end
local function rankOf(member)
  local requester = requesterOf(member)
  local first = placesOf(requester)
  return redis.call('ZRANK', turns, placeOf(requester, first + ownPlaceOf(member)))
end
`;

// ARGV: perMinute, perHour, keepMinute, keepHour, readsMinute, readsHour, is a read, member (empty: it waits for no turn),
// weight, is a forecast (which changes nothing), margin, soonest, grace, ask again, gather, paced part of a minute, of an hour,
// the time over which firsts are counted.
const draw: RedisScript = {
  name: 'budget.draw',
  lua: `${now}${share}${turns}
local perMinute, perHour, keepMinute, keepHour = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local readsMinute, readsHour, isRead, member, weight = tonumber(ARGV[5]), tonumber(ARGV[6]), ARGV[7] == '1', ARGV[8], tonumber(ARGV[9])
local isForecast, margin, soonest = ARGV[10] == '1', tonumber(ARGV[11]), tonumber(ARGV[12])
local grace, askAgain, gather, pacedMinute, pacedHour = tonumber(ARGV[13]), tonumber(ARGV[14]), tonumber(ARGV[15]), tonumber(ARGV[16]), tonumber(ARGV[17])
local firstsOver = tonumber(ARGV[18])
local minute, hour = 60000 + margin, 3600000 + margin
if not isForecast then
  for _, set in ipairs({drawn, reads, others, hourBursts, firsts}) do redis.call('ZREMRANGEBYSCORE', set, '-inf', now - hour) end
  redis.call('ZREMRANGEBYSCORE', bursts, '-inf', now - minute)
  -- Their weights are not known, and do not matter: they were not served.
  for _, gone in ipairs(redis.call('ZRANGEBYSCORE', due, '-inf', '(' .. now - grace, 'LIMIT', 0, 500)) do leave(gone, 1, false) end
end
local usedHour = count(drawn, now - hour)
local usedMinute = count(drawn, now - minute)
-- What others used leaves the hour with time, too.
local left = math.max(0, 1 - (now - read('toldAt')) / 3600000)
local foreign = math.ceil(read('foreign') * left)
local theirLimit = left > 0 and read('theirLimit') or 0
local hourLimit = perHour - keepHour
if theirLimit > 0 then hourLimit = math.min(hourLimit, theirLimit - foreign - keepHour) end
local hourRoom = hourLimit
hourLimit = math.max(1, hourLimit)
local minuteLimit = math.max(1, math.floor(perMinute * share()) - keepMinute)
local waiting = redis.call('ZCARD', line)
-- When a window has room for one more of the set after so many others. Each leaves the window after its length, and those
-- ahead take its place.
local function freeAt(set, limit, window, ahead)
  local size = math.max(1, limit)
  local used = count(set, now - window)
  local free = math.max(0, size - used)
  local place, rounds = ahead % size, math.floor(ahead / size)
  if place < free then return now + rounds * window end
  local index = redis.call('ZCARD', set) - math.min(used, size) + place - free
  return tonumber(redis.call('ZRANGE', set, index, index, 'WITHSCORES')[2] or now) + window * (1 + rounds)
end
-- Reads count for their share at least, where others ask; and ask for room within their share, or, where nobody waits,
-- beside that of others. A fifth of the share is for a fifth of the minute: a look after another, not all at once.
local function windowAt(limit, share, window, ahead)
  local at = freeAt(drawn, limit, window, ahead)
  if not isRead then return math.max(at, freeAt(others, limit - share, window, ahead)) end
  local within = math.max(at, freeAt(reads, share, window, ahead))
  if window == minute then within = math.max(within, freeAt(reads, math.ceil(share / 5), window / 5, ahead)) end
  if waiting > 0 then return within end
  return math.min(within, freeAt(drawn, limit - share, window, ahead))
end
local heldUntil = read('heldUntil')
local function answer(wait, again, serial) return {wait, again, usedMinute, usedHour, foreign, serial} end
local function grant(isMinutePaced, isHourPaced)
  if isForecast then return answer(0, 0, 0) end
  local serial = redis.call('HINCRBY', state, 'serial', 1)
  local sets = {drawn, isRead and reads or others}
  if not isRead and not isMinutePaced then sets[#sets + 1] = bursts end
  if not isRead and not isHourPaced then sets[#sets + 1] = hourBursts end
  -- It goes before creates: it waits for no turn, and leaves no part to higher priorities.
  if not isRead and member == '' and keepHour == 0 then sets[#sets + 1] = firsts end
  for _, set in ipairs(sets) do
    redis.call('ZADD', set, now, serial)
    redis.call('PEXPIRE', set, hour)
  end
  if isMinutePaced then redis.call('HSET', state, 'pacedAt', now) end
  if isHourPaced then redis.call('HSET', state, 'hourPacedAt', now) end
  redis.call('PEXPIRE', state, 2 * hour)
  usedHour, usedMinute = usedHour + 1, usedMinute + 1
  return answer(0, 0, serial)
end
-- Nobody knows when the requests of others leave the window; and after a 429 the limit grows back meanwhile.
local function bounded(wait)
  if foreign > 0 or share() < 1 then return math.min(wait, math.max(60000, heldUntil - now)) end
  return wait
end
-- The same for a turn: when it may come at the earliest. Many wait, so those far back do not ask every minute.
local function boundedTurn(wait, rank)
  local held = math.max(0, heldUntil - now)
  local earliest = held + (wait - held) * share()
  if foreign > 0 then
    local lacking = rank + 1 + math.max(0, math.max(usedHour, count(others, now - hour) + readsHour) - hourRoom)
    earliest = math.min(earliest, math.max(held, lacking / foreign * left * 3600000))
  end
  return math.min(wait, math.max(askAgain, earliest))
end
if member == '' then
  local at = math.max(windowAt(minuteLimit, readsMinute, minute, 0), windowAt(hourLimit, readsHour, hour, 0), heldUntil)
  if at <= now then return grant(false, false) end
  local wait = math.ceil(bounded(math.max(at - now, soonest)))
  return answer(wait, wait, 0)
end
local isBack = redis.call('ZSCORE', line, member) ~= false
local isEntered = isBack
local rank = 0
-- Where nobody waits, no place is taken for a request that is granted at once.
if not isBack and waiting > 0 then
  if isForecast then
    local requester = requesterOf(member)
    local first, last = placesOf(requester)
    rank = redis.call('ZCOUNT', turns, '-inf', first and startOf(requester, last) + 1 / weight or newStartOf(requester))
  else
    enter(member, weight)
    isEntered = true
  end
end
if isEntered then rank = rankOf(member) end
if not isBack then waiting = waiting + 1 end
local dueAt = tonumber(redis.call('ZSCORE', due, member) or '+inf')
local function countDue(untilAt) return redis.call('ZCOUNT', due, '-inf', untilAt) - (dueAt <= untilAt and 1 or 0) end
-- Who does not come within the next seconds takes no room from this one.
local ahead = math.min(rank, countDue(now + grace))
local function paceOf(isMinute)
  local limit, share, window, set, part, field = hourLimit, readsHour, hour, hourBursts, pacedHour, 'hourPacedAt'
  if isMinute then limit, share, window, set, part, field = minuteLimit, readsMinute, minute, bursts, pacedMinute, 'pacedAt' end
  local creates = math.max(1, limit - share)
  local paced = math.ceil(creates * part)
  local gap = window / paced
  local nextPaced = math.max(now, read(field) + gap)
  -- Bursts leave room for the firsts that are still to come, as many as came lately suggest.
  local toCome = math.ceil(count(firsts, now - firstsOver) * window / firstsOver) - count(firsts, now - window)
  local most = math.max(0, creates - paced - math.max(0, math.min(toCome, paced)))
  local function burstAt(index) return most == 0 and math.huge or freeAt(set, most, window, index) end
  -- How many of the first place + 1 are paced: the least number after which the next paced one would come no sooner than the
  -- last burst.
  local function at(place)
    local low, high = 0, place + 1
    while low < high do
      local middle = math.floor((low + high) / 2)
      if burstAt(place - middle) <= nextPaced + middle * gap then high = middle else low = middle + 1 end
    end
    return math.max(low > 0 and nextPaced + (low - 1) * gap or 0, low <= place and burstAt(place - low) or 0)
  end
  local function roomAt(place) return windowAt(limit, share, window, place) end
  -- By endsAt all that wait have room: nobody is held back.
  return {at = at, roomAt = roomAt, endsAt = roomAt(waiting - 1), freeBursts = most - count(set, now - window)}
end
local ofMinute, ofHour = paceOf(true), paceOf(false)
local function slotAt(place, isPaceKept)
  local minuteAt, hourAt = ofMinute.at(place), math.min(ofHour.at(place), ofHour.endsAt)
  if not isPaceKept then minuteAt = math.min(minuteAt, ofMinute.endsAt) end
  return math.max(ofMinute.roomAt(place), minuteAt, ofHour.roomAt(place), hourAt)
end
-- Of those that ask for the first time, nobody knows yet how many more come.
if heldUntil <= now and slotAt(ahead, not isBack) <= now then
  if isEntered and not isForecast then leave(member, weight, true) end
  return grant(ofMinute.freeBursts <= ahead, ofHour.freeBursts <= ahead)
end
local at = slotAt(rank, false)
if heldUntil > now then at = math.max(at, heldUntil + rank * 60000 / minuteLimit) end
local wait = math.ceil(boundedTurn(math.max(at - now, 1), rank))
local again = math.min(wait, math.max(askAgain, wait / 2))
if heldUntil <= now then
  -- There is room, but it belongs to those that are about to come, or are gone.
  if slotAt(0, false) <= now and slotAt(math.max(0, rank - countDue(now)), false) <= now then again = math.min(again, grace) end
  -- Only the pace holds it back, as far as is known.
  if not isBack and slotAt(ahead, false) <= now then again = gather end
end
again = math.ceil(again)
if not isForecast then
  if not isEntered then enter(member, weight) end
  redis.call('ZADD', due, now + again, member)
  for _, key in ipairs({due, line, turns, places, finishes}) do redis.call('PEXPIRE', key, 2 * hour + again) end
  redis.call('PEXPIRE', state, 2 * hour + again)
end
return answer(wait, again, 0)`,
};

// ARGV: member.
const withdraw: RedisScript = {
  name: 'budget.withdraw',
  lua: `${now}${turns}
leave(ARGV[1], 1, false)
return 1`,
};

// ARGV: serial.
const late: RedisScript = {
  name: 'budget.late',
  lua: `${now}
for _, set in ipairs({drawn, reads, others, bursts, hourBursts, firsts}) do redis.call('ZADD', set, 'XX', now, ARGV[1]) end
return 1`,
};

// ARGV: forMs. Several 429s within a second count as one, because their requests were in flight together.
const hold: RedisScript = {
  name: 'budget.hold',
  lua: `${now}${share}
redis.call('HSET', state, 'heldUntil', math.max(read('heldUntil'), now + ARGV[1]))
if now - read('cutAt') > 1000 then redis.call('HSET', state, 'share', math.max(0.1, share() / 2), 'cutAt', now) end
redis.call('PEXPIRE', state, 7200000)
return 1`,
};

// ARGV: limit, remaining.
const correct: RedisScript = {
  name: 'budget.correct',
  lua: `${now}
local foreign = math.max(0, ARGV[1] - ARGV[2] - count(drawn, now - 3600000))
redis.call('HSET', state, 'foreign', foreign, 'theirLimit', ARGV[1], 'toldAt', now)
redis.call('PEXPIRE', state, 7200000)
return 1`,
};

const drawReply = z.tuple([z.number(), z.number(), z.number(), z.number(), z.number(), z.number()]);

const parts = ['drawn', 'state', 'reads', 'others', 'bursts', 'hour-bursts', 'due', 'line', 'turns', 'places', 'finishes', 'firsts'];

/** Opens the store of one budget. Its keys start with `prefix`. */
export function createRedisBudgetStore(run: RunRedisScript, prefix: string, id: string): BudgetStore & BudgetForecast {
  const keys = parts.map((part) => `${prefix}:budget:${id}:${part}`);
  const ask = async (asked: BudgetAsk, isForecast: boolean): Promise<BudgetAnswer> => {
    const { perMinute, perHour, keepMinute, keepHour, readsMinute, readsHour, isRead, turn } = asked;
    const sizes = [perMinute, perHour, keepMinute, keepHour, readsMinute, readsHour];
    const reply = await run(draw, keys, [
      ...sizes, isRead ? 1 : 0, turn === null ? '' : memberOf(turn), turn?.weight ?? 1, isForecast ? 1 : 0,
      ARRIVAL_MARGIN_MS, SOONEST_MS, TURN_GRACE_MS, ASK_AGAIN_MS, GATHER_MS, PACED_MINUTE, PACED_HOUR, FIRSTS_OVER_MS,
    ]);
    const [waitMs, againMs, usedMinute, usedHour, foreign, serial] = drawReply.parse(reply);
    return { waitMs, againMs, usedMinute, usedHour, foreign, serial };
  };
  return {
    draw: (asked) => ask(asked, false),
    forecast: async (asked) => (await ask(asked, true)).waitMs,
    withdraw: async (turn) => void (await run(withdraw, keys, [memberOf(turn)])),
    late: async (serial) => void (await run(late, keys, [serial])),
    hold: async (forMs) => void (await run(hold, keys, [Math.ceil(forMs)])),
    correct: async (limit, remaining) => void (await run(correct, keys, [limit, remaining])),
  };
}

function memberOf({ requester, own }: Turn): string {
  return `${requester}:${own}`;
}
