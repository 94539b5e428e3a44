// Lanes that take turns.
import { expect, test } from 'vitest';
import { LaneFullError, fairLanes } from '../../src/web/fair-lanes.ts';

test('work of each lane comes in turns, one piece at a time, however much waits in one of them', async () => {
  const inTurn = fairLanes({ most: 5, mostLanes: 3 });
  const done: string[] = [];
  let running = 0;
  const work = (name: string) => async (): Promise<string> => {
    running += 1;
    expect(running).toBe(1);
    await Promise.resolve();
    running -= 1;
    done.push(name);
    return name;
  };
  const flood = Array.from({ length: 6 }, (_, index) => inTurn('flood', work(`flood ${index}`)));
  const other = inTurn('other', work('other'));
  expect(await Promise.all([...flood, other])).toContain('other');
  expect(done.indexOf('other')).toBeLessThan(3);
  expect(done.filter((name) => name !== 'other')).toEqual(flood.map((_, index) => `flood ${index}`));
});

test('a full lane, and one lane too many, are refused; what fails stops no other', async () => {
  const inTurn = fairLanes({ most: 1, mostLanes: 1 });
  const first = Promise.withResolvers<string>();
  const running = inTurn('one', () => first.promise);
  const waiting = inTurn('one', async () => Promise.reject(new TypeError('it fails')));
  await expect(inTurn('one', async () => Promise.resolve('more'))).rejects.toThrow(LaneFullError);
  await expect(inTurn('two', async () => Promise.resolve('other'))).rejects.toThrow(LaneFullError);
  first.resolve('first');
  expect(await running).toBe('first');
  await expect(waiting).rejects.toThrow('it fails');
  expect(await inTurn('two', async () => Promise.resolve('other'))).toBe('other');
});
