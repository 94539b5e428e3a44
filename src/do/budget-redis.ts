// The fleet's request budget in Redis: one entry per request of the last hour, so both windows roll exactly. Each
// operation is one script, which Redis runs atomically and by its own clock.

import { z } from 'zod';
import type { RedisScript, RunRedisScript } from '../platform/redis-script.ts';
import type { BudgetAnswer, BudgetAsk, BudgetForecast, BudgetStore } from './budget-store.ts';
import { ARRIVAL_MARGIN_MS, SOONEST_MS } from './budget-store.ts';

// KEYS: drawn (sorted set, by time), state (hash), promised (sorted set, by time), then the drawn requests split into two
// sets: reads, others.
const now = `
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local drawn, state, promised, reads, others = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
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

// ARGV: perMinute, perHour, keepMinute, keepHour, readsMinute, readsHour, is a read, is queued, margin, soonest, is a forecast (which changes nothing).
const draw: RedisScript = {
  name: 'budget.draw',
  lua: `${now}${share}
local perMinute, perHour, keepMinute, keepHour = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local readsMinute, readsHour, isRead, isQueued = tonumber(ARGV[5]), tonumber(ARGV[6]), ARGV[7] == '1', ARGV[8] == '1'
local margin, soonest, isForecast = tonumber(ARGV[9]), tonumber(ARGV[10]), ARGV[11] == '1'
local minute, hour = 60000 + margin, 3600000 + margin
for _, set in ipairs({drawn, reads, others}) do redis.call('ZREMRANGEBYSCORE', set, '-inf', now - hour) end
redis.call('ZREMRANGEBYSCORE', promised, '-inf', now)
local usedHour = redis.call('ZCARD', drawn)
local usedMinute = count(drawn, now - minute)
-- What others used leaves the hour with time, too.
local left = math.max(0, 1 - (now - read('toldAt')) / 3600000)
local foreign = math.ceil(read('foreign') * left)
local theirLimit = left > 0 and read('theirLimit') or 0
local hourLimit = perHour - keepHour
if theirLimit > 0 then hourLimit = math.min(hourLimit, theirLimit - foreign - keepHour) end
hourLimit = math.max(1, hourLimit)
local minuteLimit = math.max(1, math.floor(perMinute * share()) - keepMinute)
-- When the window has room for one more of the set: as soon as the one that is so many before it leaves. Before it are those
-- that were drawn, and those who were promised room.
local function freeAt(set, limit, window, ahead)
  local used = count(set, now - window)
  local place = used + ahead - math.max(1, limit)
  if place < 0 then return now end
  if place < used then
    place = redis.call('ZCARD', set) - used + place
  else
    set, place = promised, place - used
  end
  return tonumber(redis.call('ZRANGE', set, place, place, 'WITHSCORES')[2]) + window
end
local isQueue = redis.call('ZCARD', promised) > 0
-- Reads count for their share at least, where others ask; and ask for room within their share, or, where nobody is queued,
-- beside that of others. A fifth of the share is for a fifth of the minute: a look after another, not all at once.
local function windowAt(limit, share, window, ahead)
  local at = freeAt(drawn, limit, window, ahead)
  if not isRead then return math.max(at, freeAt(others, limit - share, window, ahead)) end
  local within = math.max(at, freeAt(reads, share, window, ahead))
  if window == minute then within = math.max(within, freeAt(reads, math.ceil(share / 5), window / 5, ahead)) end
  if isQueue then return within end
  return math.min(within, freeAt(drawn, limit - share, window, ahead))
end
local function roomAt(ahead)
  return math.max(windowAt(minuteLimit, readsMinute, minute, ahead), windowAt(hourLimit, readsHour, hour, ahead))
end
-- How many of those who were promised room go first: all of them. But where one of them came late, or too early, there is
-- room well before somebody's turn, and nobody else would come for it.
local function scores(set, first, last)
  local found, list = redis.call('ZRANGE', set, first, last, 'WITHSCORES'), {}
  for i = 2, #found, 2 do list[#list + 1] = tonumber(found[i]) end
  return list
end
local function countAhead()
  -- As many turns within half a minute as will leave it until then: somebody comes for each.
  local leaving = redis.call('ZCOUNT', others, '(' .. now - minute, now - minute / 2)
  if redis.call('ZCOUNT', promised, '-inf', now + minute / 2) >= leaving then return redis.call('ZCARD', promised) end
  -- Turns come round by the minute: it shows in the turns of two minutes, or in the next one after them.
  local turns = scores(promised, 0, redis.call('ZCOUNT', promised, '-inf', now + 2 * minute))
  local function slots(set, limit)
    local used = count(set, now - minute)
    local before = used > 0 and scores(set, -used, -1) or {}
    for i = 1, #turns do before[used + i] = turns[i] end
    return function(ahead) return (before[used + ahead - math.max(1, limit) + 1] or now - minute) + minute end
  end
  local ofAll, ofOthers = slots(drawn, minuteLimit), slots(others, minuteLimit - readsMinute)
  for ahead = 0, #turns - 1 do
    if math.max(ofAll(ahead), ofOthers(ahead)) + margin < turns[ahead + 1] then
      return roomAt(ahead) < turns[ahead + 1] and ahead or redis.call('ZCARD', promised)
    end
  end
  return redis.call('ZCARD', promised)
end
local heldUntil = read('heldUntil')
local wait, serial = 0, isForecast and 0 or redis.call('HINCRBY', state, 'serial', 1)
if heldUntil > now or roomAt(0) > now then
  local ahead = isQueued and countAhead() or 0
  local at = math.max(roomAt(ahead), heldUntil + ahead * 60000 / minuteLimit, now + (isQueued and 1 or soonest))
  wait = math.ceil(at - now)
  -- Nobody knows when the requests of others leave the window; and after a 429 the limit grows back meanwhile.
  if foreign > 0 or share() < 1 then wait = math.min(wait, math.max(60000, heldUntil - now)) end
  if isQueued and not isForecast then
    redis.call('ZADD', promised, now + wait, serial)
    redis.call('PEXPIRE', promised, 2 * hour)
  end
elseif not isForecast then
  for _, set in ipairs({drawn, isRead and reads or others}) do
    redis.call('ZADD', set, now, serial)
    redis.call('PEXPIRE', set, hour)
  end
  usedHour, usedMinute = usedHour + 1, usedMinute + 1
end
redis.call('PEXPIRE', state, 2 * hour)
return {wait, usedMinute, usedHour, foreign, serial}`,
};

// ARGV: serial.
const late: RedisScript = {
  name: 'budget.late',
  lua: `${now}
for _, set in ipairs({drawn, reads, others}) do redis.call('ZADD', set, 'XX', now, ARGV[1]) end
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

const drawReply = z.tuple([z.number(), z.number(), z.number(), z.number(), z.number()]);

/** Opens the store of one budget. Its keys start with `prefix`. */
export function createRedisBudgetStore(run: RunRedisScript, prefix: string, id: string): BudgetStore & BudgetForecast {
  const keys = ['drawn', 'state', 'promised', 'reads', 'others'].map((part) => `${prefix}:budget:${id}:${part}`);
  const ask = async (asked: BudgetAsk, isForecast: boolean): Promise<BudgetAnswer> => {
    const { perMinute, perHour, keepMinute, keepHour, readsMinute, readsHour, isRead, isQueued } = asked;
    const flags = [isRead ? 1 : 0, isQueued ? 1 : 0];
    const reply = await run(draw, keys, [perMinute, perHour, keepMinute, keepHour, readsMinute, readsHour, ...flags, ARRIVAL_MARGIN_MS, SOONEST_MS, isForecast ? 1 : 0]);
    const [waitMs, usedMinute, usedHour, foreign, serial] = drawReply.parse(reply);
    return { waitMs, usedMinute, usedHour, foreign, serial };
  };
  return {
    draw: (asked) => ask(asked, false),
    forecast: async (asked) => (await ask(asked, true)).waitMs,
    late: async (serial) => void (await run(late, keys, [serial])),
    hold: async (forMs) => void (await run(hold, keys, [Math.ceil(forMs)])),
    correct: async (limit, remaining) => void (await run(correct, keys, [limit, remaining])),
  };
}
