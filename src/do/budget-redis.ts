// The fleet's account in Redis: the draws of the last hour, one entry each, so that both windows are rolling and exact.
// Each operation is one script, which Redis runs as a whole, by its own clock.

import { z } from 'zod';
import type { RedisScript, RunRedisScript } from '../redis-script.ts';
import type { BudgetStore } from './budget-store.ts';
import { ARRIVAL_MARGIN_MS } from './budget-store.ts';

// KEYS: drawn (sorted set, by time), state (hash), promised (sorted set, by time).
const now = `
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local drawn, state, promised = KEYS[1], KEYS[2], KEYS[3]
local function read(field) return tonumber(redis.call('HGET', state, field) or '0') end
local function count(since) return redis.call('ZCOUNT', drawn, '(' .. since, '+inf') end
`;

// The limit of a minute after a 429: half of what it was taken for, and a tenth more each minute.
const share = `
local function share()
  local cutAt = read('cutAt')
  if cutAt == 0 then return 1 end
  return math.min(1, read('share') + 0.1 * (now - cutAt) / 60000)
end
`;

// ARGV: perMinute, perHour, keepMinute, keepHour, margin.
const draw: RedisScript = {
  name: 'budget.draw',
  lua: `${now}${share}
local perMinute, perHour, keepMinute, keepHour, margin = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5])
local minute, hour = 60000 + margin, 3600000 + margin
redis.call('ZREMRANGEBYSCORE', drawn, '-inf', now - hour)
redis.call('ZREMRANGEBYSCORE', promised, '-inf', now)
local usedHour = redis.call('ZCARD', drawn)
local usedMinute = count(now - minute)
-- What others used leaves the hour with time, too.
local left = math.max(0, 1 - (now - read('toldAt')) / 3600000)
local foreign = math.ceil(read('foreign') * left)
local theirLimit = left > 0 and read('theirLimit') or 0
local hourLimit = perHour - keepHour
if theirLimit > 0 then hourLimit = math.min(hourLimit, theirLimit - foreign - keepHour) end
hourLimit = math.max(1, hourLimit)
local minuteLimit = math.max(1, math.floor(perMinute * share()) - keepMinute)
-- When the window has room for one more, and for those who were promised room before.
local function freeAt(first, used, limit, window, ahead)
  local need = used - limit + 1 + ahead
  if need <= 0 or used == 0 then return now end
  local place = (need - 1) % used
  local entry = redis.call('ZRANGE', drawn, first + place, first + place, 'WITHSCORES')
  return tonumber(entry[2]) + window * (1 + math.floor((need - 1) / used))
end
local function roomAt(ahead)
  return math.max(freeAt(usedHour - usedMinute, usedMinute, minuteLimit, minute, ahead), freeAt(0, usedHour, hourLimit, hour, ahead))
end
local heldUntil = read('heldUntil')
local wait = 0
if heldUntil > now or roomAt(0) > now then
  local ahead = redis.call('ZCARD', promised)
  local at = math.max(roomAt(ahead), heldUntil + ahead * 60000 / minuteLimit, now + 1)
  wait = math.ceil(at - now)
  -- Nobody knows when the requests of others leave the window; and after a 429 the limit grows back meanwhile.
  if foreign > 0 or share() < 1 then wait = math.min(wait, math.max(60000, heldUntil - now)) end
  redis.call('ZADD', promised, now + wait, redis.call('HINCRBY', state, 'serial', 1))
  redis.call('PEXPIRE', promised, wait + 1000)
else
  redis.call('ZADD', drawn, now, redis.call('HINCRBY', state, 'serial', 1))
  redis.call('PEXPIRE', drawn, hour)
  usedHour, usedMinute = usedHour + 1, usedMinute + 1
end
redis.call('PEXPIRE', state, 2 * hour)
return {wait, usedMinute, usedHour, foreign}`,
};

// ARGV: forMs. The answers to requests that were under way together count as one.
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
local foreign = math.max(0, ARGV[1] - ARGV[2] - count(now - 3600000))
redis.call('HSET', state, 'foreign', foreign, 'theirLimit', ARGV[1], 'toldAt', now)
redis.call('PEXPIRE', state, 7200000)
return 1`,
};

const drawReply = z.tuple([z.number(), z.number(), z.number(), z.number()]);

/** The account of one budget, under `prefix`. */
export function createRedisBudgetStore(run: RunRedisScript, prefix: string, id: string): BudgetStore {
  const keys = ['drawn', 'state', 'promised'].map((part) => `${prefix}:budget:${id}:${part}`);
  return {
    draw: async ({ perMinute, perHour, keepMinute, keepHour }) => {
      const reply = await run(draw, keys, [perMinute, perHour, keepMinute, keepHour, ARRIVAL_MARGIN_MS]);
      const [waitMs, usedMinute, usedHour, foreign] = drawReply.parse(reply);
      return { waitMs, usedMinute, usedHour, foreign };
    },
    hold: async (forMs) => void (await run(hold, keys, [Math.ceil(forMs)])),
    correct: async (limit, remaining) => void (await run(correct, keys, [limit, remaining])),
  };
}
