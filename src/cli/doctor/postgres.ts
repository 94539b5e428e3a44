// Checks Postgres: reachability, version, environment, migrations and clock; and the fleet's state in it: workers, budget
// and whatever is stuck.
import type { FleetStatus } from '../../fleet/conditions.ts';
import { judgeFleet } from '../../fleet/conditions.ts';
import type { PostgresFacts } from '../../fleet/facts.ts';
import { readFleetFacts } from '../../fleet/facts.ts';
import { checkSession } from '../../platform/check-session.ts';
import { readDatabaseTime } from '../../platform/clock.ts';
import type { Config } from '../../platform/config.ts';
import type { Database } from '../../platform/db.ts';
import { isNotMigrated, openDatabase } from '../../platform/db.ts';
import { endsWithin } from '../../platform/deadline.ts';
import { silentLog } from '../../platform/log.ts';
import { packageVersion } from '../../platform/package-version.ts';
import { describePostgresFailure } from '../../platform/postgres-failure.ts';
import { readMigrations } from '../../processes/due-migrations.ts';
import { checkEnvironment } from '../../processes/environment.ts';
import { checkPooler } from '../../processes/pooler.ts';
import type { QueuePlace } from '../../queues/connection.ts';
import { placeOf, queueStoreOf } from '../../queues/connection.ts';
import type { Finding } from './finding.ts';
import { describeSkew, fail, ok, warn } from './finding.ts';

const ANSWER_WITHIN_MS = 4_000;
const CLOSE_WITHIN_MS = 500;

// Conditions that another line reports, or that show only over time.
const TOLD_ELSEWHERE = new Set(['postgres_away', 'queue_store_away', 'no_worker', 'budget_used_up']);

/** Checks the Postgres of DATABASE_URL. `isPlain`: the app has no droplets and so no inventory. */
export async function checkPostgres(config: Config, databaseUrl: string, { isPlain }: { isPlain: boolean }): Promise<Finding[]> {
  const db = openDatabase(databaseUrl, { max: 2, timeoutMs: ANSWER_WITHIN_MS, applicationName: 'arcadia-doctor' });
  try {
    const [row] = await db.run('doctor.version', (sql) => sql<{ version: string }[]>`select current_setting('server_version') as version`);
    const reached = ok('postgres', `reachable, PostgreSQL ${row?.version ?? 'of an unknown version'}`);
    const rest = await Promise.all([session(db, config, databaseUrl), clock(db), migrations(db), fleet(db, config, isPlain)]);
    return [reached, ...rest.flat()];
  } catch (error) {
    return [fail('postgres', describePostgresFailure(error) ?? messageOf(error), 'Check Postgres and DATABASE_URL.')];
  } finally {
    await endsWithin(CLOSE_WITHIN_MS, db.close());
  }
}

async function session(db: Database, config: Config, databaseUrl: string): Promise<Finding[]> {
  try {
    await checkPooler(db, databaseUrl, silentLog);
    await checkSession(db, databaseUrl, silentLog);
    const { name } = await checkEnvironment(db, config.environment);
    return [ok('environment', `the database belongs to the environment ${name}`)];
  } catch (error) {
    return [fail('environment', messageOf(error), 'Workers do not start like this.')];
  }
}

async function clock(db: Database): Promise<Finding[]> {
  const { databaseMs, atMs } = await readDatabaseTime(db);
  return [describeSkew('clock of postgres', 'Postgres', Date.now() - (databaseMs + performance.now() - atMs))];
}

async function migrations(db: Database): Promise<Finding[]> {
  const { due, unknown } = await readMigrations(db);
  if (due.length > 0) return [fail('migrations', `${due.length} due: ${due.length > 3 ? `${due.slice(0, 3).join(', ')}, …` : due.join(', ')}`, 'Run `arcadia migrate`.')];
  if (unknown > 0) return [warn('migrations', `the database is ${unknown} ahead of this version`, 'Update arcadia-cloud on this machine.')];
  return [ok('migrations', 'none due')];
}

async function fleet(db: Database, config: Config, isPlain: boolean): Promise<Finding[]> {
  let facts: PostgresFacts;
  try {
    facts = await readFleetFacts(db);
  } catch (error) {
    if (isNotMigrated(error)) return [fail('workers', 'the tables cannot be read', 'Run `arcadia migrate`.')];
    return [fail('workers', `the tables cannot be read: ${messageOf(error)}`, 'Fix what Postgres says. If a statement took too long, look for locks on its tables (pg_locks) and at its load.')];
  }
  const status = judgeFleet({ postgres: facts, queues: { paused: [], stalled: [] }, usersFile: null }, { ...config, queuePlace: ownPlace(config), ...(isPlain ? { inventorySyncIntervalMs: null } : {}) }, new Date(Date.now()));
  return [...workers(facts), ...budget(facts), ...standing(status)];
}

/** Undefined: they cannot be used, which another line reports. */
function ownPlace(config: Config): QueuePlace | undefined {
  try {
    return placeOf(queueStoreOf(config));
  } catch {
    return undefined;
  }
}

function workers({ workers: seen }: PostgresFacts): Finding[] {
  const alive = seen.filter(({ isAlive }) => isAlive);
  if (alive.length === 0) return [fail('workers', 'none is alive', 'Start one: `arcadia worker`.')];
  const own = packageVersion();
  const others = alive.filter(({ version }) => version !== own);
  if (others.length > 0) return [warn('workers', `${alive.length} alive, ${others.length} of another version: ${others.map(({ name, version }) => `${name} (${version})`).join(', ')}; this is ${own}`, 'Deploy one version everywhere.')];
  return [ok('workers', `${alive.length} alive, version ${own}`)];
}

function budget({ throttledUntil, now }: PostgresFacts): Finding[] {
  if (throttledUntil === null || throttledUntil <= now) return [];
  return [warn('request budget', `workers wait for it; there is room at ${throttledUntil.toISOString()}`, 'Nothing, unless it lasts: start fewer sagas at once.')];
}

/** The conditions that the pages show in their strip. */
function standing({ conditions }: FleetStatus): Finding[] {
  return conditions
    .filter(({ name }) => !TOLD_ELSEWHERE.has(name))
    .map(({ severity, title, detail, action }) => ({ check: 'fleet', level: severity === 'critical' ? 'fail' : 'warn', text: `${title}. ${detail}`.trim(), action }));
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
