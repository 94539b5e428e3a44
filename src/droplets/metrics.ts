// A worker's Prometheus metrics of its requests to DigitalOcean, and of the rate limits in the responses.
import { Counter, Gauge, Histogram, Registry } from 'prom-client';
import type { BudgetLeft } from '../do/budget.ts';
import type { ObservedAnswer } from '../do/observed-answer.ts';
import type { OutcomeKind } from '../do/outcome.ts';

export type DropletMetrics = Readonly<{
  onRequest(request: ObservedAnswer): void;
  /** The metrics in Prometheus's text format. */
  expose(): Promise<string>;
}>;

const outcomeKinds: readonly OutcomeKind[] = ['done', 'absent', 'rejected', 'throttled', 'unauthorized', 'later', 'ambiguous'];

// More than the five minutes for which the alert on it waits.
const KNOWN_FOR_MS = 400_000;

// Seconds. A request ends within DIGITALOCEAN_TIMEOUT_MS.
const BUCKETS = [0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30];

/**
 * Creates the metrics.
 *
 * @param budgetLeft the rest of the fleet's request budget, as far as this worker knows
 * @param monotonicMs a clock in milliseconds that only goes forward
 */
export function createDropletMetrics(budgetLeft: () => BudgetLeft | null, monotonicMs: () => number = () => performance.now()): DropletMetrics {
  const registry = new Registry();
  const registers = [registry];
  const outcomes = new Counter({ name: 'arcadia_digitalocean_requests_total', help: 'Requests to DigitalOcean, by what is known after them', labelNames: ['outcome'], registers });
  // An alert on the first occurrence needs a preceding 0.
  for (const outcome of outcomeKinds) outcomes.inc({ outcome }, 0);
  const requests = new Histogram({
    name: 'arcadia_digitalocean_request_duration_seconds',
    help: 'How long requests to DigitalOcean took, by what is known after them',
    labelNames: ['method', 'path', 'outcome'],
    buckets: BUCKETS,
    registers,
  });
  const limit = new Gauge({ name: 'arcadia_digitalocean_ratelimit_limit', help: 'Requests that the token may make in its window, as the last answer said', registers });
  const remaining = new Gauge({ name: 'arcadia_digitalocean_ratelimit_remaining', help: 'Requests left to the token in its window, as the last answer said', registers });
  const budget = new Gauge({ name: 'arcadia_digitalocean_budget_left', help: "Requests that the fleet's own budget has left, by its window", labelNames: ['window'], registers });
  // Unknown so far. A 0 would raise an alert.
  limit.set(Number.NaN);
  remaining.set(Number.NaN);
  let knownUntil = 0;
  return {
    onRequest: ({ method, path, outcome, durationMs, rateLimit, retryAfterMs }) => {
      outcomes.inc({ outcome });
      requests.observe({ method, path, outcome }, durationMs / 1_000);
      if (rateLimit === null) return;
      // While nothing may be sent, no answer comes.
      knownUntil = monotonicMs() + Math.max(KNOWN_FOR_MS, retryAfterMs ?? 0);
      limit.set(rateLimit.limit);
      remaining.set(rateLimit.remaining);
    },
    expose: () => {
      // Other workers ask meanwhile, and requests that are an hour old count no more: what was left long ago says nothing.
      if (monotonicMs() > knownUntil) remaining.set(Number.NaN);
      const left = budgetLeft();
      budget.set({ window: 'minute' }, left?.minute ?? Number.NaN);
      budget.set({ window: 'hour' }, left?.hour ?? Number.NaN);
      return registry.metrics();
    },
  };
}
