// The audit trail: who did what to which saga, and when. Starting, cancelling and retrying a saga write their rows in the
// same statement (see new-saga.ts and commit.ts). This module records everything else.
import { z } from 'zod';
import type { Database, Sql } from '../platform/db.ts';
import type { JsonObject } from '../platform/json.ts';
import { decodeCursor, encodeCursor } from '../platform/cursor.ts';

// Many times more than a page shows.
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

/** One row of the audit trail. */
export type AuditRow = Readonly<{
  at: Date;
  /** Who did it: proven by credentials over HTTP, else as the caller claims. */
  actor: string;
  /** The database role that wrote the row, as Postgres knows it; null for rows of older versions. */
  databaseRole: string | null;
  action: string;
  detail: JsonObject;
}>;

/** Reads the audit trail of a saga, oldest first. */
export async function listAudit(db: Pick<Database, 'run'>, sagaId: string): Promise<AuditRow[]> {
  return db.run(
    'audit.list',
    (sql) => sql<AuditRow[]>`select at, actor, database_role, action, detail from arcadia.audit where saga_id = ${sagaId} order by id limit ${MOST_ROWS}`,
  );
}

// The id is sent as text. So the table's name stands in each `order by audit.id`: by the id alone, 9 would come after 10.
const lineColumns = (sql: Sql) => sql`audit.id::text as id, at, actor, database_role, action, saga_id, detail`;

/** Reads the audit trail of several sagas, newest first, at most `limit` rows. */
export async function listAuditOf(db: Pick<Database, 'run'>, sagaIds: readonly string[], limit: number): Promise<AuditLine[]> {
  if (sagaIds.length === 0) return [];
  return db.run(
    'audit.of_sagas',
    (sql) => sql<AuditLine[]>`
      select ${lineColumns(sql)} from arcadia.audit
      where saga_id = any(${[...sagaIds]}::uuid[]) order by audit.id desc limit ${limit}`,
  );
}

/** A row with its place in the whole trail. */
export type AuditLine = AuditRow & Readonly<{ id: string; sagaId: string | null }>;

/** Conditions of a search; each left out matches everything. */
export type AuditFilter = Readonly<{
  actor?: string | undefined;
  action?: string | undefined;
  sagaId?: string | undefined;
  from?: Date | undefined;
  before?: Date | undefined;
}>;

export type AuditPage = Readonly<{
  rows: readonly AuditLine[];
  /** Pass it to get the next page; null after the last page. */
  nextCursor: string | null;
}>;

const auditCursor = z.tuple([z.string().regex(/^[1-9]\d{0,17}$/)]);

/**
 * Finds rows, newest first.
 *
 * @param page.limit from 1
 * @throws {CursorError}
 */
export async function searchAudit(db: Pick<Database, 'run'>, filter: AuditFilter, page: { limit: number; cursor?: string | undefined }): Promise<AuditPage> {
  const [after = null] = page.cursor === undefined ? [] : decodeCursor(page.cursor, auditCursor);
  const { actor, action, sagaId, from, before } = filter;
  const found = await db.run(
    'audit.search',
    (sql) => sql<AuditLine[]>`
      select ${lineColumns(sql)} from arcadia.audit
      where ${actor === undefined ? sql`true` : sql`actor = ${actor}`}
        and ${action === undefined ? sql`true` : sql`action = ${action}`}
        and ${sagaId === undefined ? sql`true` : sql`saga_id = ${sagaId}`}
        and ${from === undefined ? sql`true` : sql`at >= ${from}`}
        and ${before === undefined ? sql`true` : sql`at < ${before}`}
        and ${after === null ? sql`true` : sql`id < ${after}::text::bigint`}
      order by audit.id desc limit ${page.limit + 1}`,
  );
  const rows = found.slice(0, page.limit);
  const last = rows.at(-1);
  return { rows, nextCursor: found.length > page.limit && last !== undefined ? encodeCursor([last.id]) : null };
}

/** Lists the kinds of actions on record, in alphabetical order. Steps through the index: the table may have millions of rows. */
export async function listAuditActions(db: Pick<Database, 'run'>): Promise<string[]> {
  const rows = await db.run(
    'audit.actions',
    (sql) => sql<{ action: string }[]>`
      with recursive known as (
        (select action from arcadia.audit order by action limit 1)
        union all
        select (select action from arcadia.audit where action > known.action order by action limit 1) from known where known.action is not null
      )
      select action from known where action is not null limit ${MOST_ROWS}`,
  );
  return rows.map(({ action }) => action);
}
