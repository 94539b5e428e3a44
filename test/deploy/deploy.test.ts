// What the image, compose.yaml, the manifests and the units promise, held against the program: variables, paths, limits of
// time, metrics. script/test-containers runs them; this needs no engine.

import { existsSync, readFileSync, readdirSync } from 'node:fs';
import { describe, expect, test } from 'vitest';
import { parse, parseAllDocuments } from 'yaml';
import { z } from 'zod';
import { requireClosedMetrics, requireClosedWeb } from '../../src/platform/closed-ports.ts';
import { loadConfig } from '../../src/platform/config.ts';
import { generateKey } from '../../src/platform/key-ring.ts';
import { requireOwnSecrets } from '../../src/platform/published-secrets.ts';
import { createWorkerMetrics } from '../../src/processes/worker-metrics.ts';
import { runCommand } from '../support/fleet.ts';

const root = new URL('../../', import.meta.url);
const read = (path: string): string => readFileSync(new URL(path, root), 'utf8');
const variables = new Set([...read('.env.example').matchAll(/^([A-Z_]+)=/gm)].map(([, name]) => name ?? ''));
const defaults = loadConfig({});

const environment = z.record(z.string(), z.string());

const documents = (path: string) => parseAllDocuments(read(path), { strict: true, uniqueKeys: true }).map((document) => z.looseObject({ apiVersion: z.string(), kind: z.string() }).parse(document.toJS()));

const settingOf = (unit: string, key: string) => new RegExp(`^${key}=(.*)$`, 'm').exec(read(`deploy/systemd/${unit}`))?.[1];

describe('the image', () => {
  const dockerfile = read('Dockerfile');

  test('runs as a user that Kubernetes can tell from root, with arcadia as its entry point', () => {
    const [, last = ''] = /(?:^|\n)FROM scratch\n([^]+)$/.exec(dockerfile) ?? [];
    expect(last).toMatch(/^USER 10001:10001$/m);
    expect(last).toMatch(/^ENTRYPOINT \["arcadia"\]$/m);
    expect(last).toMatch(/^STOPSIGNAL SIGTERM$/m);
    expect(last).not.toMatch(/^RUN/m);
  });

  test('is built from all that the Dockerfile copies, and from no secret', () => {
    const ignored = read('.dockerignore').split('\n').filter((line) => line !== '' && !line.startsWith('#'));
    expect(ignored[0]).toBe('*');
    const copied = [...dockerfile.matchAll(/^COPY (?!--from)(.+) \S+$/gm)].flatMap(([, names = '']) => names.split(' ')).map((name) => name.replace(/^\.\//, ''));
    expect(copied.filter((name) => !ignored.includes(`!${name}`) || !existsSync(new URL(name, root)))).toEqual([]);
    expect(ignored.slice(1).map((line) => line.slice(1)).toSorted()).toEqual(copied.toSorted());
  });

  test('says the version of the package', () => {
    const { version } = z.object({ version: z.string() }).parse(JSON.parse(read('package.json')));
    expect(dockerfile).toContain(`ARG VERSION=${version}\n`);
    expect(read('deploy/kubernetes/base/kustomization.yaml')).toContain(`newTag: ${version}\n`);
  });
});

describe('compose.yaml', () => {
  const service = z.looseObject({
    image: z.string(),
    command: z.array(z.string()).optional(),
    environment: environment.optional(),
    ports: z.array(z.string()).default([]),
    profiles: z.array(z.string()).default([]),
    restart: z.string(),
    read_only: z.boolean().optional(),
    stop_grace_period: z.string().optional(),
  });
  const { services } = z.looseObject({ services: z.record(z.string(), service) }).parse(parse(read('compose.yaml'), { merge: true }));
  const ours = Object.entries(services).filter(([, { image }]) => image.includes('arcadia-cloud'));
  /** With the defaults of this file, where the environment sets nothing else. */
  const settingsOf = (name: string, given: Readonly<Record<string, string>> = {}) =>
    Object.fromEntries(Object.entries(services[name]?.environment ?? {}).map(([key, value]) => [key, value.replaceAll(/\$\{(\w+):-([^}]+)\}/g, (_whole, variable: string, fallback: string) => given[variable] ?? fallback)]));

  test('declares every volume that a service names: Docker refuses the file otherwise', () => {
    const compose = z.looseObject({ volumes: z.record(z.string(), z.null()), services: z.record(z.string(), z.looseObject({ volumes: z.array(z.string()).default([]) })) }).parse(parse(read('compose.yaml'), { merge: true }));
    const named = Object.values(compose.services).flatMap(({ volumes }) => volumes.map((volume) => volume.split(':')[0]));
    expect(Object.keys(compose.volumes)).toEqual(named);
  });

  test('has Postgres, Redis, one migration, two workers, the web, and a sandbox only by its profile', () => {
    expect(Object.keys(services)).toEqual(['postgres', 'redis', 'migrate', 'worker-1', 'worker-2', 'web', 'sandbox', 'first-droplet']);
    expect(Object.entries(services).filter(([, { profiles }]) => profiles.includes('sandbox')).map(([name]) => name)).toEqual(['sandbox', 'first-droplet']);
    expect(services['redis']?.command?.join(' ')).toMatch(/--appendonly yes .*--maxmemory-policy noeviction/);
  });

  test('sets variables that exist, and that its processes start with', () => {
    expect(ours.flatMap(([, { environment: given = {} }]) => Object.keys(given)).filter((name) => !variables.has(name))).toEqual([]);
    const worker = loadConfig({ ...settingsOf('worker-1'), HOST: '0.0.0.0' }, ['DATABASE_URL', 'DIGITALOCEAN_TOKEN']);
    expect(requireClosedMetrics(worker)).toBeNull();
    expect(() => requireClosedWeb(loadConfig({ ...settingsOf('web'), HOST: '0.0.0.0' }).web)).not.toThrow();
    // The sandbox is for its own token. A real one with the URL of the sandbox is refused.
    expect(() => loadConfig({ ...settingsOf('worker-1'), DIGITALOCEAN_TOKEN: 'dop_v1_0123456789' })).toThrow('DIGITALOCEAN_API_URL: expected https');
  });

  test('publishes no secret that worker and web would take along to the real DigitalOcean', () => {
    const real = { HOST: '0.0.0.0', DIGITALOCEAN_API_URL: 'https://api.digitalocean.com' };
    const published = settingsOf('worker-1')['ARCADIA_ENCRYPTION_KEYS'] ?? '';
    const worker = { ...settingsOf('worker-1'), ...real, DIGITALOCEAN_TOKEN: 'dop_v1_0123456789' };
    const web = { ...settingsOf('web'), ...real };
    expect(() => requireOwnSecrets(loadConfig(worker))).toThrow(/^Invalid configuration:\n {2}ARCADIA_ENCRYPTION_KEYS: .*\n {2}DATABASE_URL: [^\n]*POSTGRES_PASSWORD[^\n]*$/);
    expect(() => requireOwnSecrets(loadConfig(web))).toThrow(/ARCADIA_ENCRYPTION_KEYS: .*\n {2}DATABASE_URL: .*\n {2}DASHBOARD_PASSWORD: .*\n {2}API_TOKENS: the secret of token-1 is [^\n]*$/);
    // One `.env` for all services: no secret of the file is left.
    const own = { POSTGRES_PASSWORD: 'p'.repeat(24), ARCADIA_ENCRYPTION_KEYS: generateKey(), DASHBOARD_PASSWORD: 'd'.repeat(24), API_TOKENS: 'a'.repeat(24), DIGITALOCEAN_TOKEN: 'dop_v1_0123456789', DIGITALOCEAN_API_URL: real.DIGITALOCEAN_API_URL };
    for (const name of ['worker-1', 'web']) expect(() => requireOwnSecrets(loadConfig({ ...settingsOf(name, own), HOST: '0.0.0.0' }))).not.toThrow();
    for (const name of ['worker-1', 'web']) expect(() => requireOwnSecrets(loadConfig({ ...settingsOf(name), HOST: '0.0.0.0' }))).not.toThrow();
    // A key that sealed before may still open.
    const rotated = settingsOf('worker-1', { ...own, ARCADIA_ENCRYPTION_KEYS: `${own.ARCADIA_ENCRYPTION_KEYS},${published}` });
    expect(() => requireOwnSecrets(loadConfig(rotated))).not.toThrow();
    expect(() => requireOwnSecrets(loadConfig({ ...rotated, ARCADIA_ENCRYPTION_KEYS: `${published},${own.ARCADIA_ENCRYPTION_KEYS}` }))).toThrow('ARCADIA_ENCRYPTION_KEYS: the key that seals');
  });

  test.each(['worker', 'web'])('does not start %s with the real DigitalOcean and its own passwords', async (command) => {
    const settings = settingsOf(command === 'web' ? 'web' : 'worker-1', { DIGITALOCEAN_TOKEN: 'dop_v1_0123456789', DIGITALOCEAN_API_URL: 'https://api.digitalocean.com' });
    const { code, stderr } = await runCommand([command], { ...settings, PATH: process.env['PATH'], HOST: '127.0.0.1' });
    expect(code).toBe(78);
    expect(stderr).toContain('DATABASE_URL: its password is published in compose.yaml, and this process works with the real DigitalOcean; set another one');
    expect(stderr).not.toContain('development-password');
  });

  test('publishes ports on this machine alone, and lets workers finish their steps', () => {
    expect(Object.values(services).flatMap(({ ports }) => ports).filter((port) => !port.startsWith('127.0.0.1:'))).toEqual([]);
    for (const name of ['worker-1', 'worker-2']) expect(Number.parseInt(services[name]?.stop_grace_period ?? '', 10) * 1_000).toBeGreaterThan(defaults.worker.shutdownMs);
    expect(ours.filter(([, { read_only: isReadOnly }]) => isReadOnly !== true)).toEqual([]);
  });
});

const reference = z.strictObject({ name: z.string(), valueFrom: z.strictObject({ secretKeyRef: z.strictObject({ name: z.literal('arcadia'), key: z.string(), optional: z.boolean().optional() }) }) });
const probe = z.looseObject({ httpGet: z.strictObject({ path: z.string(), port: z.string() }) });
const container = z.strictObject({
  name: z.string(),
  image: z.literal('arcadia-cloud'),
  args: z.tuple([z.enum(['migrate', 'worker', 'web'])]),
  ports: z.array(z.strictObject({ name: z.string(), containerPort: z.number() })).default([]),
  envFrom: z.tuple([z.strictObject({ configMapRef: z.strictObject({ name: z.literal('arcadia') }) })]),
  // No value: every secret by reference.
  env: z.array(reference),
  startupProbe: probe.optional(),
  livenessProbe: probe.optional(),
  readinessProbe: probe.optional(),
  resources: z.strictObject({ requests: z.record(z.string(), z.string()), limits: z.record(z.string(), z.string()) }),
  // The restricted Pod Security Standard, and a read-only root.
  securityContext: z.strictObject({ allowPrivilegeEscalation: z.literal(false), readOnlyRootFilesystem: z.literal(true), capabilities: z.strictObject({ drop: z.tuple([z.literal('ALL')]) }) }),
});
const labels = z.record(z.string(), z.string());
const template = z.strictObject({
  metadata: z.strictObject({ labels, annotations: labels.optional() }),
  spec: z.strictObject({
    restartPolicy: z.literal('OnFailure').optional(),
    terminationGracePeriodSeconds: z.number().optional(),
    serviceAccountName: z.literal('arcadia'),
    automountServiceAccountToken: z.literal(false),
    securityContext: z.strictObject({ runAsNonRoot: z.literal(true), runAsUser: z.literal(10_001), runAsGroup: z.literal(10_001), seccompProfile: z.strictObject({ type: z.literal('RuntimeDefault') }) }),
    topologySpreadConstraints: z.array(z.looseObject({})).optional(),
    containers: z.tuple([container]),
  }),
});
const metadata = z.strictObject({ name: z.string(), labels });
const selector = z.strictObject({ matchLabels: labels });
const workload = z.discriminatedUnion('kind', [
  z.strictObject({ apiVersion: z.literal('apps/v1'), kind: z.literal('Deployment'), metadata, spec: z.strictObject({ replicas: z.number(), selector, strategy: z.looseObject({}), template }) }),
  z.strictObject({ apiVersion: z.literal('batch/v1'), kind: z.literal('Job'), metadata, spec: z.strictObject({ backoffLimit: z.number(), activeDeadlineSeconds: z.number(), ttlSecondsAfterFinished: z.number(), template }) }),
]);

const egress = z.strictObject({ to: z.array(z.looseObject({})).optional(), ports: z.array(z.strictObject({ protocol: z.enum(['TCP', 'UDP']), port: z.number() })).optional() });
const networkPolicy = z.looseObject({ spec: z.looseObject({ podSelector: selector, policyTypes: z.array(z.string()), egress: z.array(egress).optional() }) });

const egressOf = (source: string, command: string) =>
  parseAllDocuments(source)
    .map((document) => networkPolicy.parse(document.toJS()).spec)
    .filter(({ podSelector }) => podSelector.matchLabels['app.kubernetes.io/component'] === command)
    .flatMap((spec) => (spec.policyTypes.includes('Egress') ? (spec.egress ?? []) : []));
/** Matches a list with a rule that lets this port of this destination be reached. */
const reaches = (to: object, port: number): unknown =>
  expect.arrayContaining([
    expect.toSatisfy((rule: z.infer<typeof egress>) => JSON.stringify(rule.to ?? []).includes(JSON.stringify(to).slice(1, -1)) && (rule.ports === undefined || rule.ports.some((one) => one.port === port))),
  ]);

const scaledObject = z.looseObject({
  spec: z.looseObject({
    scaleTargetRef: z.object({ name: z.string() }),
    minReplicaCount: z.number().min(1),
    fallback: z.looseObject({ replicas: z.number() }),
    triggers: z.array(z.looseObject({ type: z.literal('prometheus'), metricType: z.string(), metadata: z.looseObject({ query: z.string(), threshold: z.string(), ignoreNullValues: z.string().optional() }) })),
  }),
});

describe('the Kubernetes manifests', () => {
  const { spec: scaled } = scaledObject.parse(documents('deploy/kubernetes/keda/scaled-object.yaml')[0]);
  const folder = 'deploy/kubernetes/base/';
  const listed = z.array(z.string()).parse(documents(`${folder}kustomization.yaml`)[0]?.['resources']);
  const resources = listed.flatMap((name) => documents(`${folder}${name}`));
  const workloads = resources.filter(({ kind }) => kind === 'Deployment' || kind === 'Job').map((resource) => workload.parse(resource));
  const pod = (command: string) => {
    const found = workloads.find(({ spec }) => spec.template.spec.containers[0].args[0] === command);
    if (found === undefined) throw new Error(`no workload runs ${command}`);
    return found.spec.template.spec;
  };
  const settings = environment.parse(resources.find(({ kind }) => kind === 'ConfigMap')?.['data']);

  test('are all listed, restricted, and hold no secret', () => {
    expect(readdirSync(new URL(folder, root)).filter((name) => name !== 'kustomization.yaml').toSorted()).toEqual(listed.toSorted());
    expect(resources.map(({ kind }) => kind).toSorted()).toEqual(['ConfigMap', 'Deployment', 'Deployment', 'Job', 'NetworkPolicy', 'NetworkPolicy', 'NetworkPolicy', 'PodDisruptionBudget', 'PodDisruptionBudget', 'Service', 'ServiceAccount']);
    expect(workloads.map(({ kind, metadata: { name } }) => `${kind} ${name}`)).toEqual(['Job arcadia-migrate', 'Deployment arcadia-worker', 'Deployment arcadia-web']);
  });

  test('set variables that exist, each under its own name, with values that the program takes', () => {
    const referenced = workloads.flatMap(({ spec }) => spec.template.spec.containers[0].env);
    expect(referenced.filter(({ name, valueFrom }) => name !== valueFrom.secretKeyRef.key)).toEqual([]);
    expect([...referenced.map(({ name }) => name), ...Object.keys(settings)].filter((name) => !variables.has(name))).toEqual([]);
    expect(requireClosedMetrics(loadConfig({ ...settings, HOST: '0.0.0.0' }))).toBeNull();
    expect(pod('web').containers[0].env.map(({ name }) => name)).not.toContain('DIGITALOCEAN_TOKEN');
    // With another store of the queues than the others, `migrate` refuses a pooler, or makes tables that nothing uses.
    for (const command of ['migrate', 'worker', 'web']) expect(pod(command).containers[0].env.map(({ name }) => name)).toEqual(expect.arrayContaining(['DATABASE_URL', 'REDIS_URL']));
    expect(pod('worker').containers[0].env.map(({ name }) => name)).toEqual(expect.arrayContaining(['DIGITALOCEAN_TOKEN', 'ARCADIA_ENCRYPTION_KEYS']));
    // Each of them gets OUTCOME_WEBHOOK_URL, once the ConfigMap has it, and starts with both or neither.
    for (const command of ['migrate', 'worker', 'web']) expect(pod(command).containers[0].env.map(({ name }) => name)).toContain('OUTCOME_WEBHOOK_SECRETS');
  });

  test('give workers more time to stop than they take', () => {
    expect((pod('worker').terminationGracePeriodSeconds ?? 30) * 1_000).toBeGreaterThan(Number(settings['WORKER_SHUTDOWN_MS']));
  });

  test.each(['worker', 'web'])('ask %s only whether it lives, and restart it for nothing else', (command) => {
    const { containers: [{ startupProbe, livenessProbe, readinessProbe, ports: [port] }] } = pod(command);
    for (const found of [startupProbe, livenessProbe, readinessProbe]) expect(found?.httpGet.port).toBe(port?.name);
    // Neither asks Postgres or Redis.
    expect([startupProbe?.httpGet.path, livenessProbe?.httpGet.path]).toEqual(['/healthz', '/healthz']);
    expect(readinessProbe?.httpGet.path).toBe(command === 'web' ? '/readyz' : '/healthz');
    expect(port?.containerPort).toBe(command === 'web' ? defaults.web.port : Number(settings['WORKER_METRICS_PORT']));
  });

  test('let web reach DigitalOcean too, and workers the private networks whose rules are no comments any more', () => {
    const text = read(`${folder}network-policies.yaml`);
    const anywhere = { cidr: '0.0.0.0/0' };
    expect(egressOf(text, 'web')).toEqual(reaches(anywhere, 443));
    expect(egressOf(text, 'worker')).toEqual(reaches(anywhere, 443));
    const inside = { namespaceSelector: { matchLabels: { 'kubernetes.io/metadata.name': 'backend' } } };
    expect(egressOf(text, 'worker')).not.toEqual(reaches(inside, 443));
    const uncommented = text.replaceAll(/^( +)#( *(?:- |\w+: ))/gm, '$1$2');
    expect(egressOf(uncommented, 'worker')).toEqual(reaches({ cidr: '10.0.0.0/8' }, 22));
    expect(egressOf(uncommented, 'worker')).toEqual(reaches(inside, 443));
    // The page shows the same lines.
    const rules = [...text.matchAll(/^ +#( *(?:- |\w+: ).*)$/gm)].map(([, line = '']) => line.trim());
    const page = read('docs/how-to/deploy.md').split('\n').map((line) => line.trim());
    expect(rules.filter((line) => !page.includes(line))).toEqual([]);
    for (const name of ['READY_PROBE_ALLOW', 'OUTCOME_WEBHOOK_URL']) expect(text).toContain(name);
  });

  test('select the pods that they mean', () => {
    const ofPods = workloads.map(({ spec }) => spec.template.metadata.labels);
    const selectors = resources.flatMap(({ spec }) => {
      const { selector: chosen, podSelector } = z.looseObject({ selector: z.unknown(), podSelector: z.unknown() }).partial().catch({}).parse(spec);
      return [chosen, podSelector].filter((one) => one !== undefined).map((one) => labels.parse(z.looseObject({ matchLabels: labels }).safeParse(one).data?.matchLabels ?? one));
    });
    expect(selectors.length).toBe(8);
    for (const wanted of selectors) expect(ofPods.some((given) => Object.entries(wanted).every(([key, value]) => given[key] === value))).toBe(true);
  });

  test('scale by metrics that workers export', async () => {
    expect(workloads.map(({ metadata: { name } }) => name)).toContain(scaled.scaleTargetRef.name);
    const named = scaled.triggers.flatMap(({ metadata: { query } }) => query.match(/arcadia_\w+/g) ?? []);
    expect(named).toContain('arcadia_job_lateness_seconds_bucket');
    const exported = await createWorkerMetrics(() => []).expose();
    expect(named.filter((name) => !exported.includes(`# TYPE ${name.replace(/_bucket$/, '')} `))).toEqual([]);
    expect(exported).toContain('arcadia_job_lateness_seconds_bucket{');
  });

  // A trigger whose query is empty must fail, and `fallback` must then hold the fleet: KEDA applies it to AverageValue.
  test.each(scaled.triggers)('do not take a fleet that nobody scrapes for an idle one: $metadata.query', ({ metricType, metadata: { query, ignoreNullValues } }) => {
    expect({ metricType, ignoreNullValues }).toEqual({ metricType: 'AverageValue', ignoreNullValues: 'false' });
    // Outside of brackets, no literal makes up for missing workers.
    let outside = query;
    while (outside.includes('(')) outside = outside.replaceAll(/\([^()]*\)/g, '');
    expect(outside).not.toMatch(/vector|\bor\b/);
    expect(query).toMatch(/(?:count|avg) by \(queue\) \(arcadia_worker_concurrency\)/);
    expect(scaled.fallback).toMatchObject({ behavior: 'currentReplicasIfHigher' });
  });

  test('have the Prometheus Operator scrape the ports at which workers and web serve metrics', () => {
    const overlay = 'deploy/kubernetes/keda/';
    const overlaid = z.array(z.string()).parse(documents(`${overlay}kustomization.yaml`)[0]?.['resources']);
    expect(overlaid.toSorted()).toEqual(['../base', ...readdirSync(new URL(overlay, root)).filter((name) => name !== 'kustomization.yaml')].toSorted());
    const monitors = z
      .array(z.looseObject({ metadata: z.looseObject({ name: z.string() }), spec: z.strictObject({ selector, podMetricsEndpoints: z.tuple([z.looseObject({})]) }) }))
      .parse(overlaid.flatMap((name) => (name.endsWith('.yaml') ? documents(`${overlay}${name}`) : [])).filter(({ kind }) => kind === 'PodMonitor'));
    expect(monitors.map(({ metadata: { name } }) => name)).toEqual(['arcadia-worker', 'arcadia-web']);
    for (const { metadata, spec } of monitors) {
      const labelled = workloads.find(({ metadata: { name } }) => name === metadata.name);
      expect(labelled?.spec.template.metadata.labels).toMatchObject(spec.selector.matchLabels);
      expect(spec.podMetricsEndpoints[0]).toMatchObject({ port: pod(metadata.name === 'arcadia-web' ? 'web' : 'worker').containers[0].ports[0]?.name, path: '/metrics' });
    }
    // A worker is open to whoever the NetworkPolicy lets in; the web wants a token.
    expect(monitors.map(({ spec: { podMetricsEndpoints } }) => podMetricsEndpoints[0]['authorization'])).toEqual([undefined, { credentials: { name: 'arcadia', key: 'METRICS_TOKEN' } }]);
  });
});

describe('the systemd units', () => {
  const folder = new URL('deploy/systemd/', root);
  const units = readdirSync(folder);

  test.each(units)('%s is hardened, is told its secrets by a file, and is not restarted with a wrong configuration', (unit) => {
    for (const [key, value] of Object.entries({ DynamicUser: 'yes', NoNewPrivileges: 'yes', ProtectSystem: 'strict', CapabilityBoundingSet: '', RestartPreventExitStatus: '78', EnvironmentFile: '/etc/arcadia/arcadia.env', WantedBy: 'multi-user.target' })) {
      expect(settingOf(unit, key)).toBe(value);
    }
    expect(read(`deploy/systemd/${unit}`)).not.toMatch(/^Environment=/m);
  });

  test('give workers more time to stop than they take', () => {
    expect(Number(settingOf('arcadia-worker@.service', 'TimeoutStopSec')) * 1_000).toBeGreaterThan(defaults.worker.shutdownMs);
  });
});
