// Prometheus metrics that only a worker knows: its step runs, its reconciler passes, and how late it takes jobs.
import { Counter, Gauge, Histogram, Registry } from 'prom-client';
import type { JobLoop } from '../queues/connection.ts';
import { queueNames } from '../queues/jobs.ts';
import type { ReconcilerPass } from '../saga/reconciler.ts';
import type { StepReport } from '../saga/runner.ts';

export type WorkerMetrics = Readonly<{
  onRun(report: StepReport): void;
  onPass(pass: ReconcilerPass | null): void;
  onTaken(queue: string, lateMs: number): void;
  /** The metrics in Prometheus's text format, without those of the process. */
  expose(): Promise<string>;
}>;

// Seconds. A run of a step is a few statements and requests.
const WORK_BUCKETS = [0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30];
// A full worker, or a fleet that is down, takes a job minutes late.
const LATENESS_BUCKETS = [0.01, 0.05, 0.1, 0.5, 1, 5, 15, 60, 300, 1_800];

/**
 * Creates the metrics of a worker.
 *
 * @param loops returns the current state of the worker's job loops
 */
export function createWorkerMetrics(loops: () => readonly JobLoop[]): WorkerMetrics {
  const registry = new Registry();
  const registers = [registry];
  const runs = new Histogram({
    name: 'arcadia_step_run_duration_seconds',
    help: 'Duration of one run of a step, by result; a step that waits is run many times',
    labelNames: ['saga', 'step', 'direction', 'result'],
    buckets: WORK_BUCKETS,
    registers,
  });
  const passes = new Counter({ name: 'arcadia_reconciler_passes_total', help: 'Passes of the reconciler', labelNames: ['result'], registers });
  const overdue = new Counter({ name: 'arcadia_reconciler_overdue_sagas_total', help: 'Overdue sagas that the reconciler took', registers });
  const firstJobs = new Counter({ name: 'arcadia_reconciler_first_jobs_total', help: 'First jobs that the reconciler enqueued: for sagas started in Postgres alone, or whose first job was lost', registers });
  const remade = new Counter({ name: 'arcadia_reconciler_remade_jobs_total', help: 'Lost jobs that the reconciler enqueued again', registers });
  for (const result of ['done', 'failed']) passes.inc({ result }, 0);
  const lateness = new Histogram({
    name: 'arcadia_job_lateness_seconds',
    help: 'Delay between the due time and the start of a job',
    labelNames: ['queue'],
    buckets: LATENESS_BUCKETS,
    registers,
  });
  for (const queue of [queueNames.steps, queueNames.compensations]) lateness.zero({ queue });
  const running = new Gauge({ name: 'arcadia_worker_jobs_running', help: 'Jobs that the worker is running', labelNames: ['queue'], registers });
  const slots = new Gauge({ name: 'arcadia_worker_concurrency', help: 'Maximum number of jobs that the worker runs at once', labelNames: ['queue'], registers });
  return {
    onRun: ({ saga, step, direction, result, durationMs }) => runs.observe({ saga, step, direction, result }, durationMs / 1_000),
    onPass: (pass) => {
      passes.inc({ result: pass === null ? 'failed' : 'done' });
      overdue.inc(pass?.overdue ?? 0);
      firstJobs.inc(pass?.firstJobs ?? 0);
      remade.inc(pass?.remade ?? 0);
    },
    onTaken: (queue, lateMs) => lateness.observe({ queue }, lateMs / 1_000),
    expose: () => {
      for (const loop of loops()) {
        running.set({ queue: loop.queueName }, loop.running);
        slots.set({ queue: loop.queueName }, loop.concurrency);
      }
      return registry.metrics();
    },
  };
}
