import { describe, expect, test, vi } from 'vitest';
import type { Rule } from '../../src/sandbox/server.ts';
import { cutReply, listCases, loseAnswer, samplePart } from './matrix.ts';
import { scenarios } from './scenarios.ts';

vi.setConfig({ maxConcurrency: 6, testTimeout: 180_000 });

const onRedis = samplePart(await listCases('redis', ['after']), 10);
const onPostgres = samplePart(await listCases('postgres', ['after']), 30);

describe.concurrent('a connection that breaks after the work was done and before its reply was read', () => {
  for (const one of onRedis) {
    test(`in ${one.title}`, async () => {
      expect(await cutReply(one, 'redis')).toEqual([]);
    });
  }
});

describe.concurrent('a connection that breaks after the work was done, with the queues on Postgres', () => {
  for (const one of onPostgres) {
    test(`in ${one.title}`, async () => {
      expect(await cutReply(one, 'postgres')).toEqual([]);
    });
  }
});

const effects: readonly Rule['effect'][] = [{ lostAnswer: true }, { truncate: true }, { htmlAfterWork: 504 }, { mangleId: 'missing' }, { holdAnswerMs: 1_500 }];
const creating = scenarios.filter(({ expected }) => expected.posts[1] > 0);

describe.concurrent.each(effects)('a create whose droplet is made, and whose answer is spoilt: %o', (effect) => {
  test.each(creating)('$name', async (scenario) => {
    expect(await loseAnswer(scenario, effect, 'redis')).toEqual([]);
  });
});
