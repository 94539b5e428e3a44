// Whether this process can serve: it answers out of Postgres. What the fleet is at is told by /statusz: a web process is of
// use while no worker lives, and while the queue store is away for everybody. A queue store that answers this process and
// takes no writes is another matter: its connections lead to a replica, and another process may be better off.
import { withDeadline } from '../platform/deadline.ts';
import { refusesWrites } from '../platform/store-failure.ts';
import type { QueuesPort, StatsPort } from './ports.ts';

export type Check = Readonly<{ name: string; ok: boolean; detail: string }>;

const ANSWER_WITHIN_MS = 4_000;

/** Checks it now. Why a check is red stands in the log of whoever could not be reached, not here. */
export async function checkReadiness({ stats, queues }: { stats: Pick<StatsPort, 'ping'>; queues: Pick<QueuesPort, 'ping'> }): Promise<readonly Check[]> {
  return Promise.all([checkPostgres(stats), checkQueues(queues)]);
}

async function checkPostgres(stats: Pick<StatsPort, 'ping'>): Promise<Check> {
  try {
    await withDeadline(ANSWER_WITHIN_MS, stats.ping(), () => new Error('late'));
    return { name: 'postgres', ok: true, detail: 'answers and takes writes' };
  } catch {
    return { name: 'postgres', ok: false, detail: 'does not answer, or takes no writes' };
  }
}

async function checkQueues(queues: Pick<QueuesPort, 'ping'>): Promise<Check> {
  try {
    await withDeadline(ANSWER_WITHIN_MS, queues.ping(), () => new Error('late'));
    return { name: 'queues', ok: true, detail: 'answers and takes writes' };
  } catch (error) {
    if (refusesWrites(error)) return { name: 'queues', ok: false, detail: 'takes no writes' };
    return { name: 'queues', ok: true, detail: 'does not answer: this process serves without it' };
  }
}
