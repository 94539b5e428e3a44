// The audit: who did what, when, on which saga. Starting, cancelling and retrying a saga write their rows themselves,
// in the statement that does it (see store.ts); this is for what is done elsewhere.
import type { Database } from '../platform/db.ts';
import type { JsonObject } from '../platform/json.ts';

// A page's worth, many times over.
const MOST_ROWS = 500;

export type AuditEntry = Readonly<{ actor: string; action: string; sagaId?: string | null; detail?: JsonObject }>;

/** Writes one row. */
export async function recordAudit(db: Pick<Database, 'run'>, entry: AuditEntry): Promise<void> {
  await db.run(
    'audit.record',
    (sql) => sql`
      insert into arcadia.audit (actor, action, saga_id, detail)
      values (${entry.actor}, ${entry.action}, ${entry.sagaId ?? null}, ${JSON.stringify(entry.detail ?? {})}::text::jsonb)`,
  );
}

/** One row of the audit, as it was written. */
export type AuditRow = Readonly<{
  at: Date;
  /** Who did it: over HTTP proven by credentials, else as the caller says. */
  actor: string;
  /** The database role that wrote the row, which Postgres knows; null for rows of older versions. */
  databaseRole: string | null;
  action: string;
  detail: JsonObject;
}>;

/** Reads what was done to a saga, oldest first. */
export async function listAudit(db: Pick<Database, 'run'>, sagaId: string): Promise<AuditRow[]> {
  return db.run(
    'audit.list',
    (sql) => sql<AuditRow[]>`select at, actor, database_role, action, detail from arcadia.audit where saga_id = ${sagaId} order by id limit ${MOST_ROWS}`,
  );
}
