// Whether this process can serve requests, which it does from Postgres. /statusz shows the fleet's state: a web process
// is useful even without a live worker or while the queue store is down for everyone. A queue store that answers but
// accepts no writes is different: this process is connected to a replica, and another process may be better off.
import { withDeadline } from '../platform/deadline.ts';
import { refusesWrites } from '../platform/store-failure.ts';
import type { QueuesPort, StatsPort } from './ports.ts';

export type Check = Readonly<{ name: string; ok: boolean; detail: string }>;

const ANSWER_WITHIN_MS = 4_000;

/**
 * Runs the checks. The reason for a failed check is in the log of the code that found the store unreachable, not here.
 *
 * @param withinMs the deadline of each store, in milliseconds
 */
export async function checkReadiness({ stats, queues }: { stats: Pick<StatsPort, 'ping'>; queues: Pick<QueuesPort, 'ping'> }, withinMs = ANSWER_WITHIN_MS): Promise<readonly Check[]> {
  return Promise.all([checkPostgres(stats, withinMs), checkQueues(queues, withinMs)]);
}

async function checkPostgres(stats: Pick<StatsPort, 'ping'>, withinMs: number): Promise<Check> {
  try {
    await withDeadline(withinMs, stats.ping(), () => new Error('late'));
    return { name: 'postgres', ok: true, detail: 'answers and takes writes' };
  } catch {
    return { name: 'postgres', ok: false, detail: 'does not answer, or takes no writes' };
  }
}

async function checkQueues(queues: Pick<QueuesPort, 'ping'>, withinMs: number): Promise<Check> {
  try {
    await withDeadline(withinMs, queues.ping(), () => new Error('late'));
    return { name: 'queues', ok: true, detail: 'answers and takes writes' };
  } catch (error) {
    if (refusesWrites(error)) return { name: 'queues', ok: false, detail: 'takes no writes' };
    return { name: 'queues', ok: true, detail: 'does not answer: this process serves without it' };
  }
}
