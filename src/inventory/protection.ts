// Protection of droplets: a protected droplet is not destroyed until its protection is lifted. This is an early check.
// The step that destroys checks again right before its DELETE.
import type { Database } from '../platform/db.ts';
import { errorCodeOf } from '../platform/error-code.ts';
import type { JsonObject } from '../platform/json.ts';
import { LockHeldError, runWithShortLocks } from '../platform/lock-wait.ts';
import type { Refusal } from '../saga/definition.ts';
import { DROPLET_FIELD, isDropletId } from './droplet-of-saga.ts';

/** Code of the refusal to destroy a protected droplet. */
export const PROTECTED_CODE = 'droplet_protected';

/**
 * Thrown if protection could not be set. `droplet_unknown`: the droplet is not on record as provisioned or adopted here, or it is
 * destroyed. `droplet_being_destroyed`: protection would come too late. `droplet_busy`: another transaction is changing the
 * droplet and is not committed yet; repeat the request in a moment.
 */
export class ProtectionError extends Error {
  override readonly name = 'ProtectionError';
  readonly code: 'droplet_unknown' | 'droplet_being_destroyed' | 'droplet_busy';

  constructor(code: ProtectionError['code'], message: string) {
    super(message);
    this.code = code;
  }
}

/** Whether a droplet is protected, and whether a call changed that. */
export type Protection = Readonly<{ dropletId: number; protected: boolean; changed: boolean }>;

/**
 * Protects a droplet, or lifts its protection. Audited. Safe to repeat.
 *
 * @param how.by the requester, for the audit trail; null: the role of the database connection
 * @throws {ProtectionError}
 */
export async function setProtection(db: Pick<Database, 'run'>, dropletId: number, how: { protected: boolean; by: string | null }): Promise<Protection> {
  try {
    const [row] = await runWithShortLocks(
      db,
      'inventory.set_protection',
      (sql, limit) => sql<{ changed: boolean }[]>`with short as materialized (${limit}) select arcadia.set_protection(${String(dropletId)}::text::bigint, ${how.protected}, ${how.by}) as changed from short`,
    );
    return { dropletId, protected: how.protected, changed: row?.changed === true };
  } catch (error) {
    if (error instanceof LockHeldError) throw new ProtectionError('droplet_busy', busyMessage(dropletId));
    const sqlState = errorCodeOf(error);
    const message = error instanceof Error ? error.message : '';
    if (sqlState === 'SG404') throw new ProtectionError('droplet_unknown', message);
    if (sqlState === 'SG423') throw new ProtectionError('droplet_being_destroyed', message);
    throw error;
  }
}

/** Describes that the row of a droplet stays locked, which only callers' own transactions do, and what to do. */
export function busyMessage(dropletId: number): string {
  return `droplet ${dropletId} is being changed by a transaction that is not committed yet; repeat the request in a moment`;
}

/** Why a droplet cannot be destroyed at the moment; null: it can. */
export async function refuseProtected(db: Pick<Database, 'run'>, { [DROPLET_FIELD]: dropletId }: JsonObject): Promise<Refusal | null> {
  if (!isDropletId(dropletId)) return null;
  const [row] = await db.run('inventory.is_protected', (sql) => sql<{ isProtected: boolean }[]>`select arcadia.is_protected(${String(dropletId)}::text::bigint) as is_protected`);
  return row?.isProtected === true ? { code: PROTECTED_CODE, message: protectedMessage(dropletId) } : null;
}

/** Describes the refusal and how to lift the protection. */
export function protectedMessage(dropletId: number): string {
  return `droplet ${dropletId} is protected, so it was not destroyed. Lift the protection with \`arcadia unprotect ${dropletId}\` (or PUT /v1/droplets/${dropletId}/protection), then try again`;
}
