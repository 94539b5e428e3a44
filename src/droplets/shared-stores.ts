// What a fleet's workers share about DigitalOcean: the request budget and their observations of droplets.
import { createPostgresBudgetStore } from '../do/budget-postgres.ts';
import { createRedisBudgetStore } from '../do/budget-redis.ts';
import { createPostgresObservations } from '../do/observations-postgres.ts';
import { createRedisObservations } from '../do/observations-redis.ts';
import type { Config } from '../platform/config.ts';
import type { Database } from '../platform/db.ts';
import type { RunRedisScript } from '../platform/redis-script.ts';

/**
 * Opens both stores: in Redis, or in Postgres if there is no Redis.
 *
 * @param id fingerprint of the token: fleets with different tokens share nothing
 */
export function sharedStores({ queuePrefix }: Pick<Config, 'queuePrefix'>, { db, runScript }: { db: Database; runScript: RunRedisScript | null }, id: string) {
  if (runScript === null) return { budget: createPostgresBudgetStore(db, id), observations: createPostgresObservations(db, id) };
  return { budget: createRedisBudgetStore(runScript, queuePrefix, id), observations: createRedisObservations(runScript, queuePrefix, id) };
}
