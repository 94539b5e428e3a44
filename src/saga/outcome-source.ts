// Outcomes: what callers are told. A source names a log that stands in Postgres already, and makes bodies of its rows.
import type { Database, Sql, SqlFragment } from '../platform/db.ts';
import type { JsonObject } from '../platform/json.ts';
import type { Subject } from './saga-words.ts';

/** Every type of outcome. */
export const outcomeTypes = ['saga.completed', 'saga.compensated', 'saga.stuck', 'lease.ending', 'lease.expired', 'drift.found', 'orphan.found'] as const;

export type OutcomeType = (typeof outcomeTypes)[number];

/** What a receiver gets. */
export type Outcome = Readonly<{
  type: OutcomeType;
  /** When it happened, in ISO 8601. */
  timestamp: string;
  data: Readonly<{
    /** Of this outcome alone: `<saga id>/<revision>`, or `<source>/<number>`. A repeated delivery has the same one. */
    id: string;
    saga_id: string | null;
    name: string | null;
    status: string;
    subject: Subject | null;
    outputs: JsonObject;
    error: Readonly<{ code: string; message: string; step: string | null; retryable: boolean }> | null;
  }>;
}>;

/**
 * SQL: whether a visible row's `xid` is of another cluster, from which this database was restored. No transaction that this
 * cluster has committed has such a number yet; one will, and the row would be told then, weeks late.
 */
export const fromElsewhere = (sql: Sql): SqlFragment => sql`xid >= pg_snapshot_xmax(pg_current_snapshot())`;

/** A row of a log. `at`: when it happened. By `line` and `place`, together unique among all sources, outcomes of one line are delivered in order. */
export type OutcomeRow = Readonly<{ type: OutcomeType; at: Date; line: string; place: string }>;

/** One log that outcomes are read from. */
export type OutcomeSource = Readonly<{
  name: string;
  /** SQL for its rows: `xid` (the transaction that wrote it; indexed), `type`, `at`, `line` (text) and `place` (bigint), as in {@link OutcomeRow}. */
  rows(sql: Sql): SqlFragment;
  /** The id of its outcome, as in {@link Outcome}. */
  idOf(row: Pick<OutcomeRow, 'line' | 'place'>): string;
  /**
   * SQL that sets `xid` to null in the rows that match {@link fromElsewhere}, so that they are never told. It must find them
   * by the index.
   */
  forget(sql: Sql): SqlFragment;
  /** Makes the bodies of some of its rows, by their ids. Those that are gone are left out. */
  read(db: Pick<Database, 'run'>, ids: readonly string[]): Promise<ReadonlyMap<string, Outcome>>;
  /** How the statement that reads its rows can read their bodies too; for a source of many outcomes. */
  facts?: OutcomeFacts;
}>;

/** What bodies are made of. */
export type OutcomeFacts = Readonly<{
  /** SQL for a json value of the row `told` (`type`, `line`, `place`); null for one that is gone. */
  sql(sql: Sql): SqlFragment;
  /** Makes a body of that value. */
  outcomeOf(row: OutcomeRow, facts: unknown): Outcome;
}>;
