// The benchmarks do what they say, on a small scale. What they measure here means nothing: it is not looked at.
import { execFile } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { expect, test } from 'vitest';
import { z } from 'zod';

const run = promisify(execFile);

const report = z.object({
  sagas: z.literal(20),
  results: z.array(z.object({ name: z.string(), sagasPerSecond: z.number().positive(), ofBareChain: z.number().positive(), p50Ms: z.number().positive(), latencyOfBareChain: z.number().positive() })),
});

test('the benchmark of the engine drives every saga to its end, ours and those of the baseline', async () => {
  const program = fileURLToPath(new URL('../bench/engine.ts', import.meta.url));
  const { stdout } = await run(process.execPath, [program, '--sagas', '20', '--spaced', '3', '--rounds', '1', '--json']);
  const { results } = report.parse(JSON.parse(stdout));
  expect(results.map(({ name }) => name)).toEqual(['bare-chain', 'arcadia']);
  expect(results[0]?.ofBareChain).toBe(1);
});
