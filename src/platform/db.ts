// Postgres: the one pool of a process. Every statement goes through `run`, which names it for the I/O seam and
// gives it a time limit, so that a dead connection can never hold a step for ever.
import postgres from 'postgres';
import { ConfigError } from './config-error.ts';
import { explainConnectionError } from './database-tls.ts';
import { readDatabaseUrl } from './database-url.ts';
import { withDeadline } from './deadline.ts';
import { errorCodeOf, isLocalTrouble } from './error-code.ts';
import type { Io } from './io.ts';
import { directIo } from './io.ts';
import { postgresJsOptions } from './postgres-js-options.ts';
import { requireVersion } from './server-version.ts';
import { parseTimestamp } from './time.ts';

export type Sql = postgres.Sql;

/** One connection, taken out of the pool. */
export type ReservedSql = postgres.ReservedSql;

/** A fragment of SQL with its parameters, to be put into a larger statement. */
export type SqlFragment = postgres.PendingQuery<postgres.Row[]>;

export type Database = Readonly<{
  sql: Sql;
  /**
   * Runs one statement.
   *
   * @param name what it is for, such as `store.commit`; shown in logs, traces and the crash matrix
   * @throws {DatabaseTimeoutError} when there was no answer within the database's time limit; the statement may have
   *   been applied all the same
   */
  run<T>(name: string, statement: (sql: Sql) => PromiseLike<T>): Promise<T>;
  close(): Promise<void>;
}>;

export class DatabaseTimeoutError extends Error {
  override readonly name = 'DatabaseTimeoutError';
  readonly code = 'database_timeout';
}

// After a burst a pool gives back what it does not need, soon; not so soon that each minute makes connections anew.
export const IDLE_MS = 30_000;

// Seconds that statements under way are given when a pool is closed.
const LEAVING_S = 5;

// The SQLSTATE of a write in a read-only transaction: all of a standby are.
const READ_ONLY = '25006';

/**
 * The SQLSTATE of an error that Postgres itself answered with; null for any other, such as a lost connection.
 * Source: https://www.postgresql.org/docs/current/errcodes-appendix.html
 */
export function sqlStateOf(error: unknown): string | null {
  if (error instanceof postgres.PostgresError) return error.code;
  // An app may bring its own copy of this package, and of the driver.
  return error instanceof Error && error.name === 'PostgresError' ? errorCodeOf(error) : null;
}

// Connection trouble, too few resources, an operator's doing, the system's, a read-only database, a lost race.
const outageClasses = ['08', '53', '57', '58', '25', '40', '55'];

const ofOurs = new WeakSet();

/** Whether an error is one of our own database's, and not of one that a step asks by itself. */
export function isOfOurDatabase(error: unknown): boolean {
  return typeof error === 'object' && error !== null && ofOurs.has(error);
}

/** Whether an error says that Postgres is away, or can't serve at the moment: the same statement may succeed later. */
export function isDatabaseOutage(error: unknown): boolean {
  const state = sqlStateOf(error);
  if (state !== null) return outageClasses.some((prefix) => state.startsWith(prefix));
  if (isLocalTrouble(error)) return true;
  return /^(CONNECT|CONNECTION_|ECONN|EPIPE|ETIMEDOUT|ENOTFOUND|EHOSTUNREACH|EHOSTDOWN|ENETUNREACH|ENETDOWN|database_timeout)/.test(errorCodeOf(error) ?? '');
}

/** Whether an error says that Postgres cannot take a value as it is (class 22): a NUL in a text, a number out of range. */
export function isRefusedValue(error: unknown): boolean {
  return sqlStateOf(error)?.startsWith('22') === true;
}

/**
 * Opens a pool. Connections are made when first used, and again after they were lost.
 *
 * @param url with `pgbouncer=true`, nothing is kept in a session: each statement may meet another one
 * @param options.max connections at once; those that are idle for a while are closed
 * @param options.idleMs how long a connection may be idle, in milliseconds
 * @param options.timeoutMs time limit of one statement, in milliseconds, from asking for a connection to its reply
 * @throws {ConfigError} when the URL cannot be used
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
    // Else postgres.js asks each new connection for the array types, and catches no error of that: where Postgres dies
    // just then, the whole process ends with an unhandled rejection. The array types in use are declared here.
    fetch_types: false,
    types: { textArray, uuidArray, timestamp },
    // Only columns: postgres.camel would also rename the keys inside a saga's context.
    transform: { column: { from: postgres.toCamel } },
  });
  let pool = open();
  // A connection whose other end is gone without a word stays in the pool, and postgres.js sends further statements down
  // the same hole, until TCP gives up a quarter of an hour later. So does one that was lost while something was still to be
  // written on it: it never writes again (https://github.com/porsager/postgres/pull/1215), so that it cannot be made anew.
  // So after a silence the whole pool is replaced.
  const replace = (silent: Sql) => {
    if (silent !== pool) return;
    pool = open();
    void silent.end({ timeout: LEAVING_S });
  };
  // Where no connection came about, nothing was sent: it is asked on a new pool, once.
  // A connection that was made while the address still led to a standby stays there; a new one leads to the primary. One
  // pool at a time is on its way out, as the database may also be read-only on purpose.
  let isLeaving = false;
  const leaveStandby = (used: Sql) => {
    if (isLeaving || used !== pool) return;
    isLeaving = true;
    pool = open();
    void used.end({ timeout: LEAVING_S }).finally(() => {
      isLeaving = false;
    });
  };
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
          // The server's statement_timeout cannot help when the server cannot be reached: this is the limit on our side.
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
 * Takes a connection out of a pool that nobody else uses at the moment; to be given back with `release`. Where it has
 * to make one first, postgres.js never hands it out (as we don't let it ask for array types): one must stand.
 */
export async function reserveConnection(db: Database): Promise<ReservedSql> {
  await db.run('db.reserve', (sql) => sql`select 1`);
  return db.sql.reserve();
}

/** Whether a server does not know a setting that each connection makes at its start: the older ones do not know all. */
function isUnknownSetting(error: unknown): boolean {
  return sqlStateOf(error) === '42704' && error instanceof Error && error.message.startsWith('unrecognized configuration parameter');
}

/** @throws {ConfigError} naming the version, where it is too old; asked on a connection that sets nothing */
async function requireVersionBehind(connection: ReturnType<typeof postgresJsOptions>): Promise<void> {
  const bare = postgres({ ...connection, connection: {}, max: 1, fetch_types: false });
  try {
    const [row] = await bare<{ version: string }[]>`select current_setting('server_version') as version`;
    requireVersion('PostgreSQL', row?.version ?? '');
  } finally {
    await bare.end({ timeout: 1 });
  }
}

/** Whether an error is that of a pooler which was offered a setting of the server's. */
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

// text[] and uuid[]; their object ids are the same in every Postgres. One-dimensional, without nulls: what our columns hold.
const textArray = {
  to: 1009,
  from: [1009],
  serialize: (texts: readonly string[]) => `{${texts.map((text) => `"${text.replaceAll(/["\\]/g, String.raw`\$&`)}"`).join(',')}}`,
  parse: (literal: string) =>
    Array.from(literal.matchAll(/"([^"\\]*(?:\\.[^"\\]*)*)"|[^{},]+/gs), ([bare, quoted]) => quoted?.replaceAll(/\\(.)/gs, '$1') ?? bare),
};

const uuidArray = { ...textArray, to: 2951, from: [2951] };

// timestamptz. A time that cannot be read fails its statement: as `Invalid Date` it would make every age NaN, and each
// comparison with it false.
const timestamp = { to: 1184, from: [1184], serialize: (time: Date) => time.toISOString(), parse: parseTimestamp };

// Of a statement of the background.
const BACKGROUND_LIMIT_MS = 5_000;

/** Statements of the background, which belong to no job: past the I/O seam, with a time limit of their own. */
export function withoutIo(db: Database): Pick<Database, 'run'> {
  return {
    run: (name, statement) => withDeadline(BACKGROUND_LIMIT_MS, Promise.resolve(statement(db.sql)), () => new Error(`${name}: no answer within ${BACKGROUND_LIMIT_MS} ms`)),
  };
}
