// The state of the fleet: what stands still, and why. Pure: facts in, conditions out. Pages, `/statusz`, the metrics and
// `arcadia status` all show what this says.
import type { Condition, Limits, QueueFacts } from './condition.ts';
import { condition, withStop } from './condition.ts';
import type { PostgresFacts } from './facts.ts';
import { conditionsOfPostgres } from './postgres-conditions.ts';
import { conditionsOfQueues } from './queue-conditions.ts';
import type { Severity } from './severities.ts';
import { conditionNames } from './severities.ts';

/** What is wrong with DASHBOARD_USERS_FILE. `since` null: unknown. */
export type UsersFileFact = Readonly<{ message: string; since: Date | null }>;

/** Null: Postgres or the queue store did not answer; nothing is wrong with the users file. */
export type FleetFacts = Readonly<{
  postgres: PostgresFacts | null;
  queues: QueueFacts | null;
  usersFile: UsersFileFact | null;
  /** Postgres answers, and lacks what this version's migrations make. */
  isNotMigrated?: boolean;
}>;

/** The fleet's state at one moment. */
export type FleetStatus = Readonly<{
  /** By Postgres's clock, if it answered. */
  at: Date;
  /** `waiting`: a condition that resolves by itself. `attention`: a person is needed. */
  status: 'ok' | 'waiting' | 'attention';
  /** The most severe first. */
  conditions: readonly Condition[];
  facts: FleetFacts;
}>;

const ranks: Readonly<Record<Severity, number>> = { critical: 0, warning: 1, info: 2 };

/**
 * Judges the facts.
 *
 * @param now this process's clock, used if Postgres did not answer
 */
export function judgeFleet(facts: FleetFacts, limits: Limits, now: Date): FleetStatus {
  const { postgres, queues, usersFile, isNotMigrated = false } = facts;
  const conditions = [
    ...(isNotMigrated ? [notMigrated] : []),
    ...(postgres === null ? (isNotMigrated ? [] : [postgresAway]) : conditionsOfPostgres(postgres, queues, limits)),
    ...(queues === null ? [queueStoreAway] : conditionsOfQueues(queues, postgres)),
    ...(usersFile === null ? [] : [brokenUsersFile(usersFile)]),
  ].toSorted((one, other) => ranks[one.severity] - ranks[other.severity] || conditionNames.indexOf(one.name) - conditionNames.indexOf(other.name));
  const status = conditions.some(needsPerson) ? 'attention' : conditions.length > 0 ? 'waiting' : 'ok';
  return { at: postgres?.now ?? now, status, conditions, facts };
}

/** Whether the condition lasts until a person acts. */
export function needsPerson({ severity }: Pick<Condition, 'severity'>): boolean {
  return severity !== 'info';
}

const postgresAway = condition({
  name: 'postgres_away',
  title: 'Postgres does not answer',
  detail: 'No saga can make progress, and the data shown is out of date.',
  action: 'Check Postgres and DATABASE_URL. Sagas then resume by themselves.',
});

const notMigrated = condition({
  name: 'not_migrated',
  title: 'The database is not migrated to this version',
  detail: 'No worker of this version starts.',
  action: 'Run `arcadia migrate`, then start the workers again if nothing restarts them.',
});

const queueStoreAway = condition({
  name: 'queue_store_away',
  title: 'The queue store does not answer',
  detail: 'No steps run. New sagas are kept in Postgres.',
  action: 'Check Redis and REDIS_URL (if it is not set, the queues are in Postgres). Sagas then resume by themselves.',
});

function brokenUsersFile({ message, since }: UsersFileFact): Condition {
  return condition({
    name: 'users_file_broken', since,
    title: 'The users file cannot be used',
    detail: `${withStop(message)} Users of its last valid version can still log in, including those removed since.`,
    action: 'Correct the file. It is read again within seconds.',
  });
}
