// The report of a chaos run: one document, and the same as a table for people.
import { z } from 'zod';
import { formatTable } from '../../src/cli/table.ts';
import { formatDuration } from '../../src/platform/duration.ts';
import { findViolations } from './checks.ts';
import type { Evidence } from './evidence.ts';
import { dropletsBySaga } from './evidence.ts';
import { DUPLICATES_DEFINITION, findFrozenCreates, measureDuplicates, measureRecovery, RECOVERY_DEFINITION } from './measures.ts';
import type { ChaosOptions } from './settings.ts';

const count = z.int().min(0);
const counts = z.record(z.string(), count);
const spread = { count, p50Ms: z.number().nullable(), p99Ms: z.number().nullable(), maxMs: z.number().nullable() };

export const reportSchema = z.object({
  ok: z.boolean(),
  options: z.object({ minutes: z.number(), sagasPerMinute: z.number(), workers: count, seed: z.int(), backend: z.enum(['redis', 'postgres']) }),
  /** How long after the last deed everything was at rest. */
  settledAfterMs: z.number(),
  sagas: z.object({ total: count, finished: count, byStatus: counts, rolledBackBecause: counts, rolledBackByFaultsAlone: count, retriedWhenStuck: count }),
  requests: z.object({ sent: count, repeatedWithSameKey: count, contradicted: count, cancels: counts, destroys: count, callsMadeAgain: count }),
  chaos: z.object({
    kills: count,
    terminations: count,
    freezes: count,
    postgresRestarts: count,
    redisFlushes: count,
    workersStarted: count,
    workersThatCouldNotStart: count,
  }),
  digitalOcean: z.object({ requests: count, creates: count, faultyAnswers: count, byFault: counts }),
  droplets: z.object({ made: count, left: count, leftOnPurpose: count, foreign: count, foreignTouched: count }),
  duplicates: z.object({ definition: z.string(), ...spread, frozenCreates: count, sagas: z.array(z.object({ sagaId: z.string(), droplets: z.array(z.int()), togetherMs: z.number() })) }),
  recovery: z.object({
    definition: z.string(),
    ...spread,
    untouched: count,
    killsNotMeasured: count,
    slowest: z.array(z.object({ sagaId: z.string(), worker: z.string(), killedAtMs: z.number(), tookMs: z.number() })),
  }),
  jobs: z.object({ live: count, failed: count }),
  violations: z.array(z.object({ check: z.string(), what: z.string(), sagaId: z.string().optional() })),
  /** What happened to sagas that were violated, had duplicates, or stood still for longest. */
  timelines: z.record(z.string(), z.array(z.string())),
  diary: z.array(z.string()),
});

export type Report = z.infer<typeof reportSchema>;

const MAX_TIMELINES = 20;

/** Makes the report. */
export function makeReport(options: ChaosOptions, evidence: Evidence, workersStarted: { ready: number; failed: number }, settledAfterMs: number): Report {
  const violations = findViolations(evidence);
  const duplicates = measureDuplicates(evidence, Date.now());
  const recovery = measureRecovery(evidence);
  const { diary, load, sagas, ledger } = evidence;
  const rolledBack = sagas.filter((saga) => saga.status === 'compensated');
  const byKey = new Map(sagas.map((saga) => [saga.idempotencyKey, saga]));
  const cancelledOrDoomed = (key: string) => load.played.some(({ request, cancel }) => request.key === key && (request.fate !== 'ordinary' || cancel === 'accepted'));
  const ours = [...dropletsBySaga(evidence).values()].flat();
  const destroyedIds = new Set(sagas.filter((saga) => saga.name === 'destroy_droplet' && saga.status === 'completed').map((saga) => saga.input['droplet_id']));
  const kept = sagas.filter((saga) => saga.name === 'provision_droplet' && saga.status === 'completed' && !destroyedIds.has(saga.context['droplet_id']));
  const faulty = ledger.filter((entry) => entry.fault !== null);
  return {
    ok: violations.length === 0,
    options,
    settledAfterMs: Math.round(settledAfterMs),
    sagas: {
      total: sagas.length,
      finished: sagas.filter((saga) => saga.finishedAt !== null).length,
      byStatus: tally(sagas.map((saga) => `${saga.name} ${saga.status}`)),
      rolledBackBecause: tally(rolledBack.map((saga) => saga.error?.code ?? 'unknown')),
      rolledBackByFaultsAlone: rolledBack.filter((saga) => !cancelledOrDoomed(saga.idempotencyKey ?? '')).length,
      retriedWhenStuck: evidence.retried.length,
    },
    requests: {
      sent: load.played.length,
      repeatedWithSameKey: load.played.filter(({ request }) => request.repeatAfterMs !== null && byKey.has(request.key)).length,
      contradicted: load.played.filter(({ contradiction }) => contradiction === 'refused').length,
      cancels: tally(load.played.flatMap(({ cancel }) => (cancel === null ? [] : [cancel]))),
      destroys: load.played.filter(({ destroySagaId }) => destroySagaId !== null).length,
      callsMadeAgain: load.repeatedCalls(),
    },
    chaos: {
      kills: diary.kills.length,
      terminations: diary.terminations,
      freezes: diary.freezes.length,
      postgresRestarts: diary.postgresRestarts,
      redisFlushes: diary.redisFlushes,
      workersStarted: workersStarted.ready,
      workersThatCouldNotStart: workersStarted.failed,
    },
    digitalOcean: {
      requests: ledger.length,
      creates: ledger.filter((entry) => entry.method === 'POST').length,
      faultyAnswers: faulty.length,
      byFault: tally(faulty.map((entry) => (entry.fault ?? '').replace('errorRate ', ''))),
    },
    droplets: {
      made: ours.length,
      left: ours.filter(({ alive }) => alive).length,
      leftOnPurpose: kept.length,
      foreign: load.foreign.length,
      foreignTouched: violations.filter(({ check }) => check === 'foreign droplets are left alone').length,
    },
    duplicates: { definition: DUPLICATES_DEFINITION, ...duplicates, frozenCreates: findFrozenCreates(evidence).length, sagas: duplicates.sagas.map((one) => ({ ...one, droplets: [...one.droplets] })) },
    recovery: { definition: RECOVERY_DEFINITION, ...recovery, slowest: [...recovery.slowest], killsNotMeasured: diary.blindKills },
    jobs: evidence.jobs,
    violations,
    timelines: timelinesOf([...violations, ...duplicates.sagas, ...recovery.slowest], evidence),
    diary: diary.lines,
  };
}

/** The sagas that need explaining: their events and requests, by the clock of the diary. */
function timelinesOf(remarkable: readonly { sagaId?: string | undefined }[], evidence: Evidence): Record<string, string[]> {
  const ids = new Set(remarkable.flatMap(({ sagaId }) => (sagaId === undefined ? [] : [sagaId])));
  const bySaga = dropletsBySaga(evidence);
  const since = (at: number) => `${((at - evidence.diary.startedAtMs) / 1_000).toFixed(2).padStart(7)} s`;
  return Object.fromEntries(
    [...ids].slice(0, MAX_TIMELINES).map((sagaId) => {
      const events = (evidence.events.get(sagaId) ?? []).map((event) => ({ at: event.at.getTime(), what: `${event.seq} ${event.kind} (${event.worker ?? '–'})` }));
      const ownIds = new Set((bySaga.get(sagaId) ?? []).map(({ id }) => id));
      const requests = evidence.ledger
        .filter((entry) => entry.made.some((id) => ownIds.has(id)) || ownIds.has(Number(entry.path.split('/').at(-1))))
        .map((entry) => ({ at: entry.at, what: `   ${entry.method} ${entry.path} → ${entry.status}${entry.made.length > 0 ? `, made ${entry.made.join()}` : ''}${entry.fault === null ? '' : ` (${entry.fault})`}` }));
      const lines = [...events, ...requests].toSorted((a, b) => a.at - b.at).map(({ at, what }) => `${since(at)}  ${what}`);
      const context = JSON.stringify(evidence.sagas.find(({ id }) => id === sagaId)?.context);
      return [sagaId, [...lines, `context ${context}`]];
    }),
  );
}

function tally(values: readonly string[]): Record<string, number> {
  return Object.fromEntries(Object.entries(Object.groupBy(values, (value) => value)).map(([value, all]) => [value, all?.length ?? 0]));
}

/** The report for people. */
export function formatReport(report: Report): string {
  const { options, sagas, requests, chaos, digitalOcean, droplets, duplicates, recovery } = report;
  const rows: [string, string][] = [
    ['run', `${options.minutes} min on ${options.backend}, ${options.workers} workers, ${options.sagasPerMinute} sagas a minute, seed ${options.seed}`],
    ['chaos', `${chaos.kills} killed, ${chaos.freezes} frozen past the lock, ${chaos.terminations} told to stop, Postgres crashed ${chaos.postgresRestarts} ×, Redis flushed ${chaos.redisFlushes} ×`],
    ['workers', `${chaos.workersStarted} started, ${chaos.workersThatCouldNotStart} could not (a service was away)`],
    ['requests', `${requests.sent} sent, ${requests.repeatedWithSameKey} of them twice, ${requests.contradicted} contradicted; ${requests.destroys} destroys; cancels: ${list(requests.cancels)}; ${requests.callsMadeAgain} calls made again`],
    ['DigitalOcean', `${digitalOcean.requests} requests, ${digitalOcean.faultyAnswers} faulty (${percent(digitalOcean.faultyAnswers, digitalOcean.requests)}): ${list(digitalOcean.byFault)}`],
    ['sagas', `${sagas.total}: ${list(sagas.byStatus)}`],
    ['rolled back', `${list(sagas.rolledBackBecause)}; ${sagas.rolledBackByFaultsAlone} of them by faults alone`],
    ['at rest', `${formatDuration(report.settledAfterMs)} after the last deed; ${sagas.retriedWhenStuck} were stuck and retried; jobs left ${report.jobs.live}, failed ${report.jobs.failed}`],
    ['droplets', `${droplets.made} made by ${digitalOcean.creates} creates, ${droplets.left} left, ${droplets.leftOnPurpose} of them on purpose`],
    ['foreign', `${droplets.foreign}, touched ${droplets.foreignTouched}`],
    ['duplicates', `${duplicates.count} sagas, of ${duplicates.frozenCreates} creates whose worker was frozen right before its POST; together for ${spreadText(duplicates)}`],
    ['recovery', `${spreadText(recovery)}, of ${recovery.count} steps that died with a worker; ${recovery.untouched} never touched again, ${recovery.killsNotMeasured} kills not measured`],
  ];
  const violations = report.violations.map(({ check, what, sagaId }) => `  ${check}: ${sagaId === undefined ? '' : `saga ${sagaId}: `}${what}`);
  const shown = report.ok ? [] : Object.entries(report.timelines);
  const timelines = shown.flatMap(([sagaId, lines]) => ['', `saga ${sagaId}`, ...lines.map((line) => `  ${line}`)]);
  return [
    formatTable(['', ''], rows, null).trimStart(),
    '',
    `Recovery: ${recovery.definition}`,
    `Duplicates: ${duplicates.definition}`,
    ...timelines,
    '',
    violations.length === 0 ? 'No violation.' : `${violations.length} violations:`,
    ...violations,
  ].join('\n');
}

function spreadText({ p50Ms, p99Ms, maxMs }: { p50Ms: number | null; p99Ms: number | null; maxMs: number | null }): string {
  if (p50Ms === null || p99Ms === null || maxMs === null) return '–';
  return `p50 ${formatDuration(p50Ms)}, p99 ${formatDuration(p99Ms)}, max ${formatDuration(maxMs)}`;
}

function list(tallied: Readonly<Record<string, number>>): string {
  const parts = Object.entries(tallied).toSorted(([, a], [, b]) => b - a).map(([what, times]) => `${times} ${what}`);
  return parts.length === 0 ? 'none' : parts.join(', ');
}

function percent(part: number, whole: number): string {
  return whole === 0 ? '–' : `${((100 * part) / whole).toFixed(1)} %`;
}
