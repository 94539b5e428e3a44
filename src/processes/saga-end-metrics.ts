// Prometheus metrics of how sagas end. The process that wrote an end counts it, once.
import { Counter, Histogram, Registry } from 'prom-client';
import type { Catalog } from '../saga/definition.ts';
import type { SagaEnd } from '../saga/store.ts';

export type SagaEndMetrics = Readonly<{
  onEnd(end: SagaEnd): void;
  /** The metrics in Prometheus's text format. */
  expose(): Promise<string>;
}>;

// Seconds. An onboarding ends within minutes. A destruction that DigitalOcean delays ends within hours.
const BUCKETS = [0.1, 0.5, 1, 5, 15, 30, 60, 120, 300, 600, 1_800, 3_600, 14_400, 86_400];

const endStatuses = ['completed', 'compensated', 'stuck'] as const satisfies readonly SagaEnd['status'][];

/** Creates the metrics, with a zero for each saga in the catalog: an alert on the first end needs a preceding 0. */
export function createSagaEndMetrics(catalog: Readonly<Record<keyof Catalog<never>, unknown>>): SagaEndMetrics {
  const registry = new Registry();
  const registers = [registry];
  const labelNames = ['saga', 'status'];
  const ends = new Counter({ name: 'arcadia_saga_ends_total', help: 'Ends of sagas that this process wrote; a stuck saga that is resumed ends again', labelNames, registers });
  const durations = new Histogram({ name: 'arcadia_saga_duration_seconds', help: 'Time from the start of a saga to its end, waits included', labelNames, buckets: BUCKETS, registers });
  for (const saga of Object.keys(catalog)) {
    for (const status of endStatuses) {
      ends.inc({ saga, status }, 0);
      durations.zero({ saga, status });
    }
  }
  return {
    onEnd: ({ saga, status, durationMs }) => {
      ends.inc({ saga, status });
      durations.observe({ saga, status }, durationMs / 1_000);
    },
    expose: () => registry.metrics(),
  };
}
