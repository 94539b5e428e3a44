// What an import of the package loads: the graph of static imports from each entry, without those of types.

import { existsSync, readFileSync } from 'node:fs';
import { dirname, join, normalize } from 'node:path';
import { fileURLToPath } from 'node:url';
import { describe, expect, test } from 'vitest';
import { catalog } from '../../src/steps/catalog.ts';
import { dropletContracts } from '../../src/steps/contract.ts';

const root = fileURLToPath(new URL('../../src/', import.meta.url));

// All types are imported by `import type` (verbatimModuleSyntax): what is left is loaded.
const staticImports = /^(?:import|export)\s+(?!type\b)(?:[^';]*?\bfrom\s+)?'([^']+)'/gm;

/** The modules that an entry loads, files of ours by their path in src; each with the path that leads there. */
function closureOf(entry: string, read = (file: string) => readFileSync(`${root}${file}`, 'utf8')): Map<string, string> {
  const found = new Map<string, string>();
  const walk = (file: string, path: string): void => {
    if (found.has(file)) return;
    found.set(file, path);
    for (const [, name = ''] of read(file).matchAll(staticImports)) {
      const target = name.startsWith('.') ? normalize(join(dirname(file), name)) : name;
      if (name.startsWith('.')) walk(target, `${path} -> ${target}`);
      else if (!name.startsWith('node:')) found.set(target, `${path} -> ${target}`);
    }
  };
  walk(entry, entry);
  return found;
}

const matching = (closure: Map<string, string>, forbidden: RegExp) => [...closure].filter(([name]) => forbidden.test(name)).map(([, path]) => path);

const told = (sagas: typeof dropletContracts) => Object.entries(sagas).map(([name, { input, steps, secrets }]) => ({ name, input, secrets, steps: steps.map((step) => step.name) }));

// Steps, the engine's runner, and what belongs to processes. Of the droplets, the contract of their
// sagas, the name of a field, their protection and leases.
const notInClient =
  /^(cli|dev|do|fleet|processes|sandbox|web)\/|^main\.ts$|^inventory\/(?!(droplet-of-saga|protection|lease)\.ts$)|^steps\/(?!(contract|inputs|outputs|rolled-back|tags)\.ts$)|^queues\/(?!(queue-store|queue-store-error|start-and-enqueue)\.ts$)|^saga\/(app|definition|runner|reconciler|admit|retention|once)\.ts$/;

describe('the client', () => {
  const closure = closureOf('index.ts');

  test('loads postgres and zod, and no other package', () => {
    expect([...closure.keys()].filter((name) => !name.endsWith('.ts')).toSorted()).toEqual(['postgres', 'zod']);
  });

  test('loads no step, no runner, and nothing of a process', () => {
    expect([...closure.keys()]).toContain('client/open-client.ts');
    expect(matching(closure, notInClient)).toEqual([]);
  });

  test.each([
    ['a package', "import { Queue } from 'bullmq';", 'index.ts -> client/open-client.ts -> bullmq'],
    ['a step', "import {\n  createDroplet,\n} from '../steps/create-droplet.ts';", 'index.ts -> client/open-client.ts -> steps/create-droplet.ts'],
    ['the runner', "export * from '../saga/runner.ts';", 'index.ts -> client/open-client.ts -> saga/runner.ts'],
  ])('would be found out with %s', (_what, added, path) => {
    const read = (file: string) => `${readFileSync(`${root}${file}`, 'utf8')}\n${file === 'client/open-client.ts' ? added : ''}`;
    expect(matching(closureOf('index.ts', read), new RegExp(`${notInClient.source}|^bullmq$`))).toContain(path);
  });

  test('knows the droplet sagas as the catalogue has them', () => {
    expect(told(dropletContracts)).toEqual(told(catalog));
  });
});

test('the engine loads no droplet and nothing of DigitalOcean', () => {
  const closure = closureOf('engine.ts');
  expect([...closure.keys()]).toContain('saga/app.ts');
  expect(matching(closure, /^(steps|inventory|do|sandbox)\/|^got$/)).toEqual([]);
});

test('every file that is walked to is there', () => {
  for (const entry of ['index.ts', 'engine.ts', 'droplets.ts']) {
    expect([...closureOf(entry).keys()].filter((name) => name.endsWith('.ts') && !existsSync(`${root}${name}`))).toEqual([]);
  }
});
