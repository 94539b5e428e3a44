// The times and numbers that the simulated processes go by.

/** How long a request may take. */
export const REQUEST_MS = 10_000;
export const LOCK_MS = 30_000;
export const RECONCILE_MS = 15_000;
/** Between two passes over the leases; and after a cancelled destruction, until the next one. */
export const LEASE_PASS_MS = 10_000;
export const DESTROY_AGAIN_MS = 60_000;
export const CONCURRENCY = 2;

export const settings = { pollIntervalMs: 5_000, maxPolls: 3, adoptionGraceMs: 60_000, maxCreates: 3, deleteAgainAfterMs: 180_000, maxDeletes: 20 };
export const policy = { stepAttempts: 3, stepBackoffMs: 1_000, compensationAttempts: 10 };
