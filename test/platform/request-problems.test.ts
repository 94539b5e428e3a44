import { expect, test } from 'vitest';
import { problemsOf } from '../../src/platform/request-problems.ts';

const wrong = (field: string, message = 'wrong') => ({ path: field.split('.'), message, code: 'custom' });

test('names each field once, with its first problem, wherever the second stands', () => {
  expect(problemsOf([wrong('a', 'first'), wrong('a', 'second'), wrong('b'), wrong('a', 'third'), wrong('a.b')])).toEqual([
    { field: 'a', message: 'first' }, { field: 'b', message: 'wrong' }, { field: 'a.b', message: 'wrong' },
  ]);
});

test('counts a field once beyond the ten that it names', () => {
  const issues = Array.from({ length: 12 }, (_, at) => [wrong(`field-${at}`), wrong(`field-${at}`)]).flat();
  expect(problemsOf(issues).at(-1)).toEqual({ field: 'input', message: 'and 2 more problems' });
});

test('keeps unknown fields apart from a problem of the object around them', () => {
  const unknown = { path: ['a'], message: 'unrecognized', code: 'unrecognized_keys', keys: ['x', 'y'] };
  expect(problemsOf([unknown, wrong('a', 'one too few')]).map(({ field }) => field)).toEqual(['a.x', 'a.y', 'a']);
});
