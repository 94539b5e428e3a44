import { describe, expect, test, vi } from 'vitest';
import { catalog } from '../../src/steps/catalog.ts';
import { killAndRescue, listCases, samplePart } from './matrix.ts';
import { record, recordOnce } from './recording.ts';
import { scenarios } from './scenarios.ts';

// Most of a case is waiting for a lock to run out.
vi.setConfig({ maxConcurrency: 6, testTimeout: 180_000 });

const positions = ['before', 'during', 'after'] as const;
const onRedis = await listCases('redis', positions);
// What is durable after an I/O is what is durable before the next: of these, a part each day. Around a request every one is
// tried: what DigitalOcean did is in no store of ours.
const aroundRequests = onRedis.filter(({ position, boundary }) => position !== 'after' && boundary.kind === 'http');
const beforehand = onRedis.filter(({ position, boundary }) => position === 'before' && boundary.kind !== 'http');
const afterwards = onRedis.filter(({ position }) => position === 'after');
const sampled = [...aroundRequests, ...samplePart(beforehand, 16), ...samplePart(afterwards, 22)];
const onPostgres = samplePart(await listCases('postgres', positions), 90);

describe('the boundaries', () => {
  test.each(scenarios)('of "$name" are the same each time, on either queue backend', async (scenario) => {
    // A recording of its own: that of the list may be another file's.
    const { boundaries } = await record(scenario, 'redis');
    expect(boundaries).toEqual(onRedis.find((one) => one.scenario === scenario)?.recording.boundaries);
    expect((await recordOnce(scenario, 'postgres')).boundaries).toEqual(boundaries);
  });

  test('are of every kind, and those of every step and every compensation', () => {
    expect(new Set(onRedis.map(({ boundary }) => boundary.kind))).toEqual(new Set(['sql', 'http', 'queue', 'probe']));
    const run = new Set(onRedis.flatMap(({ recording }) => recording.ran));
    const steps = Object.values(catalog).flatMap((definition) => definition.steps.map((step) => step.name));
    expect([...run].toSorted()).toEqual(steps.flatMap((step) => [`backward ${step}`, `forward ${step}`]).toSorted());
  });
});

describe.concurrent('a worker that is killed with SIGKILL at an I/O', () => {
  for (const one of sampled) {
    test(`in ${one.title}`, async () => {
      expect(await killAndRescue(one, 'redis')).toEqual([]);
    });
  }
  for (const one of onPostgres) {
    test(`in ${one.title}, with the queues on Postgres`, async () => {
      expect(await killAndRescue(one, 'postgres')).toEqual([]);
    });
  }
});
