import { describe, expect, test, vi } from 'vitest';
import type { Case } from './matrix.ts';
import { freezeAndThaw, isAfterAnnouncement, listCases, samplePart } from './matrix.ts';

// Most of a case is waiting for a lock to run out.
vi.setConfig({ maxConcurrency: 6, testTimeout: 180_000 });

const positions = ['before', 'after'] as const;
const all = await listCases('redis', positions);
// The worst moments are always tried: the create was just announced, the claim was proved and the droplet is about to be
// made, or it was just made. The worker thaws while the other one is at it, and when all is over.
const announced = all.filter(isAfterAnnouncement);
const worst = [...announced, ...all.filter(({ boundary }) => boundary.name === 'POST /v2/droplets')];
const others = samplePart(all.filter((one) => !worst.includes(one)), 20);
const onPostgres = samplePart(await listCases('postgres', positions), 120);

test('the sample has the moment after a create was announced, of every scenario that creates from its start', () => {
  expect(announced.map(({ scenario }) => scenario.name)).toEqual(['provision, after one poll', 'provision with a key by name, into a project, protected']);
});

describe.concurrent('a worker that is frozen at a create for longer than its lock, and thaws', () => {
  for (const one of worst) {
    for (const thaw of ['midway', 'at rest'] as const) {
      test(`in ${one.title}, ${thaw}`, async () => {
        expect(await freezeAndThaw(one, 'redis', thaw)).toEqual([]);
      });
    }
  }
});

describe.concurrent('a worker that is frozen at an I/O for longer than its lock, and thaws', () => {
  for (const one of others) {
    test(`in ${one.title}`, async () => {
      expect(await freezeAndThaw(one, 'redis', thawOf(one))).toEqual([]);
    });
  }
});

describe.concurrent('a worker that is frozen at an I/O and thaws, with the queues on Postgres', () => {
  for (const one of onPostgres) {
    test(`in ${one.title}`, async () => {
      expect(await freezeAndThaw(one, 'postgres', thawOf(one))).toEqual([]);
    });
  }
});

/** Some thaw while the other worker is at it, some when all is over. */
function thawOf({ boundary, position }: Case): 'midway' | 'at rest' {
  return (boundary.number % 2 === 0) === (position === 'before') ? 'midway' : 'at rest';
}
