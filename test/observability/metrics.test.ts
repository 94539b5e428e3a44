// What Prometheus finds at a worker's own port, and that the dashboard and the alert rules ask for nothing else.
import { readFileSync } from 'node:fs';
import { beforeAll, describe, expect, test } from 'vitest';
import { parse } from 'yaml';
import { z } from 'zod';
import { severities } from '../../src/fleet/severities.ts';
import { loadConfig } from '../../src/platform/config.ts';
import { silentLog } from '../../src/platform/log.ts';
import { startWeb } from '../../src/processes/web.ts';
import { startWorkerHttp } from '../../src/processes/worker-http.ts';
import { openFleet, runCommand, web as droplet } from '../support/fleet.ts';
import { parseMetrics } from '../support/parse-metrics.ts';

const read = (path: string): string => readFileSync(new URL(`../../${path}`, import.meta.url), 'utf8');
const rules = z
  .object({ groups: z.array(z.object({ rules: z.array(z.object({ alert: z.string(), expr: z.string(), labels: z.object({ severity: z.string() }), annotations: z.object({ summary: z.string(), runbook: z.string() }) })) })) })
  .parse(parse(read('ops/alerts.yaml')))
  .groups.flatMap((group) => group.rules);
const panels = z
  .object({ panels: z.array(z.object({ title: z.string(), targets: z.array(z.object({ expr: z.string() })).default([]) })) })
  .parse(JSON.parse(read('ops/grafana-dashboard.json'))).panels;

type Seen = Readonly<{ web: Map<string, number>; worker: Map<string, number>; type: string | null; answers: readonly unknown[]; exit: unknown }>;
let seen: Seen;

/** A saga from start to end in a worker process, and what it and the web then tell. */
beforeAll(async () => {
  await using fleet = await openFleet('redis', { faults: { rules: [{ match: { method: 'GET', path: '/v2/droplets/' }, effect: { status: 503 }, times: 1 }] } });
  const worker = await fleet.startWorker({ WORKER_METRICS_PORT: '0' });
  const web = await startWeb(loadConfig(fleet.environment({ PORT: '0' })), silentLog);
  const { sagaId } = await fleet.client.provisionDroplet(droplet);
  await fleet.atRest(sagaId);
  await fetch(`${web.url}/v1/sagas`);
  const url = /"metrics":"([^"]+)"/.exec(worker.output())?.[1] ?? '';
  const [ofWeb, ofWorker, healthz, elsewhere, posted] = await Promise.all([
    fetch(`${web.url}/metrics`),
    fetch(url),
    fetch(url.replace('/metrics', '/healthz')),
    fetch(url.replace('/metrics', '/elsewhere')),
    fetch(url, { method: 'POST' }),
  ]);
  const scraped = { web: parseMetrics(await ofWeb.text()), worker: parseMetrics(await ofWorker.text()) };
  const answers = [healthz.status, await healthz.text(), elsewhere.status, posted.status];
  worker.signal('SIGTERM');
  seen = { ...scraped, type: ofWorker.headers.get('content-type'), answers, exit: await worker.ended };
  await web.close();
});

test("a worker's port answers probes and Prometheus, and does not keep the worker from ending", () => {
  expect(seen.answers).toEqual([200, 'ok\n', 404, 405]);
  expect(seen.type).toContain('text/plain; version=0.0.4');
  expect(seen.exit).toEqual({ code: 0, signal: null });
});

test('a worker tells of its runs, its requests, the budget, its reconciler and its job loops', () => {
  const { worker } = seen;
  const runs = (step: string, result: string) =>
    worker.get(`arcadia_step_run_duration_seconds_count{saga="provision_droplet",step="${step}",direction="forward",result="${result}"}`);
  expect(runs('create_droplet', 'completed')).toBe(1);
  expect(runs('wait_droplet_active', 'waiting')).toBeGreaterThanOrEqual(1);
  expect(runs('wait_droplet_active', 'completed')).toBe(1);
  expect(worker.get('arcadia_digitalocean_requests_total{outcome="later"}')).toBe(1);
  expect(worker.get('arcadia_digitalocean_requests_total{outcome="unauthorized"}')).toBe(0);
  expect(worker.get('arcadia_digitalocean_request_duration_seconds_count{method="POST",path="/v2/droplets",outcome="done"}')).toBe(1);
  expect(worker.get('arcadia_reconciler_passes_total{result="done"}')).toBeGreaterThanOrEqual(1);
  expect(worker.get('arcadia_job_lateness_seconds_count{queue="saga-steps"}')).toBeGreaterThanOrEqual(3);
  expect(worker.get('arcadia_worker_concurrency{queue="saga-steps"}')).toBe(50);
  expect(worker.get('arcadia_worker_jobs_running{queue="saga-steps"}')).toBe(0);
  expect([...worker.keys()].some((key) => key.startsWith('process_cpu_seconds_total'))).toBe(true);
});

test('the web tells of each check of /readyz', () => {
  expect(['postgres', 'reconciler', 'jobs'].map((check) => seen.web.get(`arcadia_ready{check="${check}"}`))).toEqual([1, 1, 1]);
});

const named = (severity: string) => Object.entries(severities).flatMap(([name, one]) => (one === severity ? [name] : []));
const ruleOf = (alert: string) => rules.find((rule) => rule.alert === alert);
const patternOf = (alert: string) => /name[=!]~"([^"]+)"/.exec(ruleOf(alert)?.expr ?? '')?.[1]?.split('|');

test('an alert pages for critical conditions only, and warns of those that a person should check', () => {
  expect([ruleOf('ArcadiaCondition')?.labels, ruleOf('ArcadiaConditionToCheck')?.labels]).toEqual([{ severity: 'critical' }, { severity: 'warning' }]);
  expect(ruleOf('ArcadiaCondition')?.expr).toContain('name!~');
  expect(patternOf('ArcadiaCondition')).toEqual([...named('warning'), ...named('info')]);
  // ArcadiaOrphansUnknown tells of them, and can be removed where another environment shares the account.
  expect(patternOf('ArcadiaConditionToCheck')).toEqual(named('warning').filter((name) => name !== 'orphans_unknown'));
});

/** The metrics of an expression, each with the labels that it is asked by. */
function selectorsOf(expr: string): { name: string; labels: string[] }[] {
  return Array.from(expr.matchAll(/\b((?:arcadia|bullmq|nodejs|process)_\w+)(?:\{([^}]*)\})?/g), ([, name = '', matchers = '']) => ({
    name,
    labels: Array.from(matchers.matchAll(/(\w+)\s*(?:=~|!=|!~|=)/g), ([, label = '']) => label),
  }));
}

describe('what is asked for is told', () => {
  const asked = [...rules.map(({ alert, expr }) => ({ where: alert, expr })), ...panels.flatMap(({ title, targets }) => targets.map(({ expr }) => ({ where: title, expr })))];

  test.each(asked)('$where: $expr', ({ expr }) => {
    const told = [...seen.web.keys(), ...seen.worker.keys()];
    const selectors = selectorsOf(expr);
    expect(selectors.length).toBeGreaterThanOrEqual(1);
    for (const { name, labels } of selectors) {
      const samples = told.filter((sample) => sample === name || sample.startsWith(`${name}{`));
      expect({ name, samples }).not.toEqual({ name, samples: [] });
      for (const label of labels) expect(samples).toContainEqual(expect.stringContaining(`${label}="`));
    }
  });

  test('and each alert has its chapter in docs/how-to/operations.md', () => {
    const guide = read('docs/how-to/operations.md');
    const chapters = Array.from(guide.matchAll(/^### (Arcadia\w+)$/gm), ([, name]) => name);
    expect(chapters).toEqual(rules.map(({ alert }) => alert));
    for (const { alert, annotations } of rules) expect(annotations.runbook).toBe(`docs/how-to/operations.md#${alert.toLowerCase()}`);
  });
});

test('metrics that ask for a token tell nobody else, and probes need none', async () => {
  const readers = [{ name: 'prometheus', scopes: ['read'], secret: 'a-secret-long-enough' }] as const;
  const http = await startWorkerHttp({ readers, host: '127.0.0.1', port: 0, metrics: () => Promise.resolve('told 1\n'), log: silentLog });
  const ask = (path: string, authorization?: string) => fetch(`${http.url}${path}`, authorization === undefined ? {} : { headers: { authorization } });
  for (const wrong of [undefined, 'Bearer a-secret-long-enougH', 'Basic a-secret-long-enough', 'Bearer']) expect((await ask('/metrics', wrong)).status).toBe(401);
  const told = await ask('/metrics', 'Bearer a-secret-long-enough');
  expect([told.status, await told.text()]).toEqual([200, expect.stringContaining('told 1')]);
  expect((await ask('/healthz')).status).toBe(200);
  http.close();
});

test('a worker whose port is in use says so, and may be started again', async () => {
  const taken = await startWorkerHttp({ readers: null, host: '127.0.0.1', port: 0, metrics: () => Promise.resolve(''), log: silentLog });
  await using fleet = await openFleet('redis');
  const ended = await runCommand(['worker'], fleet.environment({ WORKER_METRICS_PORT: new URL(taken.url).port }));
  taken.close();
  // Supervisors restart no process that ended with 78.
  expect(ended.code).toBe(1);
  expect(ended.stderr).toMatch(/^arcadia: port \d+ of 127\.0\.0\.1 is in use\. Set WORKER_METRICS_PORT to another one/m);
});
