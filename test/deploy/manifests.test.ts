// Every object that the kustomizations build, held against the schemas of Kubernetes, KEDA and the Prometheus Operator. The
// API server checks values against the same schemas. `kubectl apply` also refuses unknown fields, which the schemas let
// pass: those are found by compiling each object as a literal of its type.

import { execFile } from 'node:child_process';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { promisify } from 'node:util';
import { expect, test } from 'vitest';
import { z } from 'zod';
import type { Resource } from './kustomize.ts';
import { buildKustomization } from './kustomize.ts';

const root = fileURLToPath(new URL('../../', import.meta.url));
const tools = `${root}test/third-party/`;
const packages: Readonly<Record<string, string>> = { 'keda.sh': '@kubernetes-models/keda/', 'monitoring.coreos.com': '@kubernetes-models/prometheus-operator/' };

/** The module that describes a kind. The core group has no name. */
function moduleOf({ apiVersion, kind }: Pick<Resource, 'apiVersion' | 'kind'>): string {
  const [group = '', version] = apiVersion.split('/');
  const from = packages[group] ?? 'kubernetes-models/';
  return version === undefined ? `${from}${group}/${kind}` : `${from}${group}/${version}/${kind}`;
}

async function valueProblems(one: Resource): Promise<string[]> {
  const file = pathToFileURL(`${tools}node_modules/${moduleOf(one)}.js`).href;
  const models = z.record(z.string(), z.custom<new (data: Resource) => { validate(): void }>((value) => typeof value === 'function')).parse({ ...(await import(file)) });
  const Model = models[one.kind];
  if (Model === undefined) return [`no schema of ${one.kind}`];
  try {
    new Model(one).validate();
    return [];
  } catch (error) {
    return [`${one.kind} ${one.metadata.name}: ${error instanceof Error ? error.message : String(error)}`];
  }
}

/** What the compiler says of objects as literals of their types. */
async function fieldProblems(resources: readonly Resource[]): Promise<string> {
  const folder = await mkdtemp(join(tools, 'node_modules/.manifests-'));
  try {
    const source = resources.map((one, index) => `import type { I${one.kind} as T${index} } from '${moduleOf(one)}';\nexport const of${index}: T${index} = ${JSON.stringify(one)};\n`).join('');
    await writeFile(join(folder, 'all.ts'), source);
    const compilerOptions = { target: 'es2022', module: 'nodenext', types: [], strict: true, noEmit: true, skipLibCheck: true };
    await writeFile(join(folder, 'tsconfig.json'), JSON.stringify({ compilerOptions, files: ['all.ts'] }));
    const compiler = `${root}node_modules/typescript/bin/tsc`;
    return await promisify(execFile)(process.execPath, [compiler, '--project', folder]).then(
      ({ stdout }) => stdout,
      (error: unknown) => z.object({ stdout: z.string() }).parse(error).stdout,
    );
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

test.each(['base', 'keda'])('every object of %s is one that Kubernetes takes', async (name) => {
  const built = buildKustomization(`${root}deploy/kubernetes/${name}`);
  expect(built.map(({ kind }) => kind)).toContain('Deployment');
  expect((await Promise.all(built.map(valueProblems))).flat()).toEqual([]);
  expect(await fieldProblems(built)).toBe('');
});

test('KEDA alone says how many workers run, from the same image', () => {
  const deployment = z.looseObject({ spec: z.looseObject({ replicas: z.number().optional(), template: z.looseObject({ spec: z.looseObject({ containers: z.tuple([z.looseObject({ image: z.string() })]) }) }) }) });
  const [base, keda] = ['base', 'keda'].map((name) => deployment.parse(buildKustomization(`${root}deploy/kubernetes/${name}`).find(({ kind, metadata }) => kind === 'Deployment' && metadata.name === 'arcadia-worker')).spec);
  expect([base?.replicas, keda?.replicas]).toEqual([2, undefined]);
  expect(keda?.template.spec.containers[0].image).toMatch(/^arcadia-cloud:\d+\.\d+\.\d+$/);
  expect(keda?.template).toEqual(base?.template);
});

test('wrong values and unknown fields are found', async () => {
  const built = buildKustomization(`${root}deploy/kubernetes/keda`);
  const change = (kind: string, spec: object): Resource => {
    const found = built.find((one) => one.kind === kind);
    if (found === undefined) throw new Error(`no ${kind}`);
    return { ...found, spec: { ...z.looseObject({}).parse(found['spec']), ...spec } };
  };
  for (const [kind, spec] of [['ScaledObject', { pollingInterval: 'often' }], ['Deployment', { template: 3 }], ['PodMonitor', { podMetricsEndpoints: 'metrics' }]] as const) {
    expect(await valueProblems(change(kind, spec))).toEqual([expect.stringContaining(kind)]);
  }
  const misspelt = await fieldProblems([change('ScaledObject', { fallBack: {} }), change('NetworkPolicy', { egres: [] })]);
  expect([...misspelt.matchAll(/'"(\w+)"' does not exist in type/g)].map(([, field]) => field)).toEqual(['fallBack', 'egres']);
});
