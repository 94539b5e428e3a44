// Wraps a database and records Postgres's plan for each statement before running it.
import type { Database, Sql } from '../../src/platform/db.ts';

export type Explained = { readonly name: string; readonly plan: string };

/** Wraps a database; `statements` are those that were run through the wrap, each with its plan as text. */
export function explaining(db: Database): { readonly db: Database; readonly statements: Explained[] } {
  const statements: Explained[] = [];
  const run: Database['run'] = async (name, statement) => {
    const rows = await db.run(name, (sql) => explain(sql, statement(sql)));
    statements.push({ name, plan: rows.flatMap((row) => Object.values(row)).join('\n') });
    return db.run(name, statement);
  };
  return { db: { ...db, run }, statements };
}

/** A query of postgres.js is its texts and parameters until it is awaited. */
function explain(sql: Sql, query: unknown) {
  // oxlint-disable-next-line typescript/no-unsafe-type-assertion -- not declared by postgres.js
  const { strings, args } = query as { strings: readonly string[]; args: readonly never[] };
  const texts = [`explain ${strings[0] ?? ''}`, ...strings.slice(1)];
  return sql<Record<string, string>[]>(Object.assign(texts, { raw: texts }), ...args);
}
