// How many readiness checks run at once.
import { expect, test } from 'vitest';
import type { Finding, Target } from '../../src/steps/probe.ts';
import { limitProbes, probePlaces } from '../../src/steps/probe-places.ts';

const target: Target = { address: '198.51.100.7', port: 22, http: null };
const answered: Finding = { answered: true };

test('a fifth of what a worker runs at once, and at least one', () => {
  expect([1, 4, 5, 9, 10, 50, 1_000].map(probePlaces)).toEqual([1, 1, 1, 1, 2, 10, 200]);
});

test('checks beyond the limit are not made, and come again after a random time', async () => {
  const pending: PromiseWithResolvers<Finding>[] = [];
  const probe = async () => {
    const check = Promise.withResolvers<Finding>();
    pending.push(check);
    return check.promise;
  };
  const randoms = [0, 0.5, 0.999];
  const limited = limitProbes(probe, { places: 2, aboutMs: 3_000, random: () => randoms.shift() ?? 0 });
  const [one, two] = [limited(target), limited(target)];
  expect([await limited(target), await limited(target), await limited(target)]).toEqual([{ retryMs: 1_500 }, { retryMs: 2_250 }, { retryMs: 2_999 }]);
  expect(pending).toHaveLength(2);
  pending[0]?.resolve(answered);
  expect(await one).toEqual(answered);
  const three = limited(target);
  expect(pending).toHaveLength(3);
  pending.slice(1).forEach(({ resolve }) => resolve(answered));
  expect(await Promise.all([two, three])).toEqual([answered, answered]);
});

test('a check that throws gives its place back', async () => {
  const limited = limitProbes(async () => Promise.reject(new Error('no such target')), { places: 1, aboutMs: 1 });
  await expect(limited(target)).rejects.toThrow('no such target');
  await expect(limited(target)).rejects.toThrow('no such target');
});
