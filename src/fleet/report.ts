// The fleet's state for programs: the body of `/statusz`, and what `arcadia status --json` prints.
import type { Condition, FleetStatus } from './conditions.ts';
import { needsPerson } from './conditions.ts';

/** A condition as programs see it. */
function toJson(condition: Condition) {
  const { since, until, ...rest } = condition;
  return { ...rest, needsPerson: needsPerson(condition), since: since?.toISOString() ?? null, until: until?.toISOString() ?? null };
}

/** All of it. */
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

/** What anybody may know: that something is the matter, and of what kind it is. */
export function publicStatusBody({ at, status, conditions }: FleetStatus) {
  return { status, at: at.toISOString(), conditions: conditions.map(({ name, severity }) => ({ name, severity })) };
}
