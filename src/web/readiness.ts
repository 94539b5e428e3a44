// Whether this process can serve: it answers out of Postgres. What the fleet is at is told by /statusz: a web process is
// of use while no worker lives, and while the queue store is away.
import { withDeadline } from '../deadline.ts';
import type { StatsPort } from './ports.ts';

export type Check = Readonly<{ name: string; ok: boolean; detail: string }>;

const ANSWER_WITHIN_MS = 4_000;

/** Checks it now. Why a check is red stands in the log of whoever could not be reached, not here. */
export async function checkReadiness(stats: Pick<StatsPort, 'ping'>): Promise<readonly Check[]> {
  try {
    await withDeadline(ANSWER_WITHIN_MS, stats.ping(), () => new Error('late'));
    return [{ name: 'postgres', ok: true, detail: 'answers' }];
  } catch {
    return [{ name: 'postgres', ok: false, detail: 'does not answer' }];
  }
}
