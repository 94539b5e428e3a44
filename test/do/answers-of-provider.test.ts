import { expect, test } from 'vitest';
import { rememberAnswers } from '../../src/droplets/answers-of-provider.ts';

test('an outage begins with the first request that fails, and ends with any answer but an error of the server', () => {
  let now = 1_000;
  const { onAnswer, answers } = rememberAnswers(() => now);
  expect(answers()).toEqual({ failingForMs: null, answeredMsAgo: null });
  onAnswer({ status: 200 });
  now += 100;
  onAnswer({ status: null });
  now += 50;
  onAnswer({ status: 503 });
  now += 50;
  expect(answers()).toEqual({ failingForMs: 100, answeredMsAgo: 200 });
  onAnswer({ status: 429 });
  expect(answers()).toEqual({ failingForMs: null, answeredMsAgo: 0 });
});
