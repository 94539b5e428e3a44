import { afterAll, describe, expect, test, vi } from 'vitest';
import type { PrivateRedis } from '../support/services-redis-server.ts';
import { startPrivateRedis } from '../support/services-redis-server.ts';
import { flushAll, listCases, samplePart } from './matrix.ts';

const LANES = 6;
vi.setConfig({ maxConcurrency: LANES, testTimeout: 180_000 });

const cases = samplePart(await listCases('redis', ['before', 'after']), 16);

// A flush takes everything, so each case has a server to itself while it runs.
const servers = await Promise.all(Array.from({ length: LANES }, () => startPrivateRedis()));
const free: PrivateRedis[] = [...servers];
afterAll(async () => {
  await Promise.all(servers.map((server) => server.stop()));
});

describe.concurrent('a queue store that loses everything (FLUSHALL) at an I/O', () => {
  for (const one of cases) {
    test(`in ${one.title}`, async () => {
      const server = free.pop();
      if (server === undefined) throw new Error('more cases at once than servers');
      try {
        expect(await flushAll(one, server.url)).toEqual([]);
      } finally {
        free.push(server);
      }
    });
  }
});
