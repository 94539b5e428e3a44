// Runs Lua scripts on the producers' connection, which fails fast.
import { createHash } from 'node:crypto';
import type { Cluster, Redis } from 'ioredis';
import type { RunRedisScript } from '../platform/redis-script.ts';

/** Runs scripts by their hash. If Redis does not know the hash (after a restart), sends the script itself. */
export function createScriptRunner(client: Redis | Cluster): RunRedisScript {
  const hashes = new Map<string, string>();
  const hashOf = (lua: string): string => {
    const hash = hashes.get(lua) ?? createHash('sha1').update(lua).digest('hex');
    hashes.set(lua, hash);
    return hash;
  };
  return async ({ lua }, keys, args) => {
    try {
      return await client.evalsha(hashOf(lua), keys.length, ...keys, ...args);
    } catch (error) {
      if (!(error instanceof Error) || !error.message.startsWith('NOSCRIPT')) throw error;
      return client.eval(lua, keys.length, ...keys, ...args);
    }
  };
}
