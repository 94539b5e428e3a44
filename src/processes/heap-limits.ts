// How large V8 lets a worker's heap grow. Left to itself on a machine with room, it gives young objects 128 MiB and collects
// old ones late: a busy worker, of which 40 MiB live, comes to more than 400. It takes its limits when it starts:
// `v8.setFlagsFromString` comes too late, and changes nothing.
import { getHeapStatistics } from 'node:v8';

const OLD_MIB = 1_024;

/** Keep a worker with 200 steps at once below 300 MiB. The smaller the heap may become, the sooner V8 collects. */
export const heapLimits = ['--max-semi-space-size=16', `--max-old-space-size=${OLD_MIB}`];

/**
 * Runs the program of this process anew within these limits: the same process, with its id, environment and output.
 * Returns where that is not called for: it has limits already, by an option or as its container is small; or a channel to
 * its parent, which would be lost; or is not to be had: Windows.
 */
export function limitHeap(): void {
  const options = [...process.execArgv, process.env['NODE_OPTIONS'] ?? ''];
  const isLimited = options.some((option) => /--max[-_](?:semi|old)[-_]space[-_]size/.test(option));
  const isSmall = getHeapStatistics().heap_size_limit <= 1.25 * OLD_MIB * 1_048_576;
  if (isLimited || isSmall || process.connected || process.platform === 'win32') return;
  process.execve?.(process.execPath, [process.execPath, ...heapLimits, ...process.execArgv, ...process.argv.slice(1)], process.env);
}
