// The benchmarks do what they say, on a small scale. What they measure here means nothing: it is not looked at.
import { execFile } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { describe, expect, test } from 'vitest';
import { z } from 'zod';

const TIMEOUT_MS = 600_000;

async function run(program: string, ...options: string[]): Promise<unknown> {
  const path = fileURLToPath(new URL(`../../bench/${program}.ts`, import.meta.url));
  const { stdout } = await promisify(execFile)(process.execPath, [path, '--small', '--json', ...options]);
  return JSON.parse(stdout);
}

const positive = z.number().positive();
const result = z.object({ name: z.string(), sagas: z.literal(20), sagasPerSecond: positive, ofBareChain: positive, p50Ms: positive, latencyOfBareChain: positive });
const fleetRows = (key: 'sagas' | 'droplets') => z.array(z.object({ completed: z.number(), [key]: z.number() }));

// They wait more than they work.
describe.concurrent('each benchmark', () => {
  test('of the engine drives every saga to its end, ours and those of the baselines', { timeout: TIMEOUT_MS }, async () => {
    const { results } = z.object({ results: z.array(result) }).parse(await run('engine'));
    expect(results.map(({ name }) => name)).toEqual(['bare-chain', 'durable-chain', 'arcadia', 'dbos', 'openworkflow', 'graphile-worker', 'pg-boss']);
    expect(results[0]?.ofBareChain).toBe(1);
  });

  test('of growth measures sagas beside others, reads, and what retention deletes', { timeout: TIMEOUT_MS }, async () => {
    const report = z.object({ costs: z.array(z.object({ sagasPerSecond: positive })), reads: z.array(z.object({ ms: positive })), retention: z.object({ deleted: z.number() }) });
    const { costs, reads, retention } = report.parse(await run('growth'));
    expect(costs).toHaveLength(4);
    expect(reads.length).toBeGreaterThan(10);
    expect(retention.deleted).toBe(500);
  });

  test('of many sagas measures each migration with its locks, starts, pages, the reconciler and retention', { timeout: TIMEOUT_MS }, async () => {
    const passes = z.object({ sagas: z.number(), medianMs: positive });
    const report = z.object({
      migrations: z.array(z.object({ file: z.string(), seconds: positive, locks: z.string(), standstillMs: z.number() })),
      engine: z.array(z.object({ beside: z.string(), start: z.object({ p50Ms: positive }), poll: z.object({ p50Ms: positive }), transition: z.object({ p50Ms: positive }) })),
      reads: z.array(z.object({ read: z.string(), medianMs: positive })),
      reconciler: z.object({ idle: passes, withoutJobs: passes, withJobs: passes }),
      retention: z.object({ deleted: z.number() }),
    });
    const { migrations, engine, reads, reconciler, retention } = report.parse(await run('many'));
    expect(migrations.find(({ file }) => file.startsWith('0026'))?.locks).toBe('sagas: AccessExclusive, Share');
    expect(engine.map(({ beside }) => beside)).toEqual(['few', 'many']);
    expect(reads.length).toBeGreaterThan(15);
    expect([reconciler.idle.sagas, reconciler.withoutJobs.sagas, reconciler.withJobs.sagas]).toEqual([0, 300, 300]);
    expect(retention.deleted).toBe(600);
  });

  test('of the pace shows what the request budget makes creates wait, in simulated time', { timeout: TIMEOUT_MS }, async () => {
    const row = z.object({ run: z.string(), many: z.number(), activeSeconds: positive, boundSeconds: positive, oneP99Seconds: positive.nullable() });
    const { rows } = z.object({ rows: z.array(row) }).parse(await run('pace'));
    expect(rows.map(({ run: name, many }) => [name, many])).toEqual([50, 100].flatMap((many) => [['bursts', many], ['paced', many], ['shared', many], ['shared', many]]));
    expect(rows.filter(({ oneP99Seconds }) => oneP99Seconds !== null).map(({ run: name }) => name)).toEqual(['shared', 'shared', 'shared', 'shared']);
  });

  test('of workers compares one with two', { timeout: TIMEOUT_MS }, async () => {
    const { rows } = z.object({ rows: z.array(z.object({ stepMs: z.number(), workers: z.number(), sagasPerSecond: positive })) }).parse(await run('workers'));
    expect(rows.map(({ stepMs, workers }) => [stepMs, workers])).toEqual([[0, 1], [0, 2], [1, 1], [1, 2]]);
  });

  test('of memory keeps a worker busy and looks at its size', { timeout: TIMEOUT_MS }, async () => {
    const { completed, samples } = z.object({ completed: z.number(), samples: z.array(z.object({ residentMib: positive, heapUsedMib: positive })) }).parse(await run('memory'));
    expect(completed).toBeGreaterThan(0);
    expect(samples.length).toBeGreaterThan(1);
  });

  test('of a shared budget creates the droplets of both requesters', { timeout: TIMEOUT_MS }, async () => {
    const { rows } = z.object({ rows: z.array(z.object({ round: z.string(), many: z.number(), ones: z.number(), createsSeconds: positive })) }).parse(await run('fair'));
    expect(rows).toEqual([expect.objectContaining({ round: 'shared', many: 20 })]);
  });

  test('of a load completes every saga within the limits', { timeout: TIMEOUT_MS }, async () => {
    const { rows } = z.object({ rows: fleetRows('droplets') }).parse(await run('load'));
    expect(rows).toEqual([expect.objectContaining({ droplets: 10, completed: 10 })]);
  });

  test('runs with others, whose figures come in one document', { timeout: TIMEOUT_MS }, async () => {
    const report = z.object({ requests: z.object({ rows: fleetRows('sagas') }), sync: z.object({ rows: z.array(z.object({ droplets: z.number() })) }) });
    const { requests, sync } = report.parse(await run('all', '--parts', 'requests,sync'));
    expect(requests.rows).toEqual([2, 5].map((sagas) => expect.objectContaining({ sagas, completed: sagas })));
    expect(sync.rows.map(({ droplets }) => droplets)).toEqual([200, 200, 180]);
  });
});
