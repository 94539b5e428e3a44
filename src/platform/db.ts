// Postgres: the single pool of a process. Every statement goes through `run`, which names it for the I/O seam and sets a
// deadline, so that a dead connection can never block a step forever.
import postgres from 'postgres';
import { ConfigError } from './config-error.ts';
import { explainConnectionError } from './database-tls.ts';
import { readDatabaseUrl } from './database-url.ts';
import { withDeadline } from './deadline.ts';
import { NotMigratedError } from './environment-mismatch.ts';
import { errorCodeOf, isLocalTrouble } from './error-code.ts';
import type { Io } from './io.ts';
import { directIo } from './io.ts';
import { postgresJsOptions } from './postgres-js-options.ts';
import { requireVersion } from './server-version.ts';
import { parseTimestamp } from './time.ts';

export type Sql = postgres.Sql;

/** One connection, reserved from the pool. */
export type ReservedSql = postgres.ReservedSql;

/** A SQL fragment with its parameters, for use in a larger statement. */
export type SqlFragment = postgres.PendingQuery<postgres.Row[]>;

export type Database = Readonly<{
  sql: Sql;
  /**
   * Runs one statement.
   *
   * @param name its purpose, such as `store.commit`; shown in logs, traces and the crash matrix
   * @throws {DatabaseTimeoutError} if there was no reply before the deadline; the statement may still have taken effect
   */
  run<T>(name: string, statement: (sql: Sql) => PromiseLike<T>): Promise<T>;
  close(): Promise<void>;
}>;

export class DatabaseTimeoutError extends Error {
  override readonly name = 'DatabaseTimeoutError';
  readonly code = 'database_timeout';
}

// After a burst, a pool soon closes unneeded connections, but not so soon that it reconnects every minute.
export const IDLE_MS = 30_000;

// Seconds that running statements get when a pool closes.
const LEAVING_S = 5;

// SQLSTATE of a write in a read-only transaction. On a standby, all transactions are read-only.
const READ_ONLY = '25006';

/**
 * Returns the SQLSTATE of an error that Postgres itself reported; null for any other, such as a lost connection.
 * Source: https://www.postgresql.org/docs/current/errcodes-appendix.html
 */
export function sqlStateOf(error: unknown): string | null {
  if (error instanceof postgres.PostgresError) return error.code;
  // An app may bring its own copy of this package and of the driver.
  return error instanceof Error && error.name === 'PostgresError' ? errorCodeOf(error) : null;
}

// Connection exceptions, insufficient resources, operator intervention, system errors, a read-only database, lost races.
const outageClasses = ['08', '53', '57', '58', '25', '40', '55'];

const ofOurs = new WeakSet();

/** Whether an error came from our own database, and not from one that a step queries itself. */
export function isOfOurDatabase(error: unknown): boolean {
  return typeof error === 'object' && error !== null && ofOurs.has(error);
}

/** Whether an error means that Postgres is unreachable or temporarily unable to serve: the same statement may succeed later. */
export function isDatabaseOutage(error: unknown): boolean {
  const state = sqlStateOf(error);
  if (state !== null) return outageClasses.some((prefix) => state.startsWith(prefix));
  if (isLocalTrouble(error)) return true;
  return /^(CONNECT|CONNECTION_|ECONN|EPIPE|ETIMEDOUT|ENOTFOUND|EHOSTUNREACH|EHOSTDOWN|ENETUNREACH|ENETDOWN|database_timeout)/.test(errorCodeOf(error) ?? '');
}

// SQLSTATEs of a missing table, schema, column or function.
const notMigrated = ['42P01', '3F000', '42703', '42883'];

/** Whether a statement of ours failed for something that `arcadia migrate` makes. */
export function isNotMigrated(error: unknown): boolean {
  return notMigrated.includes(sqlStateOf(error) ?? '');
}

/** Returns the error that says what to do if a statement of ours failed for something that `arcadia migrate` makes; null: it did not. */
export function missingMigration(error: unknown): NotMigratedError | null {
  if (!isNotMigrated(error) || !isOfOurDatabase(error)) return null;
  return new NotMigratedError(`The database is not migrated to this version: run \`arcadia migrate\`. (${error instanceof Error ? error.message : String(error)})`, { cause: error });
}

/** Whether an error means that Postgres cannot store a value (class 22): a NUL in a text, a number out of range. */
export function isRefusedValue(error: unknown): boolean {
  return sqlStateOf(error)?.startsWith('22') === true;
}

/** Whether an error means that Postgres refuses JSON for its characters, its size or its depth, whatever is tried again. */
export function isUnstorableJson(error: unknown): boolean {
  // untranslatable_character, program_limit_exceeded, statement_too_complex
  return ['22P05', '54000', '54001'].includes(sqlStateOf(error) ?? '');
}

/**
 * Opens a pool. It connects on first use, and reconnects after a connection was lost.
 *
 * @param url with `pgbouncer=true`, nothing is kept in a session, because each statement may run in another one
 * @param options.max maximum number of connections; idle ones are closed after a while
 * @param options.idleMs how long a connection may be idle, in milliseconds
 * @param options.timeoutMs deadline of one statement, in milliseconds, from requesting a connection to the reply
 * @throws {ConfigError} if the URL is invalid
 */
export function openDatabase(
  url: string,
  options: { max?: number; idleMs?: number; timeoutMs?: number; io?: Io; applicationName?: string } = {},
): Database {
  const { max = 10, idleMs = IDLE_MS, timeoutMs = 10_000, io = directIo, applicationName = 'arcadia' } = options;
  const limitMs = timeoutMs + 1_000;
  const connection = postgresJsOptions(readDatabaseUrl(url), { applicationName, statementTimeoutMs: timeoutMs });
  const open = () => postgres({
    ...connection,
    max,
    idle_timeout: idleMs / 1_000,
    // Seconds. Small and fixed: the default grows to 20 s, longer than a restart of Postgres takes.
    backoff: () => 0.5,
    onnotice: () => undefined,
    // Otherwise postgres.js queries the array types on each new connection and catches no error of that query. If
    // Postgres dies at that moment, an unhandled rejection ends the whole process. The array types in use are declared
    // here.
    fetch_types: false,
    types: { textArray, uuidArray, timestamp },
    // Only columns: postgres.camel would also rename the keys inside a saga's context.
    transform: { column: { from: postgres.toCamel } },
  });
  let pool = open();
  // A connection whose other end disappeared silently stays in the pool, and postgres.js keeps sending statements on it
  // until TCP gives up a quarter of an hour later. The same happens to a connection that was lost with data still to be
  // written: it never writes again (https://github.com/porsager/postgres/pull/1215) and so cannot reconnect. So after a
  // timeout the whole pool is replaced.
  const replace = (silent: Sql) => {
    if (silent !== pool) return;
    pool = open();
    void silent.end({ timeout: LEAVING_S });
  };
  // A connection that was made while the address still led to a standby stays there; a new one leads to the primary. Only
  // one pool at a time is replaced for this reason, because the database may be read-only on purpose.
  let isLeaving = false;
  const leaveStandby = (used: Sql) => {
    if (isLeaving || used !== pool) return;
    isLeaving = true;
    pool = open();
    void used.end({ timeout: LEAVING_S }).finally(() => {
      isLeaving = false;
    });
  };
  // If no connection was established, nothing was sent, so the statement is retried once on a new pool.
  const ask = async <T>(statement: (sql: Sql) => PromiseLike<T>): Promise<T> => {
    const used = pool;
    try {
      return await statement(used);
    } catch (error) {
      if (errorCodeOf(error) !== 'CONNECT_TIMEOUT') throw error;
      replace(used);
      return statement(pool);
    }
  };
  return {
    get sql() {
      return pool;
    },
    run: (name, statement) =>
      io('sql', name, async () => {
        const used = pool;
        try {
          // The server's statement_timeout cannot help if the server is unreachable. This is the deadline on our side.
          return await withDeadline(limitMs, ask(statement), () => timeoutError(name, limitMs));
        } catch (error) {
          if (error instanceof DatabaseTimeoutError) replace(used);
          if (sqlStateOf(error) === READ_ONLY) leaveStandby(used);
          if (isUnknownSetting(error)) await requireVersionBehind(connection);
          const explained = isUndeclaredPooler(error) ? poolerError(error) : explainConnectionError(error);
          if (typeof explained === 'object' && explained !== null) ofOurs.add(explained);
          throw explained;
        }
      }),
    close: () => pool.end({ timeout: LEAVING_S }),
  };
}

/**
 * Reserves a connection of a pool that is otherwise idle. Give it back with `release`. postgres.js never returns from
 * `reserve` if it has to connect first (because we disable its query of array types), so a connection must already exist.
 */
export async function reserveConnection(db: Database): Promise<ReservedSql> {
  await db.run('db.reserve', (sql) => sql`select 1`);
  return db.sql.reserve();
}

// How many values Postgres expects of a list that it does not know.
const EXPECTED_OF_LIST = 10;

/**
 * SQL that compares a UUID with those of a list. Its plan is made once for a connection: for a list of fewer than ten, Postgres
 * would find the plan for exactly these cheaper than a general one, and so make it anew for each statement, which costs it
 * as much as the statement.
 *
 * Source: https://www.postgresql.org/docs/current/sql-prepare.html#SQL-PREPARE-NOTES
 */
export function oneOf(sql: Sql, ids: readonly string[]): SqlFragment {
  const [first] = ids;
  if (first === undefined || ids.length >= EXPECTED_OF_LIST) return sql`= any(${[...ids]}::uuid[])`;
  // Also in a small table without statistics, a plan for one id looks it up by its key.
  if (ids.length === 1) return sql`= ${first}::uuid`;
  return sql`= any(${[...ids, ...Array<string>(EXPECTED_OF_LIST - ids.length).fill(first)]}::uuid[])`;
}

/** Whether the server does not know a setting that each connection sets at its start. Older servers do not know all of them. */
function isUnknownSetting(error: unknown): boolean {
  return sqlStateOf(error) === '42704' && error instanceof Error && error.message.startsWith('unrecognized configuration parameter');
}

/**
 * Uses a connection without settings.
 *
 * @throws {ConfigError} naming the version if it is too old
 */
async function requireVersionBehind(connection: ReturnType<typeof postgresJsOptions>): Promise<void> {
  const bare = postgres({ ...connection, connection: {}, max: 1, fetch_types: false });
  try {
    const [row] = await bare<{ version: string }[]>`select current_setting('server_version') as version`;
    requireVersion('PostgreSQL', row?.version ?? '');
  } finally {
    await bare.end({ timeout: 1 });
  }
}

/** Whether a pooler rejected a setting that is meant for the server. */
function isUndeclaredPooler(error: unknown): boolean {
  return sqlStateOf(error) === '08P01' && error instanceof Error && error.message.includes('startup parameter');
}

function poolerError(cause: unknown): ConfigError {
  const message = cause instanceof Error ? cause.message : String(cause);
  return Object.assign(new ConfigError(`DATABASE_URL leads through a connection pooler (${message}): add pgbouncer=true to its parameters.`), { cause });
}

function timeoutError(name: string, limitMs: number): DatabaseTimeoutError {
  return new DatabaseTimeoutError(`${name}: Postgres did not answer within ${limitMs} ms`);
}

// text[] and uuid[]. Their object ids are the same in every Postgres. One-dimensional and without nulls, like our
// columns.
const textArray = {
  to: 1009,
  from: [1009],
  serialize: (texts: readonly string[]) => `{${texts.map((text) => `"${/["\\]/.test(text) ? text.replaceAll(/["\\]/g, String.raw`\$&`) : text}"`).join(',')}}`,
  parse: parseTexts,
};

function parseTexts(literal: string): string[] {
  if (literal === '{}') return [];
  // Names of steps are not quoted.
  if (!literal.includes('"')) return literal.slice(1, -1).split(',');
  return Array.from(literal.matchAll(/"([^"\\]*(?:\\.[^"\\]*)*)"|[^{},]+/gs), ([bare, quoted]) => quoted?.replaceAll(/\\(.)/gs, '$1') ?? bare);
}

const uuidArray = { ...textArray, to: 2951, from: [2951] };

// timestamptz. An unreadable time fails its statement: as an `Invalid Date` it would make every age NaN and every
// comparison false.
const timestamp = { to: 1184, from: [1184], serialize: (time: Date) => time.toISOString(), parse: parseTimestamp };

// Deadline of a background statement.
const BACKGROUND_LIMIT_MS = 5_000;

/** Runs background statements, which belong to no job: they bypass the I/O seam and have their own deadline. */
export function withoutIo(db: Database): Pick<Database, 'run'> {
  return {
    run: (name, statement) => withDeadline(BACKGROUND_LIMIT_MS, Promise.resolve(statement(db.sql)), () => new DatabaseTimeoutError(`${name}: no answer within ${BACKGROUND_LIMIT_MS} ms`)),
  };
}
