// The conditions that the queue store tells of.
import type { Condition, QueueFacts } from './condition.ts';
import { condition, withStop } from './condition.ts';
import type { PauseFact, PostgresFacts } from './facts.ts';
import type { ConditionName } from './severities.ts';

/** Their names. While the queue store does not answer, nobody knows whether they hold. */
export const queueConditionNames: ReadonlySet<ConditionName> = new Set(['queue_store_full', 'queue_store_evicts', 'queue_paused', 'jobs_stand_still']);

/** What the queue store tells of. */
export function conditionsOfQueues({ paused, stalled, isFull, evictionPolicy = null }: QueueFacts, postgres: PostgresFacts | null): Condition[] {
  const conditions: Condition[] = [];
  if (isFull === true) {
    conditions.push(condition({
      name: 'queue_store_full',
      title: 'Redis is full',
      detail: 'It takes no new jobs, so no saga starts and none goes on. New sagas are kept in Postgres.',
      action: 'Raise maxmemory of Redis, or remove what else is in it. Sagas then resume by themselves.',
    }));
  }
  if (evictionPolicy !== null) {
    conditions.push(condition({
      name: 'queue_store_evicts',
      title: 'Redis may throw jobs away',
      detail: `It runs with maxmemory-policy ${evictionPolicy}. Sagas get lost jobs again, but requests in the queue sagas are gone with their jobs.`,
      action: 'Set maxmemory-policy to noeviction: CONFIG SET maxmemory-policy noeviction, and in redis.conf, on every node. Until then, no process starts.',
    }));
  }
  if (paused.length > 0) {
    conditions.push(condition({
      name: 'queue_paused', count: paused.length,
      title: `${paused.length === 1 ? 'Queue' : 'Queues'} ${paused.join(', ')} ${paused.length === 1 ? 'is' : 'are'} paused`,
      detail: `Workers do not take jobs from ${paused.length === 1 ? 'it' : 'them'}.${pausedBy(paused, postgres)}`,
      since: paused.length === 1 ? (pauseOf(paused[0] ?? '', postgres)?.at ?? null) : null,
      action: `Resume ${paused.length === 1 ? 'it' : 'them'} on the Queues page.`,
    }));
  }
  const isAlive = postgres?.workers.some((worker) => worker.isAlive) ?? true;
  if (isAlive && stalled.length > 0) {
    conditions.push(condition({
      name: 'jobs_stand_still', count: stalled.length,
      title: 'Jobs are not moving',
      detail: withStop(stalled.join('; ')),
      action: 'Restart the workers. A worker that notices that it takes no jobs exits by itself.',
    }));
  }
  return conditions;
}

/** Who paused a queue that is paused; null: nobody on Bull Board. */
export function pauseOf(queue: string, postgres: Pick<PostgresFacts, 'pauses'> | null): PauseFact | null {
  const latest = postgres?.pauses.find((one) => one.queue === null || one.queue === queue);
  return latest?.isPause === true ? latest : null;
}

function pausedBy(queues: readonly string[], postgres: PostgresFacts | null): string {
  const actors = [...new Set(queues.flatMap((queue) => pauseOf(queue, postgres)?.actor ?? []))];
  return actors.length === 0 ? '' : ` Paused by ${actors.join(', ')}.`;
}
