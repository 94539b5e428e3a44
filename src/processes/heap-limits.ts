// Limits the size of a worker's V8 heap. By default, on a machine with enough memory, V8 gives young objects 128 MiB and
// collects old ones late: a busy worker with 40 MiB of live objects grows beyond 400 MiB. V8 reads its limits at startup;
// `v8.setFlagsFromString` comes too late and has no effect.
import { getHeapStatistics } from 'node:v8';

const OLD_MIB = 1_024;

/** Keeps a worker with 200 concurrent steps below 300 MiB. The lower the limit, the sooner V8 collects. */
export const heapLimits = ['--max-semi-space-size=16', `--max-old-space-size=${OLD_MIB}`];

/**
 * Restarts this process's program within these limits: the same process, with the same id, environment and output.
 * Returns without a restart if limits are already set (by an option or a small container), if there is a channel to the
 * parent process, which would be lost, or on Windows, which does not support it.
 */
export function limitHeap(): void {
  const options = [...process.execArgv, process.env['NODE_OPTIONS'] ?? ''];
  const isLimited = options.some((option) => /--max[-_](?:semi|old)[-_]space[-_]size/.test(option));
  const isSmall = getHeapStatistics().heap_size_limit <= 1.25 * OLD_MIB * 1_048_576;
  if (isLimited || isSmall || process.connected || process.platform === 'win32') return;
  process.execve?.(process.execPath, [process.execPath, ...heapLimits, ...process.execArgv, ...process.argv.slice(1)], process.env);
}
