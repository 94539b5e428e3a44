// /fleet: workers, queues, background work, and charts of the last hour, day or week. The parts are read separately: one that does
// not answer in time is shown as unknown and does not delay the others.
import { z } from 'zod';
import type { FleetStatus } from '../../fleet/conditions.ts';
import { pauseOf } from '../../fleet/queue-conditions.ts';
import { withDeadline } from '../../platform/deadline.ts';
import { formatDuration } from '../../platform/duration.ts';
import type { RequestUse } from '../../inventory/request-counts.ts';
import type { QueueDepth } from '../../queues/dashboard.ts';
import type { Durations, History, Span } from '../../saga/history.ts';
import type { App } from '../app.ts';
import type { Html } from '../html.ts';
import { html } from '../html.ts';
import type { InventoryPort, WebPorts } from '../ports.ts';
import { renderChart } from './charts.ts';
import { sendErrorPage } from './error-page.ts';
import { withoutEmpty } from './filter.ts';
import { sendPage } from './layout.ts';
import { ago } from './times.ts';

// `keepMs`: a chart of a week reads many rows, and everybody sees the same one.
const spans = {
  hour: { seconds: 3_600, partSeconds: 60, part: 'minute', keepMs: 15_000 },
  day: { seconds: 86_400, partSeconds: 1_800, part: '30 minutes', keepMs: 60_000 },
  week: { seconds: 604_800, partSeconds: 7_200, part: '2 hours', keepMs: 300_000 },
} as const satisfies Readonly<Record<string, Span & { part: string; keepMs: number }>>;

type SpanName = keyof typeof spans;
const spanNames = ['hour', 'day', 'week'] as const satisfies readonly SpanName[];

const fleetQuery = z.object({ span: z.enum(spanNames, `expected ${spanNames.join(', ')}`).default('hour') });

const ANSWER_WITHIN_MS = 1_500;

type Ports = Pick<WebPorts, 'stats' | 'queues' | 'inventory'>;

/** The last sync, and when the last complete one began to read the account. */
type Syncs = Readonly<{ last: Awaited<ReturnType<InventoryPort['syncs']>>[number] | null; readAt: Date | null }>;

type Facts = Readonly<{
  status: FleetStatus | null;
  depths: readonly QueueDepth[] | null;
  retention: Awaited<ReturnType<WebPorts['stats']['retention']>> | null;
  /** Undefined: the app has no inventory. */
  syncs: Syncs | null | undefined;
  /** Undefined: the app sends no requests to DigitalOcean. */
  requests: RequestUse | null | undefined;
  history: History | null;
  span: SpanName;
}>;

/** Adds the page. */
export function addFleetPage(app: App, { stats, queues, inventory }: Ports): void {
  const readHistory = keeping((span) => stats.history(spans[span]));
  void app.register(async (scope: App) => {
    scope.setErrorHandler(sendErrorPage);
    scope.get(
      '/fleet',
      {
        schema: { hide: true, querystring: fleetQuery },
        preValidation: async (request, reply) => {
          const address = withoutEmpty(request.url);
          return address === null ? undefined : reply.redirect(address);
        },
      },
      async (request, reply) => {
        const { span } = request.query;
        const [status, depths, retention, syncs, requests, history] = await Promise.all([
          orNull(app.fleet.glance()),
          orNull(queues.depths()),
          orNull(stats.retention()),
          inventory === undefined ? undefined : orNull(readSyncs(inventory)),
          inventory === undefined ? undefined : orNull(inventory.requests(spans[span])),
          orNull(readHistory(span)),
        ]);
        return sendPage(reply, { title: 'Fleet', place: 'fleet', body: renderFleet({ status, depths, retention, syncs, requests, history, span }) });
      },
    );
    await Promise.resolve();
  });
}

async function readSyncs(inventory: InventoryPort): Promise<Syncs> {
  const [[last = null], { readAt }] = await Promise.all([inventory.syncs(1), inventory.syncAge()]);
  return { last, readAt };
}

async function orNull<T>(reading: Promise<T>): Promise<T | null> {
  return withDeadline(ANSWER_WITHIN_MS, reading, () => new Error('late')).catch(() => null);
}

/** Caches results for a while. A failed read is not cached. */
function keeping(read: (span: SpanName) => Promise<History>): (span: SpanName) => Promise<History> {
  const kept = new Map<SpanName, { history: Promise<History>; at: number }>();
  return async (span) => {
    const known = kept.get(span);
    if (known !== undefined && performance.now() - known.at < spans[span].keepMs) return known.history;
    const history = read(span);
    kept.set(span, { history, at: performance.now() });
    history.catch(() => kept.delete(span));
    return history;
  };
}

function renderFleet(facts: Facts): Html {
  const now = facts.status?.at ?? new Date(Date.now());
  return html`<h1>Fleet</h1>
<div id="live" data-now="${now.toISOString()}" data-refresh-ms="15000">
${background(facts, now)}
${workersOf(facts, now)}
${queuesOf(facts, now)}
${requestsOf(facts)}
</div>
${chartsOf(facts, now)}`;
}

const unknown = (what: string) => html`<p class="none">Not known: ${what} did not answer in time.</p>`;

function background({ status, retention, syncs, requests }: Facts, now: Date): Html {
  const postgres = status?.facts.postgres ?? null;
  const cards: Html[] = [];
  if (postgres === null) {
    cards.push(card('Sagas', 'not known', 'Postgres did not answer in time', true));
  } else {
    const inProgress = `${postgres.unfinished} in progress`;
    // Red marks what needs a person.
    if (postgres.stuck === 0) cards.push(card('Sagas', inProgress, 'none need attention', false));
    else cards.push(card('Sagas', html`<a href="/sagas?status=stuck">${postgres.stuck} ${postgres.stuck === 1 ? 'needs' : 'need'} attention</a>`, inProgress, true));
    const overdue = Math.round(postgres.overdueSeconds);
    const isAlive = postgres.workers.some((worker) => worker.isAlive);
    const late = overdue === 0 ? 'no saga is overdue' : `a saga is overdue by ${formatDuration(overdue * 1_000)}`;
    if (isAlive) cards.push(card('Reconciler', late, 'It enqueues sagas whose jobs were lost', status?.conditions.some(({ name }) => name === 'sagas_overdue') ?? false));
    else cards.push(card('Reconciler', 'does not run', overdue === 0 ? 'No worker is running' : `No worker is running: ${late}`, true));
    const waits = postgres.throttledUntil !== null && postgres.throttledUntil > now;
    if (syncs !== undefined && !isAlive) cards.push(card('Request budget', 'not known', 'No worker is running', false));
    else if (syncs !== undefined) cards.push(card('Request budget', waits ? 'used up' : 'has room', waits && postgres.throttledUntil !== null ? html`room again at ${postgres.throttledUntil.toISOString().slice(11, 19)} UTC` : leftOf(requests), false));
  }
  if (syncs !== undefined) cards.push(syncCard(syncs, now));
  if (retention === null) cards.push(card('Retention', 'not known', 'Postgres did not answer in time', true));
  else cards.push(card('Retention', retention.isRunning ? 'running' : retention.lastAt === null ? 'has not run yet' : html`ran ${ago(retention.lastAt, now)}`, 'It deletes rows past their retention, hourly', false));
  return html`<ul class="cards">${cards}</ul>`;
}

function leftOf(requests: RequestUse | null | undefined): Html | string {
  if (requests?.left == null) return 'as the workers last saw it';
  const { minute, hour, knownAt } = requests.left;
  return html`${minute} left this minute and ${hour} this hour, as of ${ago(knownAt, requests.now)}`;
}

function syncCard(syncs: Syncs | null, now: Date): Html {
  if (syncs === null) return card('Inventory sync', 'not known', 'Postgres did not answer in time', true);
  const { last, readAt } = syncs;
  const age = readAt === null ? html`no complete sync yet` : html`last complete ${ago(readAt, now)}`;
  if (last === null) return card('Inventory sync', 'has not run yet', 'A worker starts it', false);
  if (last.finishedAt === null) return card('Inventory sync', html`sync ${last.number} is running`, age, false);
  return card('Inventory sync', last.outcome === 'complete' ? age : html`sync ${last.number} ${last.outcome}`, last.outcome === 'complete' ? `sync ${last.number}, by ${last.worker}` : html`${last.error} · ${age}`, last.outcome !== 'complete');
}

function card(title: string, value: Html | string, more: Html | string, isBad: boolean): Html {
  return html`<li class="${isBad ? 'bad' : ''}"><small>${title}</small><b>${value}</b><small>${more}</small></li>`;
}

function workersOf({ status }: Facts, now: Date): Html {
  const postgres = status?.facts.postgres ?? null;
  const rows = postgres?.workers.map(
    ({ name, host, version, startedAt, lastSeenAt, jobs, concurrency, isAlive }) =>
      html`<tr><td><code>${name}</code></td><td>${host}</td><td>${version}</td><td>${ago(startedAt, now)}</td><td>${ago(lastSeenAt, now)}${isAlive ? null : html` <span class="badge stuck">no sign of life</span>`}</td><td>${isAlive ? html`${jobs} of ${concurrency}` : 'not known'}</td></tr>`,
  );
  const table =
    rows === undefined ? unknown('Postgres')
    : rows.length === 0 ? html`<p class="none">No worker has been seen lately. Start one with <code>arcadia worker</code>.</p>`
    : html`<div class="wide" tabindex="0"><table class="numbers"><thead><tr><th scope="col">Worker</th><th scope="col">Host</th><th scope="col">Version</th><th scope="col">Started</th><th scope="col">Last seen</th><th scope="col">Jobs</th></tr></thead><tbody>${rows}</tbody></table></div>`;
  return html`<section aria-labelledby="workers"><h2 id="workers">Workers</h2>${table}</section>`;
}

function queuesOf({ depths, status }: Facts, now: Date): Html {
  // BullMQ on Postgres counts no waiting jobs of a paused queue.
  const rows = depths?.map(({ name, isPaused, waiting, active, delayed, failed, oldestWaitingSince }) => {
    const pause = pauseOf(name, status?.facts.postgres ?? null);
    const paused = isPaused ? html` <span class="badge held">paused</span>${pause === null ? null : html` <small>by ${pause.actor}, ${ago(pause.at, now)}</small>`}` : null;
    return html`<tr><td><a href="/queues/queue/${name}"><code>${name}</code></a>${paused}</td><td>${isPaused && waiting === 0 ? '–' : waiting}</td><td>${active}</td><td>${delayed}</td><td>${failed}</td><td>${oldestWaitingSince === null ? '–' : ago(oldestWaitingSince, now)}</td></tr>`;
  });
  const table = rows === undefined ? unknown('the queue store') : html`<div class="wide" tabindex="0"><table class="numbers"><thead><tr><th scope="col">Queue</th><th scope="col">Waiting</th><th scope="col">Active</th><th scope="col">Delayed</th><th scope="col">Failed</th><th scope="col">Oldest waiting</th></tr></thead><tbody>${rows}</tbody></table></div>`;
  return html`<section aria-labelledby="depths"><h2 id="depths">Queues</h2>${table}</section>`;
}

const priorityWords: Readonly<Record<string, string>> = {
  now: 'what cannot be postponed', destroy: 'destroys', create: 'creates', page: 'further pages of lists', read: 'reads of droplets', sync: 'syncs and plans',
};

/** Who spends the request budget. */
function requestsOf({ requests }: Facts): Html | null {
  if (requests === undefined) return null;
  const rows = requests?.spent.map(({ priority, lastMinute, lastHour }) => html`<tr><td>${priorityWords[priority] ?? priority}</td><td>${lastMinute}</td><td>${lastHour}</td></tr>`);
  const table =
    rows === undefined ? unknown('Postgres')
    : rows.length === 0 ? html`<p class="none">No worker has sent a request in the last hour.</p>`
    : html`<div class="wide" tabindex="0"><table class="numbers"><thead><tr><th scope="col">For</th><th scope="col">Last minute</th><th scope="col">Last hour</th></tr></thead><tbody>${rows}</tbody></table></div>`;
  return html`<section aria-labelledby="requests"><h2 id="requests">Requests to DigitalOcean</h2>${table}</section>`;
}

function chartsOf({ history, requests, span }: Facts, now: Date): Html {
  const links = spanNames.map((name) => html`<a href="/fleet?span=${name}"${name === span ? html` aria-current="true"` : null}>Last ${name}</a>`);
  const head = html`<h2 id="history">History</h2><nav class="spans" aria-label="Span of the charts">${links}</nav>`;
  if (history === null) return html`<section aria-labelledby="history">${head}${unknown('Postgres')}</section>`;
  const times = history.parts.map(({ at }) => at);
  const counts = renderChart({
    title: `Sagas per ${spans[span].part}`, kind: 'bars', unit: 'count', times,
    series: [
      { label: 'started', className: 'started', values: history.parts.map(({ started }) => started) },
      { label: 'completed', className: 'completed', values: history.parts.map(({ completed }) => completed) },
      { label: 'rolled back', className: 'rolled', values: history.parts.map(({ rolledBack }) => rolledBack) },
    ],
  });
  const spent = requests == null ? null : renderChart({
    title: `Requests to DigitalOcean per ${spans[span].part}`, kind: 'bars', unit: 'count', times, series: [{ label: 'requests', className: 'started', values: requests.parts }],
  });
  const percentiles = (title: string, parts: Durations['parts']) =>
    renderChart({
      title, kind: 'lines', unit: 'seconds', times,
      series: [
        { label: 'p50', className: 'p50', values: parts.map((part) => part?.p50 ?? null) },
        { label: 'p99', className: 'p99', values: parts.map((part) => part?.p99 ?? null) },
      ],
    });
  const milestones = history.milestones.map(({ name, label, parts }) => percentiles(`Time to ${label}: ${name}`, parts));
  const durations = history.durations.map(({ name, parts }) => percentiles(`Start to completion: ${name}`, parts));
  return html`<section aria-labelledby="history">${head}<div class="charts">${counts}${spent}${milestones}${durations}</div><p class="none">Read ${ago(history.readAt, now)}.</p></section>`;
}
