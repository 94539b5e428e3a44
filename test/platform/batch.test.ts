import { setImmediate as nextTurn } from 'node:timers/promises';
import { expect, test } from 'vitest';
import { batch } from '../../src/platform/batch.ts';

/** A function that is batching into, and what it was asked: each call stays open until it is answered. */
function recorder() {
  const calls: { items: readonly number[]; answer: (results: readonly (string | Promise<string>)[]) => void; fail: (error: Error) => void }[] = [];
  return {
    calls,
    carryOut: (items: readonly number[]) =>
      new Promise<readonly (string | Promise<string>)[]>((resolve, reject) => {
        calls.push({ items, answer: resolve, fail: reject });
      }),
  };
}

const limits = { max: 3, patienceMs: 60_000 };

test('sends a call that is alone at once, and gathers what comes in meanwhile', async () => {
  const { calls, carryOut } = recorder();
  const ask = batch(carryOut, limits);
  const first = ask(1);
  await nextTurn();
  const [second, third] = [ask(2), ask(3)];
  await nextTurn();
  expect(calls.map(({ items }) => items)).toEqual([[1]]);
  calls[0]?.answer(['one']);
  expect(await first).toBe('one');
  await nextTurn();
  expect(calls.map(({ items }) => items)).toEqual([[1], [2, 3]]);
  calls[1]?.answer(['two', 'three']);
  expect(await Promise.all([second, third])).toEqual(['two', 'three']);
});

test('sends no more than the largest number at once, and the rest after', async () => {
  const { calls, carryOut } = recorder();
  const ask = batch(carryOut, limits);
  const asked = [1, 2, 3, 4].map(ask);
  await nextTurn();
  expect(calls.map(({ items }) => items)).toEqual([[1, 2, 3]]);
  calls[0]?.answer(['a', 'b', 'c']);
  await Promise.all(asked.slice(0, 3));
  await nextTurn();
  calls[1]?.answer(['d']);
  expect(await Promise.all(asked)).toEqual(['a', 'b', 'c', 'd']);
});

test('tells each of those that went together when they fail, and goes on', async () => {
  const { calls, carryOut } = recorder();
  const ask = batch(carryOut, limits);
  const asked = Promise.allSettled([ask(1), ask(2)]);
  await nextTurn();
  calls[0]?.fail(new Error('away'));
  expect(await asked).toMatchObject([{ reason: { message: 'away' } }, { reason: { message: 'away' } }]);
  const next = ask(3);
  await nextTurn();
  calls[1]?.answer(['three']);
  expect(await next).toBe('three');
});

test('lets one fail alone', async () => {
  const { calls, carryOut } = recorder();
  const ask = batch(carryOut, limits);
  const asked = Promise.allSettled([ask(1), ask(2), ask(3)]);
  await nextTurn();
  calls[0]?.answer(['one', Promise.reject(new Error('refused'))]);
  expect(await asked).toMatchObject([{ value: 'one' }, { reason: { message: 'refused' } }, { reason: { message: 'a batching call got no result' } }]);
});

test('does not wait for a call that takes too long', async () => {
  const { calls, carryOut } = recorder();
  const ask = batch(carryOut, { max: 3, patienceMs: 1 });
  const slow = ask(1);
  await nextTurn();
  const quick = ask(2);
  await expect.poll(() => calls.length, { interval: 1 }).toBe(2);
  calls[1]?.answer(['quick']);
  expect(await quick).toBe('quick');
  calls[0]?.answer(['slow']);
  expect(await slow).toBe('slow');
});
