// The lease of a droplet from a caller's view: when it ends, and how to renew it. A renewal and an expiry race for one row in
// Postgres; exactly one wins.
import type { Database } from '../platform/db.ts';
import { formatDuration } from '../platform/duration.ts';
import { errorCodeOf } from '../platform/error-code.ts';
import { LockHeldError, runWithShortLocks } from '../platform/lock-wait.ts';
import { MAX_LEASE_S } from '../platform/longest-lease.ts';
import { busyMessage } from './protection.ts';

const codes = ['droplet_unknown', 'lease_expired', 'lease_absent', 'lease_limit', 'droplet_being_destroyed', 'droplet_busy'] as const;

/**
 * Thrown if a lease could not be renewed. `droplet_unknown`: the droplet is not on record as provisioned or adopted here, or it is gone.
 * `lease_expired`: the droplet is being destroyed. `lease_absent`: the droplet has no lease. `lease_limit`: the lease has reached the
 * limit set when it began. `droplet_being_destroyed`: another saga destroys the droplet, or its provision or adoption is rolling back.
 * `droplet_busy`: another transaction is changing the droplet and is not committed yet; repeat the request in a moment.
 */
export class LeaseError extends Error {
  override readonly name = 'LeaseError';
  readonly code: (typeof codes)[number];

  constructor(code: LeaseError['code'], message: string) {
    super(message);
    this.code = code;
  }
}

/** A lease after its renewal. */
export type Lease = Readonly<{ dropletId: number; leaseUntil: Date }>;

/**
 * Renews a lease, so that it ends `ttlS` seconds from now or later, unless its limit comes first. Never shortens it. Audited.
 *
 * @param how.ttlS 1 to {@link MAX_LEASE_S}
 * @param how.by the requester, for the audit; null: the role of the database connection
 * @throws {LeaseError}
 */
export async function renewLease(db: Pick<Database, 'run'>, dropletId: number, how: { ttlS: number; by: string | null }): Promise<Lease> {
  if (!Number.isInteger(how.ttlS) || how.ttlS < 1 || how.ttlS > MAX_LEASE_S) throw new RangeError(`ttlS: expected whole seconds from 1 to ${MAX_LEASE_S}, found ${how.ttlS}`);
  try {
    const [row] = await runWithShortLocks(
      db,
      'inventory.renew_lease',
      // The driver of a caller's transaction may parse times differently.
      (sql, limit) => sql<{ untilMs: number }[]>`
        with short as materialized (${limit})
        select (extract(epoch from arcadia.renew_lease(${String(dropletId)}::text::bigint, ${String(how.ttlS)}::text::float8 * interval '1 second', ${how.by})) * 1000)::float8 as until_ms from short`,
    );
    if (row === undefined) throw new Error('arcadia.renew_lease returned nothing');
    return { dropletId, leaseUntil: new Date(row.untilMs) };
  } catch (error) {
    if (error instanceof LockHeldError) throw new LeaseError('droplet_busy', busyMessage(dropletId));
    const code = codes.find((one) => one === detailOf(error));
    if (code === undefined || !['SG404', 'SG409', 'SG423'].includes(errorCodeOf(error) ?? '')) throw error;
    throw new LeaseError(code, error instanceof Error ? error.message : '');
  }
}

/** The lease of a saga's droplet. `expiredAt`: when it expired, so that the droplet is being destroyed; null: not expired. */
export type SagaLease = Readonly<{ leaseUntil: Date; leaseLimit: Date | null; expiredAt: Date | null }>;

/** Returns the leases of the existing droplets of these sagas, by saga id. */
export async function findLeases(db: Pick<Database, 'run'>, sagaIds: readonly string[]): Promise<ReadonlyMap<string, SagaLease>> {
  if (sagaIds.length === 0) return new Map();
  const rows = await db.run(
    'inventory.leases_of_sagas',
    (sql) => sql<{ sagaId: string; leaseUntil: Date; leaseLimit: Date | null; expiredAt: Date | null }[]>`select * from arcadia.leases_of_sagas(${[...sagaIds]}::uuid[])`,
  );
  return new Map(rows.map(({ sagaId, ...lease }) => [sagaId, lease]));
}

/** Describes a lease in a few words: the time left, or that it has ended. */
export function describeLease({ leaseUntil, expiredAt }: Pick<SagaLease, 'leaseUntil' | 'expiredAt'>, now: Date): string {
  const leftMs = leaseUntil.getTime() - now.getTime();
  if (expiredAt !== null) return 'expired';
  return leftMs > 0 ? `${formatDuration(leftMs)} left` : 'ended';
}

/** Returns the DETAIL of a Postgres error. */
function detailOf(error: unknown): unknown {
  return typeof error === 'object' && error !== null && 'detail' in error ? error.detail : null;
}
