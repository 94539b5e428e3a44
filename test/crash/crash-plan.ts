// What a worker process is told about its end.

import type { Chain, Position } from './boundaries.ts';

export type CrashPlan = {
  readonly chain: Chain;
  readonly number: number;
  readonly position: Position;
  readonly signal: 'SIGKILL' | 'SIGSTOP';
  /** Every saga is cancelled right after the I/O of this name. */
  readonly cancelAfter: string | null;
};

/** How long after a request was begun its worker ends, for an end during it. The sandbox holds its answers twice as long. */
export const DURING_MS = 100;
