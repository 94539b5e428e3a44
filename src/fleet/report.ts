// Formats the fleet's state for programs: the body of `/statusz`, and the output of `arcadia status --json`.
import type { Condition } from './condition.ts';
import type { FleetStatus } from './conditions.ts';
import { needsPerson } from './conditions.ts';

/** Formats a condition for programs. */
function toJson(condition: Condition) {
  const { since, until, ...rest } = condition;
  return { ...rest, needsPerson: needsPerson(condition), since: since?.toISOString() ?? null, until: until?.toISOString() ?? null };
}

/** The full status. */
export function statusBody({ at, status, conditions, facts }: FleetStatus) {
  const { postgres, queues } = facts;
  return {
    status,
    at: at.toISOString(),
    conditions: conditions.map(toJson),
    workers: postgres?.workers ?? null,
    sagas: postgres === null ? null : { unfinished: postgres.unfinished, stuck: postgres.stuck },
    pausedQueues: queues?.paused ?? null,
  };
}

/** The public status: that there is a problem, and its kind. */
export function publicStatusBody({ at, status, conditions }: FleetStatus) {
  return { status, at: at.toISOString(), conditions: conditions.map(({ name, severity }) => ({ name, severity })) };
}
