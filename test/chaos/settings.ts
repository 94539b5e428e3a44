// What the chaos run runs with: times some ten times shorter than in production and in the same order, and the faults of
// the DigitalOcean that it runs against.
import type { Faults } from '../../src/sandbox/server.ts';
import { patience } from '../support/patience.ts';

export type Backend = 'redis' | 'postgres';

export type ChaosOptions = Readonly<{
  minutes: number;
  sagasPerMinute: number;
  workers: number;
  /** The same seed makes the same requests and the same plan of deeds. What they meet is up to the machine. */
  seed: number;
  backend: Backend;
}>;

// On a machine that starves its processes for seconds, a worker would be as good as frozen without anybody having frozen it.
const SLOWNESS = Math.min(2, patience());
export const LOCK_MS = Math.round(3_000 * SLOWNESS);
export const GRACE_MS = Math.round(6_000 * SLOWNESS);
const TIMEOUT_MS = Math.round(1_500 * SLOWNESS);
/** How old a worker's claim may be at a create: see `claimMs` in src/processes/worker.ts. */
export const CLAIM_MS = (LOCK_MS - TIMEOUT_MS) / 2;
export const SHUTDOWN_MS = 5_000;

/** Environment of the workers, but for where things are. */
export const workerSettings = {
  DIGITALOCEAN_TIMEOUT_MS: String(TIMEOUT_MS),
  WORKER_LOCK_MS: String(LOCK_MS),
  ADOPTION_GRACE_MS: String(GRACE_MS),
  RECONCILE_INTERVAL_MS: '1000',
  WAIT_POLL_INTERVAL_MS: '500',
  WAIT_MAX_POLLS: '20',
  STEP_BACKOFF_MS: '200',
  WORKER_CONCURRENCY: '50',
  WORKER_SHUTDOWN_MS: String(SHUTDOWN_MS),
  DIGITALOCEAN_REQUESTS_PER_MINUTE: '1000000',
  DIGITALOCEAN_REQUESTS_PER_HOUR: '10000000',
  LOG_LEVEL: 'warn',
} as const;

export const ACTIVATION_MS = { minMs: 1_000, maxMs: 3_000 };

/** Ends of the names of droplets that DigitalOcean accepts and then fails. */
export const UNPLACEABLE = '-unplaceable';
export const NEVER_ACTIVE = '-never-active';

/** A size that DigitalOcean doesn't have: 422. */
export const INVALID_SIZE = 's-99vcpu-1tb';

/**
 * A tenth of the answers is faulty, in all ways that the sandbox knows. All lags are shorter than the grace, even
 * together with the time that a request may take: within it, no droplet stays unseen.
 */
export function faultsOf(seed: number): Partial<Faults> {
  return {
    seed,
    errorRate: 0.1,
    latencyMs: { minMs: 5, maxMs: 150 },
    listLagMs: 1_000,
    tagLagMs: 1_500,
    tagIndexLagMs: 2_500,
    deleteLagMs: 1_000,
    notFoundAfterCreateMs: 300,
    placementFails: `*${UNPLACEABLE}`,
    neverActive: `*${NEVER_ACTIVE}`,
  };
}

/** The storm is over. Lags stay, and so do droplets that were doomed from the start. */
export const faultsAfterwards: Partial<Faults> = { errorRate: 0, latencyMs: 0 };
