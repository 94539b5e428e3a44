// Everything that the stores hold, as text.

import type { Redis } from 'ioredis';
import type { Database } from '../../src/platform/db.ts';

/** Every key of a Redis server with its value, whatever its type. */
export async function dumpRedis(redis: Redis): Promise<string> {
  const keys = await redis.keys('*');
  const lines = await Promise.all(keys.map(async (key) => `${key}\t${JSON.stringify(await valueOf(redis, key))}`));
  return lines.join('\n');
}

async function valueOf(redis: Redis, key: string): Promise<unknown> {
  const type = await redis.type(key);
  switch (type) {
    case 'string':
      return redis.get(key);
    case 'hash':
      return redis.hgetall(key);
    case 'list':
      return redis.lrange(key, 0, -1);
    case 'set':
      return redis.smembers(key);
    case 'zset':
      return redis.zrange(key, 0, -1, 'WITHSCORES');
    case 'stream':
      return redis.xrange(key, '-', '+');
    case 'none':
      return null;
    default:
      throw new Error(`${key} is a ${type}, which is not dumped`);
  }
}

/** Every row of every table of a database but those of Postgres itself, and the text of its functions. */
export async function dumpPostgres(db: Database): Promise<string> {
  const tables = await db.sql<{ schema: string; name: string }[]>`
    select table_schema as schema, table_name as name from information_schema.tables
    where table_schema not in ('pg_catalog', 'information_schema') and table_type = 'BASE TABLE'`;
  const dumps = await Promise.all(
    tables.map(async ({ schema, name }) => {
      const rows = await db.sql<{ row: string }[]>`select to_jsonb(found)::text as row from ${db.sql(schema)}.${db.sql(name)} found`;
      return rows.map(({ row }) => `${schema}.${name}\t${row}`).join('\n');
    }),
  );
  return dumps.join('\n');
}
