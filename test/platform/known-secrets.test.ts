// Whose secret was given?
import { expect, test } from 'vitest';
import { knownSecrets } from '../../src/platform/known-secrets.ts';

const find = knownSecrets([{ name: 'billing', secret: 'one-secret' }, { name: 'reports', secret: 'another-secret, which is longer' }]);

test.each([
  ['one-secret', 'billing'],
  ['another-secret, which is longer', 'reports'],
  ['one-secre', null],
  ['one-secret ', null],
  ['ONE-SECRET', null],
  ['', null],
  ['x'.repeat(100_000), null],
])('%.40s belongs to %s', (given, name) => {
  expect(find(given)?.name ?? null).toBe(name);
});

test('where none is known, none is right', () => {
  expect(knownSecrets([])('')).toBeNull();
});
