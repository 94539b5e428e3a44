// docs/reference/metrics.md has every series that web and worker declare, with its type and labels, and no other.
import { readFileSync, readdirSync } from 'node:fs';
import { Registry } from 'prom-client';
import { expect, onTestFinished, test, vi } from 'vitest';
import { z } from 'zod';
import { createDropletMetrics } from '../../src/droplets/metrics.ts';
import { directIo } from '../../src/platform/io.ts';
import { silentLog } from '../../src/platform/log.ts';
import { createSagaEndMetrics } from '../../src/processes/saga-end-metrics.ts';
import { startWorkerHttp } from '../../src/processes/worker-http.ts';
import { createWorkerMetrics } from '../../src/processes/worker-metrics.ts';
import { openOutcomes } from '../../src/processes/worker-outcomes.ts';
import { openQueueConnection } from '../../src/queues/connection.ts';
import { openWebStage } from './stage.ts';
import type { Web } from './stage.ts';

const registered = z.object({ name: z.string(), type: z.string(), labelNames: z.array(z.string()) }).transform(({ name, type, labelNames }) => ({ name, type, labels: labelNames }));

type Series = Readonly<{ name: string; type: string; labels: readonly string[] }>;

const root = new URL('../../', import.meta.url);
const read = (path: string): string => readFileSync(new URL(path, root), 'utf8');
const isOurs = ({ name }: Series) => name.startsWith('arcadia_');
const lineOf = ({ name, type, labels }: Series) => `${name}: ${type} by ${labels.toSorted().join(', ') || 'nothing'}`;
const linesOf = (series: readonly Series[]) => [...new Set(series.map(lineOf))].toSorted();

/** The rows of the tables below a heading. */
function documented(heading: string): Series[] {
  const chapter = read('docs/reference/metrics.md').split(/^## /m).find((one) => one.startsWith(`${heading}\n`)) ?? '';
  return Array.from(chapter.matchAll(/^\| `(\w+)` \| (\w+) \| ([^|]*) \| [^|]+ \| [^|]+ \|$/gm), ([, name = '', type = '', labels = '']) => ({ name, type, labels: Array.from(labels.matchAll(/`(\w+)`/g), ([, label = '']) => label) }));
}

/** What registers while the work goes on. */
async function declaredIn(work: () => Promise<unknown>): Promise<Series[]> {
  const register = vi.spyOn(Registry.prototype, 'registerMetric');
  try {
    await work();
    return register.mock.calls.map(([metric]) => registered.parse(metric)).filter(isOurs);
  } finally {
    register.mockRestore();
  }
}

async function openWorkerMetrics(web: Web): Promise<void> {
  createWorkerMetrics(() => []);
  createSagaEndMetrics({});
  createDropletMetrics(() => null);
  const connection = openQueueConnection(web.queueStore, silentLog);
  onTestFinished(connection.close);
  openOutcomes({ config: { webhook: null, queue: null, notify: false }, db: web.db, connection, settings: { ...web.config.worker, name: 'w' }, sources: [], io: directIo, log: silentLog });
  (await startWorkerHttp({ host: '127.0.0.1', port: 0, readers: null, metrics: () => Promise.resolve(''), log: silentLog })).close();
}

test('each series is in the reference, with its type and labels, and each of the reference is declared', async () => {
  let web: Web | undefined;
  let text = '';
  const ofWeb = await declaredIn(async () => {
    web = await openWebStage();
    text = (await web.call('GET', '/metrics')).text;
  });
  if (web === undefined) throw new Error('no web');
  await using stage = web;
  const ofWorker = await declaredIn(() => openWorkerMetrics(stage));
  const both = documented('Both');
  expect(linesOf([...documented('Web').filter(isOurs), ...both])).toEqual(linesOf(ofWeb));
  expect(linesOf([...documented('Workers'), ...both])).toEqual(linesOf(ofWorker));
  const ofBullmq = Array.from(text.matchAll(/^# TYPE (bullmq_\w+) (\w+)$/gm), ([, name = '', type = '']) => `${name} ${type}`);
  expect(documented('Web').filter((one) => !isOurs(one)).map(({ name, type }) => `${name} ${type}`)).toEqual(ofBullmq);
});

test('no series is declared elsewhere than where this test looks', () => {
  const declaring = readdirSync(new URL('src', root), { recursive: true, encoding: 'utf8' }).filter((path) => path.endsWith('.ts') && read(`src/${path}`).includes("from 'prom-client'"));
  expect(declaring.toSorted()).toEqual(['droplets/metrics.ts', 'processes/saga-end-metrics.ts', 'processes/worker-http.ts', 'processes/worker-metrics.ts', 'processes/worker-outcomes.ts', 'web/metrics.ts']);
});
