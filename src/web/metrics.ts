// /metrics in Prometheus's text format: the sagas from Postgres, the queues from BullMQ, and this process. Each worker
// exposes what only it knows (requests to DigitalOcean, the remaining budget) on its own port (WORKER_METRICS_PORT),
// unless it runs in this process.
import { Counter, Gauge, Registry, collectDefaultMetrics } from 'prom-client';
import type { InventoryStats } from '../inventory/stats.ts';
import { withDeadline } from '../platform/deadline.ts';
import type { Log } from '../platform/log.ts';
import { toMetricsText } from '../platform/metrics-text.ts';
import { sagaStatuses } from '../saga/saga.ts';
import { STEP_WINDOW_SECONDS } from '../saga/stats.ts';
import type { QueuesPort, SagaPort, StatsPort, WebPorts } from './ports.ts';
import type { Limits } from '../fleet/condition.ts';
import type { FleetFacts } from '../fleet/conditions.ts';
import { queueConditionNames } from '../fleet/queue-conditions.ts';
import type { ConditionName } from '../fleet/severities.ts';
import { conditionNames } from '../fleet/severities.ts';
import type { CredentialKind } from './auth.ts';
import type { FleetWatch } from './fleet-status.ts';
import { checksOf } from './fleet-status.ts';
import { checkReadiness } from './readiness.ts';

export type Metrics = Readonly<{
  countRequest(labels: { method: string; route: string; status: string }): void;
  countRefusedCredentials(kind: CredentialKind): void;
  /** Returns the current metrics. Omits what cannot be read; `arcadia_scrape_ok` shows that. */
  expose(): Promise<string>;
}>;

// Several scrapers, or a frequent one, cost Postgres no more than one.
const KEEP_MS = 2_000;

// A hanging store must not fail the scrape that would raise the alert. Prometheus gives up after 10 s, some scrapers
// after 2.
const ANSWER_WITHIN_MS = 1_500;

type MetricsPorts = Readonly<{ stats: StatsPort; queues: QueuesPort; sagas: Pick<SagaPort, 'definitions'> }> & Pick<WebPorts, 'ownMetrics'>;

/** Creates the metrics of a web process. */
export function createMetrics(ports: MetricsPorts, { fleet: watch, limits }: { fleet: Pick<FleetWatch, 'read'>; limits: Limits }, log: Log): Metrics {
  const own = new Registry();
  collectDefaultMetrics({ register: own });
  const requests = new Counter({ name: 'arcadia_http_requests_total', help: 'Requests that this web process answered', labelNames: ['method', 'route', 'status'], registers: [own] });
  const refused = new Counter({ name: 'arcadia_refused_credentials_total', help: 'Wrong credentials that this web process refused', labelNames: ['kind'], registers: [own] });
  // An alert on an increase needs a preceding 0.
  for (const kind of ['bearer', 'basic'] as const) refused.inc({ kind }, 0);

  const read = async (): Promise<string> => {
    const fleet = new Registry();
    const ok = new Gauge({ name: 'arcadia_scrape_ok', help: '1: the source was read; 0: it failed, or did not answer in time', labelNames: ['source'], registers: [fleet] });
    const ready = new Gauge({ name: 'arcadia_ready', help: '1: the check is green; 0: it is red', labelNames: ['check'], registers: [fleet] });
    const conditions = new Gauge({ name: 'arcadia_condition', help: '1 while the condition holds, else 0; missing while it is not known; /statusz has the details', labelNames: ['name'], registers: [fleet] });
    const workers = new Gauge({ name: 'arcadia_workers', help: 'Workers with a recent heartbeat', registers: [fleet] });
    const tellFleet = async () => {
      const status = await watch.read(ANSWER_WITHIN_MS);
      for (const { name, ok: isGreen } of checksOf(status, limits)) ready.set({ check: name }, isGreen ? 1 : 0);
      for (const name of conditionNames.filter((one) => isKnown(one, status.facts) && (limits.inventorySyncIntervalMs !== null || !inventoryConditions.has(one)))) conditions.set({ name }, status.conditions.some((one) => one.name === name) ? 1 : 0);
      workers.set(status.facts.postgres?.workers.filter(({ isAlive }) => isAlive).length ?? Number.NaN);
    };
    const [, queues] = await Promise.all([
      tell('postgres', ok, log, () => Promise.all([tellSagas(fleet, ports), ports.stats.inventory?.().then((inventory) => tellInventory(fleet, inventory))])),
      tell('queues', ok, log, () => ports.queues.exportMetrics()),
      checkReadiness(ports, ANSWER_WITHIN_MS).then((checks) => checks.forEach(({ name, ok: isGreen }) => ready.set({ check: name }, isGreen ? 1 : 0))),
      tellFleet(),
    ]);
    return mergeMetrics([await own.metrics(), await fleet.metrics(), await ports.ownMetrics(), ...(queues ?? [])]);
  };

  let kept: { text: Promise<string>; at: number } | null = null;
  return {
    countRequest: (labels) => requests.inc(labels),
    countRefusedCredentials: (kind) => refused.inc({ kind }),
    expose: () => {
      if (kept === null || performance.now() - kept.at > KEEP_MS) kept = { text: read(), at: performance.now() };
      return kept.text;
    },
  };
}

const alwaysKnown: ReadonlySet<ConditionName> = new Set(['postgres_away', 'queue_store_away', 'users_file_broken']);

// An app without an inventory has no use for their names.
const inventoryConditions: ReadonlySet<ConditionName> = new Set(['orphans_unknown']);

/** Whether what the condition is judged by was read: 0 would say that it does not hold. */
function isKnown(name: ConditionName, { postgres, queues, isNotMigrated }: FleetFacts): boolean {
  if (alwaysKnown.has(name) || (name === 'not_migrated' && isNotMigrated === true)) return true;
  return (queueConditionNames.has(name) ? queues : postgres) !== null;
}

async function tell<T>(source: string, ok: Gauge<'source'>, log: Log, read: () => Promise<T>): Promise<T | null> {
  try {
    const value = await withDeadline(ANSWER_WITHIN_MS, read(), () => new Error(`no answer within ${ANSWER_WITHIN_MS} ms`));
    ok.set({ source }, 1);
    return value;
  } catch (error) {
    log.warn({ err: error, source }, 'metrics could not be read');
    ok.set({ source }, 0);
    return null;
  }
}

/** Each as soon as it is read: what takes longer than the time limit leaves out itself alone. */
async function tellSagas(registry: Registry, { stats, sagas }: { stats: StatsPort; sagas: Pick<SagaPort, 'definitions'> }): Promise<void> {
  await Promise.all([
    stats.sagas().then((counts) => tellCounts(registry, counts, Object.keys(sagas.definitions))),
    stats.backlog().then((backlog) => tellBacklog(registry, backlog)),
    stats.steps().then((steps) => tellSteps(registry, steps)),
  ]);
}

function tellCounts(registry: Registry, counts: Awaited<ReturnType<StatsPort['sagas']>>, names: readonly string[]): void {
  const registers = [registry];
  const byStatus = new Gauge({ name: 'arcadia_sagas', help: 'Sagas by name and status; if there are more than 100,000, the number of finished ones is an estimate', labelNames: ['name', 'status'], registers });
  // An alert on a status needs its 0 too.
  for (const name of names) for (const status of sagaStatuses) byStatus.set({ name, status }, 0);
  for (const { name, status, count } of counts) byStatus.set({ name, status }, count);
  const stuck = counts.filter(({ status }) => status === 'stuck').reduce((sum, { count }) => sum + count, 0);
  new Gauge({ name: 'arcadia_sagas_stuck', help: 'Sagas that need attention', registers }).set(stuck);
}

function tellBacklog(registry: Registry, backlog: Awaited<ReturnType<StatsPort['backlog']>>): void {
  const registers = [registry];
  new Gauge({ name: 'arcadia_sagas_unfinished', help: 'Unfinished sagas', registers }).set(backlog.unfinished);
  new Gauge({ name: 'arcadia_oldest_unfinished_saga_age_seconds', help: 'Age of the oldest unfinished saga; 0 if there is none', registers }).set(backlog.oldestAgeSeconds);
  new Gauge({ name: 'arcadia_reconciler_overdue_seconds', help: 'How long the saga that should have been picked up first has been overdue', registers }).set(backlog.overdueSeconds);
}

function tellSteps(registry: Registry, steps: Awaited<ReturnType<StatsPort['steps']>>): void {
  const registers = [registry];
  const window = `in the last ${STEP_WINDOW_SECONDS / 60} minutes`;
  const outcomes = new Gauge({ name: 'arcadia_step_outcomes', help: `Results of steps ${window}`, labelNames: ['step', 'outcome'], registers });
  const durations = new Gauge({
    name: 'arcadia_step_duration_seconds',
    help: `Duration of steps, including waits, ${window}`,
    labelNames: ['step', 'outcome', 'quantile'],
    registers,
  });
  for (const { step, outcome, count, p50Seconds, p90Seconds, p99Seconds } of steps) {
    outcomes.set({ step, outcome }, count);
    durations.set({ step, outcome, quantile: '0.5' }, p50Seconds);
    durations.set({ step, outcome, quantile: '0.9' }, p90Seconds);
    durations.set({ step, outcome, quantile: '0.99' }, p99Seconds);
  }
}

function tellInventory(registry: Registry, { present, drift, orphans, held, leased, leasesHeld, spentTags, syncAgeSeconds, syncDurationSeconds, failedSyncs }: InventoryStats): void {
  const registers = [registry];
  const gauge = (name: string, help: string, value: number) => new Gauge({ name: `arcadia_${name}`, help, registers }).set(value);
  gauge('inventory_droplets', 'Droplets in the account', present);
  const driftOpen = new Gauge({ name: 'arcadia_drift_open', help: 'Open drift, by field', labelNames: ['field'], registers });
  for (const { field, count } of drift) driftOpen.set({ field }, count);
  const byCategory = new Gauge({ name: 'arcadia_orphans', help: 'Droplets with our tags for which no record accounts', labelNames: ['category'], registers });
  const costs = new Gauge({ name: 'arcadia_orphans_usd_per_hour', help: 'Hourly price of orphans in USD', labelNames: ['category'], registers });
  for (const category of ['surplus', 'unknown', 'acknowledged'] as const) {
    const found = orphans.find((one) => one.category === category);
    byCategory.set({ category }, found?.count ?? 0);
    costs.set({ category }, found?.usdPerHour ?? 0);
  }
  gauge('leases', 'Droplets with a lease that has not expired', leased);
  gauge('spent_tags', 'Sagas whose droplets are gone and whose tags are still to be deleted; at most 100,000', spentTags);
  gauge('leases_held', 'Droplets whose lease ended and which are kept until someone approves their destruction', leasesHeld);
  gauge('orphans_held', 'Surplus droplets that are kept until someone approves their destruction', held);
  gauge('inventory_failed_syncs', 'Failed syncs since the last complete one', failedSyncs);
  gauge('inventory_sync_age_seconds', 'Time since the end of the last complete sync; without one, since the first attempt', syncAgeSeconds);
  gauge('inventory_sync_duration_seconds', 'Duration of the last complete sync', syncDurationSeconds);
}

/** Merges documents so that each metric has one HELP and one TYPE line followed by all its samples, as the format requires. */
export function mergeMetrics(documents: readonly string[]): string {
  const families = new Map<string, { help: string | null; type: string | null; samples: string[] }>();
  for (const document of documents) {
    let current = '';
    for (const line of toMetricsText([document]).split('\n').filter((candidate) => candidate.trim() !== '')) {
      const [, keyword, name] = /^# (HELP|TYPE) (\S+)/.exec(line) ?? [];
      if (keyword === undefined && line.startsWith('#')) continue;
      const sample = /^[a-zA-Z_:][a-zA-Z0-9_:]*/.exec(line)?.[0] ?? '';
      // The sample names of a histogram are longer than the name in its HELP.
      const family: string = name ?? (sample.startsWith(current) && current !== '' ? current : sample);
      current = family;
      const entry = families.get(family) ?? { help: null, type: null, samples: [] };
      families.set(family, entry);
      if (keyword === 'HELP') entry.help ??= line;
      else if (keyword === 'TYPE') entry.type ??= line;
      else entry.samples.push(line);
    }
  }
  return `${[...families.values()].flatMap(({ help, type, samples }) => [help, type, ...samples].filter((line) => line !== null)).join('\n')}\n`;
}
