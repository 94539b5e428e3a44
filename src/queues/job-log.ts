// The logs of jobs in Redis, written together: a job's last line needs no script of its own.
import { gather } from '../gather.ts';
import type { RedisScript, RunRedisScript } from '../redis-script.ts';

/** Adds a line to the log of a job; does nothing where the job is gone. */
export type WriteLine = (jobId: string, line: string) => Promise<void>;

// Where BullMQ 6 keeps a job and its log, and as its own script addLog does it: a log without its job would stay for ever.
const script: RedisScript = {
  name: 'lines of jobs',
  lua: `
    for at, line in ipairs(ARGV) do
      if redis.call('EXISTS', KEYS[2 * at - 1]) == 1 then
        redis.call('RPUSH', KEYS[2 * at], line)
      end
    end`,
};

/** @param keyOf the key of a job in Redis */
export function createLineWriter(runScript: RunRedisScript, keyOf: (jobId: string) => string): WriteLine {
  const write = gather(
    async (lines: readonly { key: string; line: string }[]) => {
      await runScript(script, lines.flatMap(({ key }) => [key, `${key}:logs`]), lines.map(({ line }) => line));
      return lines.map(() => undefined);
    },
    { max: 200, patienceMs: 50 },
  );
  return async (jobId, line) => write({ key: keyOf(jobId), line });
}
