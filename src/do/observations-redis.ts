// Shared observations in Redis. Each expires by itself.

import { z } from 'zod';
import type { RedisScript, RunRedisScript } from '../platform/redis-script.ts';
import type { SharedObservations } from './observation-store.ts';
import { lookedForMs } from './observation-store.ts';

const now = `
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
`;

// KEYS: looked (sorted set of droplets by the time of their last lookup), wave (hash), lease, then one key per droplet.
// ARGV: has a wave, intervalMs, lookedForMs, leaseMs, holder, then id and maxAgeMs of each droplet.
const observeScript: RedisScript = {
  name: 'observations.look',
  lua: `${now}
local isWave, intervalMs, lookedForMs = ARGV[1] == '1', tonumber(ARGV[2]), tonumber(ARGV[3])
local found, missing = {}, 0
local strictest = intervalMs
for i = 4, #KEYS do
  local id, maxAge = ARGV[6 + 2 * (i - 4)], tonumber(ARGV[7 + 2 * (i - 4)])
  if isWave then redis.call('ZADD', KEYS[1], now, id) end
  strictest = math.min(strictest, maxAge)
  local seen = redis.call('GET', KEYS[i])
  local at = seen and tonumber(string.sub(seen, 1, 13))
  if at and at <= now and now - at <= maxAge then
    found[#found + 1] = {tonumber(id), string.sub(seen, 14)}
  else
    missing = missing + 1
  end
end
-- Always: a set that ran empty, as all were seen active, has just been made anew.
if isWave then redis.call('PEXPIRE', KEYS[1], 2 * lookedForMs) end
if not isWave or missing == 0 then return {'single', now, found} end
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now - lookedForMs)
-- A list that was read a moment ago and does not show a droplet would not show it now.
local listedAt = tonumber(redis.call('HGET', KEYS[2], 'listedAt') or '0')
if listedAt <= now and now - listedAt <= strictest then return {'single', now, found} end
local pages = tonumber(redis.call('HGET', KEYS[2], 'pages') or '1')
if redis.call('ZCARD', KEYS[1]) <= pages then return {'single', now, found} end
if redis.call('SET', KEYS[3], ARGV[5], 'NX', 'PX', ARGV[4]) then return {'list', now, found} end
return {'busy', now, found}`,
};

// KEYS: looked, wave, lease, then one key per droplet. ARGV: tookMs, keepMs, pages (-1: not a whole list), holder, then
// id, sealed text and status of each droplet.
const save: RedisScript = {
  name: 'observations.save',
  lua: `${now}
local at, pages = now - tonumber(ARGV[1]), tonumber(ARGV[3])
for i = 4, #KEYS do
  local id, droplet, status = ARGV[5 + 3 * (i - 4)], ARGV[6 + 3 * (i - 4)], ARGV[7 + 3 * (i - 4)]
  redis.call('SET', KEYS[i], string.format('%013d', at) .. droplet, 'PX', ARGV[2])
  if status == 'active' then redis.call('ZREM', KEYS[1], id) end
end
if pages > 0 then
  redis.call('HSET', KEYS[2], 'listedAt', at, 'pages', pages)
  redis.call('PEXPIRE', KEYS[2], 600000)
end
if pages >= 0 and redis.call('GET', KEYS[3]) == ARGV[4] then redis.call('DEL', KEYS[3]) end
return 1`,
};

const lookReply = z.tuple([z.enum(['single', 'list', 'busy']), z.number(), z.array(z.tuple([z.number(), z.string()]))]);

// Limits the number of arguments, which a script holds in memory all at once.
const CHUNK = 200;

/** Opens the observations of one token's droplets. Keys start with `prefix`. */
export function createRedisObservations(run: RunRedisScript, prefix: string, id: string): SharedObservations {
  const key = (...parts: (string | number)[]) => [prefix, 'seen', id, ...parts].join(':');
  const keysOf = (wave: string | null, ids: readonly number[]) => {
    const name = wave ?? 'none';
    return [key('looked', name), key('wave', name), key('lease', name), ...ids.map((dropletId) => key(dropletId))];
  };
  return {
    observe: async (wave, wanted, { intervalMs, leaseMs, holder }) => {
      const reply = await run(observeScript, keysOf(wave, wanted.map(({ dropletId }) => dropletId)), [
        wave === null ? 0 : 1,
        intervalMs,
        lookedForMs(intervalMs),
        leaseMs,
        holder,
        ...wanted.flatMap(({ dropletId, maxAgeMs }) => [dropletId, Math.floor(maxAgeMs)]),
      ]);
      const [way, nowMs, found] = lookReply.parse(reply);
      return { way, nowMs, seen: new Map(found) };
    },
    save: async (wave, entries, { tookMs, keepMs, list }) => {
      for (let start = 0; start === 0 || start < entries.length; start += CHUNK) {
        const chunk = entries.slice(start, start + CHUNK);
        const isLast = start + CHUNK >= entries.length;
        // Only the last chunk marks the list as complete and releases the lease.
        const pages = list !== null && isLast ? list.pages : -1;
        await run(save, keysOf(wave, chunk.map((entry) => entry.id)), [
          Math.ceil(tookMs),
          Math.ceil(keepMs),
          pages,
          list?.holder ?? '',
          ...chunk.flatMap(({ id: dropletId, sealed, status }) => [dropletId, sealed, status]),
        ]);
      }
    },
  };
}
