// Adapts the caller's transaction to the store's database interface. The same statements run on it with either of the two
// common Postgres clients.
import type { Database, Sql } from '../platform/db.ts';
import { InvalidRequestError } from '../saga/start-errors.ts';

type Row = Record<string, unknown>;

/** A transaction of postgres.js: the argument of the `sql.begin` callback. */
// oxlint-disable-next-line typescript/no-explicit-any -- what postgres.js itself declares
export type PostgresJsTransaction = Readonly<{ unsafe(query: string, parameters?: any[]): PromiseLike<readonly any[]>; savepoint?: unknown }>;

/** A `pg` client inside a transaction, or anything else with such a `query`. */
// oxlint-disable-next-line typescript/no-explicit-any -- what pg itself declares
export type PgTransaction = Readonly<{ query(text: string, values?: any[]): PromiseLike<{ rows: any[] }> }>;

export type CallersTransaction = PostgresJsTransaction | PgTransaction;

/**
 * Runs the store's statements in a caller's transaction.
 *
 * The first error ends the transaction. Every later statement fails with that same error, and not with Postgres's
 * "current transaction is aborted".
 *
 * @throws {InvalidRequestError} for a pool, because each statement may use another connection; for what is no transaction
 */
export function inTransaction(transaction: CallersTransaction): Pick<Database, 'run'> {
  if (!isTransaction(transaction)) throw new InvalidRequestError([{ field: 'transaction', message: 'expected what sql.begin gives to its callback, or the pg client on which BEGIN was run' }]);
  if ('begin' in transaction || 'totalCount' in transaction) {
    const message = 'expected a client inside a transaction, found a pool; hand in what sql.begin gives to its callback, or the pg client on which BEGIN was run';
    throw new InvalidRequestError([{ field: 'transaction', message }]);
  }
  const tag = createTag((text, values) => query(transaction, text, values));
  let failure: { error: unknown } | null = null;
  return {
    run: async (_name, statement) => {
      if (failure !== null) throw failure.error;
      try {
        return await statement(tag);
      } catch (error) {
        failure = { error };
        throw error;
      }
    },
  };
}

function isTransaction(given: unknown): boolean {
  return ((typeof given === 'object' && given !== null) || typeof given === 'function') && ('unsafe' in given || 'query' in given);
}

async function query(transaction: CallersTransaction, text: string, values: unknown[]): Promise<Row[]> {
  const rows: readonly Row[] = 'unsafe' in transaction ? await transaction.unsafe(text, values) : (await transaction.query(text, values)).rows;
  return rows.map((row) => Object.fromEntries(Object.entries(row).map(([column, value]) => [toCamel(column), value])));
}

/** Converts column names like our postgres.js pool; the caller's client may not. */
function toCamel(column: string): string {
  return column.replaceAll(/[_-]([a-z])/g, (_match, letter: string) => letter.toUpperCase());
}

/** A statement, or a fragment of one, with the interface of postgres.js's tag: awaiting it runs it. */
class Statement {
  readonly strings: readonly string[];
  readonly values: readonly unknown[];
  private readonly execute: (text: string, values: unknown[]) => Promise<Row[]>;

  constructor(strings: readonly string[], values: readonly unknown[], execute: (text: string, values: unknown[]) => Promise<Row[]>) {
    this.strings = strings;
    this.values = values;
    this.execute = execute;
  }

  /** Renders the text with `$1`, `$2`… for the values, and pushes the values onto `parameters`. */
  render(parameters: unknown[]): string {
    return this.strings.reduce((text, part, index) => {
      const value = this.values[index - 1];
      if (value instanceof Statement) return text + value.render(parameters) + part;
      parameters.push(Array.isArray(value) ? arrayLiteral(value) : value);
      return `${text}$${parameters.length}${part}`;
    });
  }

  // oxlint-disable-next-line unicorn/no-thenable -- as in postgres.js: awaiting it runs it
  then<A, B>(onRows: (rows: Row[]) => A | PromiseLike<A>, onError: (error: unknown) => B | PromiseLike<B>): Promise<A | B> {
    const parameters: unknown[] = [];
    const text = this.render(parameters);
    return this.execute(text, parameters).then(onRows, onError);
  }
}

function createTag(execute: (text: string, values: unknown[]) => Promise<Row[]>): Sql {
  const tag = (strings: TemplateStringsArray, ...values: unknown[]): Statement => new Statement(strings, values, execute);
  // The store's statements only use the tag, with scalars, text arrays and fragments.
  return tag as unknown as Sql; // oxlint-disable-line typescript/no-unsafe-type-assertion
}

/** As text, so that it does not depend on how the caller's client encodes arrays. */
function arrayLiteral(values: readonly unknown[]): string {
  return `{${values.map((value) => `"${String(value).replaceAll(/["\\]/g, String.raw`\$&`)}"`).join(',')}}`;
}
