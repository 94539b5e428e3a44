import { describe, expect, test, vi } from 'vitest';
import { freezeAndThaw, listCases, samplePart } from './matrix.ts';

// Most of a case is waiting for a lock to run out.
vi.setConfig({ maxConcurrency: 8, testTimeout: 60_000 });

const positions = ['before', 'after'] as const;
const all = await listCases('redis', positions);
// The worst moments are always tried: the claim was proved, and the droplet is about to be made or was just made.
const isWorst = ({ boundary }: { boundary: { name: string } }) => boundary.name === 'POST /v2/droplets';
const chosen = new Set([...all.filter((one) => isWorst(one)), ...samplePart(all, 4)]);
const onPostgres = samplePart(await listCases('postgres', positions), 24);

describe.concurrent('a worker that is frozen at an I/O for longer than its lock, and thaws', () => {
  test.each([...chosen])('$title', async (one) => {
    expect(await freezeAndThaw(one, 'redis')).toEqual([]);
  });
});

describe.concurrent('a worker that is frozen at an I/O and thaws, with the queues on Postgres', () => {
  test.each(onPostgres)('$title', async (one) => {
    expect(await freezeAndThaw(one, 'postgres')).toEqual([]);
  });
});
