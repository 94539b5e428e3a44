// Databases that tests reuse, first in their own file and then in other files. On a busy machine, Postgres takes a good part of a
// second to copy a template and to drop the copy (a checkpoint, and new processes for connections), but only milliseconds to
// empty a database. A database in which a test changed more than rows is not reused.

import { setTimeout as sleep } from 'node:timers/promises';
import postgres from 'postgres';
import { openAdmin } from './admin-connection.ts';

/** What a template looks like, kept as the comment on it. */
type Blueprint = Readonly<{
  /** Changes with each change of a table, a function, a trigger, a right. */
  schema: string;
  bytes: number;
  tables: readonly Readonly<{ table: string; columns: string; rows: string | null }>[];
  sequences: readonly Readonly<{ sequence: string; last: string; isCalled: boolean }>[];
}>;

export type DatabasePlace = Readonly<{ serverUrl: string; runId: string; template: string }>;

const objectInUse = '55006';

// A larger database has other query plans than a new one.
const MAX_GROWTH_BYTES = 4_194_304;

/** The address of a database on a server. */
export function withDatabase(serverUrl: string, database: string): string {
  const url = new URL(serverUrl);
  url.pathname = `/${database}`;
  return url.href;
}

export async function withClient<T>(url: string, operation: (sql: postgres.Sql) => Promise<T>): Promise<T> {
  const sql = openAdmin(url);
  try {
    return await operation(sql);
  } finally {
    await sql.end({ timeout: 5 });
  }
}

/** A database like a template's, and this process's own connection to it, opened when it is first emptied. */
type Pooled = { readonly name: string; readonly template: string; sql: postgres.Sql | null };

const all = new Map<string, Pooled>();
const free: Pooled[] = [];

/** Takes a database like the template's: one that is free, else a new copy. Returns its name. */
export async function takeDatabase({ serverUrl, runId, template }: DatabasePlace, newName: string, migrate: (url: string) => Promise<void>): Promise<string> {
  for (;;) {
    const index = free.findIndex((pooled) => pooled.template === template);
    const [found] = index === -1 ? [] : free.splice(index, 1);
    if (found === undefined) break;
    if (found.sql !== null && (await connectionsOfOthers(found.sql)).length === 0) return found.name;
    // A process that an earlier test left behind would go on in this one.
    await dropDatabase(serverUrl, found);
  }
  return withClient(serverUrl, async (admin) => {
    await ensureTemplate(admin, { serverUrl, runId, template }, migrate);
    const reused = await takeReleased(admin, { serverUrl, runId, template });
    if (reused === null) await cloneDatabase(admin, newName, templateName(runId, template));
    const name = reused ?? newName;
    all.set(name, { name, template, sql: null });
    return name;
  });
}

/** What the comment on a database says that any file of the run may take. */
function releasedMark(runId: string, template: string): string {
  return `free: ${templateName(runId, template)}`;
}

/** Takes a database that another file has released, where there is one that is still as it was then. */
async function takeReleased(admin: postgres.Sql, place: DatabasePlace): Promise<string | null> {
  const mark = releasedMark(place.runId, place.template);
  for (;;) {
    // Of several files at once, each gets another.
    const [found] = await admin.begin(async (transaction) => {
      await transaction`select pg_advisory_xact_lock(hashtextextended(${mark}, 0))`;
      const rows = await transaction<{ name: string }[]>`select datname as name from pg_database where shobj_description(oid, 'pg_database') = ${mark} limit 1`;
      for (const { name } of rows) await transaction.unsafe(`comment on database ${name} is null`);
      return rows;
    });
    if (found === undefined) return null;
    const isAsBefore = await withClient(withDatabase(place.serverUrl, found.name), async (sql) => {
      const [others, blueprint, shape] = [await connectionsOfOthers(sql), await readBlueprint(sql, templateName(place.runId, place.template)), await readShape(sql)];
      return others.length === 0 && isLike(blueprint, shape);
    }).catch(() => false);
    if (isAsBefore) return found.name;
    await admin`drop database if exists ${admin(found.name)} with (force)`;
  }
}

/** Empties a database for the next test; drops it where that is not enough. */
export async function giveDatabaseBack(place: DatabasePlace, name: string): Promise<void> {
  const pooled = all.get(name);
  if (pooled === undefined || free.includes(pooled)) return;
  pooled.sql ??= openAdmin(withDatabase(place.serverUrl, name), { application_name: 'test-database-pool' });
  const isEmpty = await restore(pooled.sql, place).catch(() => false);
  if (isEmpty) free.push(pooled);
  else await dropDatabase(place.serverUrl, pooled);
}

/** Hands over what this process has taken and can be reused, and drops the rest. To be called after the last test of a file. */
export async function releaseDatabases({ serverUrl, runId }: Pick<DatabasePlace, 'serverUrl' | 'runId'>): Promise<void> {
  const released = free.splice(0);
  for (const { name, sql } of released) {
    all.delete(name);
    await sql?.end({ timeout: 5 });
  }
  for (const pooled of all.values()) await dropDatabase(serverUrl, pooled);
  if (released.length === 0) return;
  await withClient(serverUrl, async (admin) => {
    for (const { name, template } of released) await admin.unsafe(`comment on database ${name} is ${quoted(releasedMark(runId, template))}`);
  });
}

async function dropDatabase(serverUrl: string, { name, sql }: Pooled): Promise<void> {
  all.delete(name);
  await sql?.end({ timeout: 5 });
  await withClient(serverUrl, (admin) => admin`drop database if exists ${admin(name)} with (force)`);
}

async function restore(sql: postgres.Sql, place: DatabasePlace): Promise<boolean> {
  if (!(await isLeftAlone(sql))) return false;
  return empty(sql, await readBlueprint(sql, templateName(place.runId, place.template)));
}

const LEFT_WITHIN_MS = 2_000;

/** Ends the connections of others. Returns false where there are new ones all the time. */
async function isLeftAlone(sql: postgres.Sql): Promise<boolean> {
  const deadline = performance.now() + LEFT_WITHIN_MS;
  while (performance.now() < deadline) {
    const others = await connectionsOfOthers(sql);
    if (others.length === 0) return true;
    for (const pid of others) await sql`select pg_terminate_backend(${pid})`;
    await sleep(5);
  }
  return false;
}

async function connectionsOfOthers(sql: postgres.Sql): Promise<number[]> {
  const rows = await sql<{ pid: number }[]>`select pid from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid() and backend_type = 'client backend'`;
  return rows.map(({ pid }) => pid);
}

/** Makes a run's template, where it is not there yet. Of several at once, one makes it. */
async function ensureTemplate(admin: postgres.Sql, { serverUrl, runId, template }: DatabasePlace, migrate: (url: string) => Promise<void>): Promise<void> {
  const name = templateName(runId, template);
  // A session lock: the client has only one connection, which runs all of this.
  await admin`select pg_advisory_lock(hashtextextended(${name}, 0))`;
  try {
    const found = await admin`select 1 from pg_database where datname = ${name}`;
    if (found.length > 0) return;
    // Renamed when complete: a template half migrated by a test that failed must not be cloned by the next.
    const unfinished = `${name}_unfinished`;
    const url = withDatabase(serverUrl, unfinished);
    await admin`drop database if exists ${admin(unfinished)} with (force)`;
    await admin`create database ${admin(unfinished)}`;
    await migrate(url);
    const blueprint = await withClient(url, drawBlueprint);
    await admin.unsafe(`comment on database ${unfinished} is ${quoted(JSON.stringify(blueprint))}`);
    // An open connection of migrate would block renaming and cloning.
    await admin`select pg_terminate_backend(pid, 5000) from pg_stat_activity where datname = ${unfinished}`;
    await admin`alter database ${admin(unfinished)} rename to ${admin(name)}`;
  } finally {
    await admin`select pg_advisory_unlock(hashtextextended(${name}, 0))`;
  }
}

function templateName(runId: string, template: string): string {
  return `arcadia_test_${runId}_${template}`;
}

async function cloneDatabase(admin: postgres.Sql, name: string, template: string): Promise<void> {
  for (let attempt = 1; ; attempt++) {
    try {
      await admin`create database ${admin(name)} template ${admin(template)}`;
      return;
    } catch (error) {
      // Autovacuum connects to a template from time to time.
      const busy = error instanceof postgres.PostgresError && error.code === objectInUse;
      if (!busy || attempt === 50) throw error;
      await sleep(100);
    }
  }
}

async function readBlueprint(sql: postgres.Sql, template: string): Promise<Blueprint> {
  const [row] = await sql<{ comment: string }[]>`select shobj_description(oid, 'pg_database') as comment from pg_database where datname = ${template}`;
  // oxlint-disable-next-line typescript/no-unsafe-type-assertion -- written by ensureTemplate
  return JSON.parse(row?.comment ?? 'null') as Blueprint;
}

async function drawBlueprint(sql: postgres.Sql): Promise<Blueprint> {
  const { schema, bytes } = await readShape(sql);
  const tables = await sql<{ table: string; columns: string }[]>`
    select format('%I.%I', n.nspname, c.relname) as table, string_agg(quote_ident(a.attname), ', ' order by a.attnum) as columns
    from pg_class c join pg_namespace n on n.oid = c.relnamespace join pg_attribute a on a.attrelid = c.oid
    where c.relkind = 'r' and n.nspname not in ('pg_catalog', 'information_schema') and a.attnum > 0 and not a.attisdropped and a.attgenerated = ''
    group by 1 order by 1`;
  const withRows = [];
  for (const { table, columns } of tables) {
    const [row] = await sql.unsafe<{ rows: string | null }[]>(`select json_agg(t)::text as rows from ${table} t`);
    withRows.push({ table, columns, rows: row?.rows ?? null });
  }
  const names = await sql<{ sequence: string }[]>`select format('%I.%I', schemaname, sequencename) as sequence from pg_sequences`;
  const sequences = [];
  for (const { sequence } of names) {
    const [row] = await sql.unsafe<{ last: string; isCalled: boolean }[]>(`select last_value::text as last, is_called as "isCalled" from ${sequence}`);
    if (row !== undefined) sequences.push({ sequence, last: row.last, isCalled: row.isCalled });
  }
  return { schema, bytes, tables: withRows, sequences };
}

/** Puts the rows of the template in place of what is there. Returns false where more than rows differs. */
async function empty(sql: postgres.Sql, blueprint: Blueprint): Promise<boolean> {
  const shape = await readShape(sql);
  if (!isLike(blueprint, shape)) return false;
  const statements = [
    // Neither foreign keys nor triggers.
    `set local session_replication_role = replica`,
    ...blueprint.tables.map(({ table }) => `delete from ${table}`),
    ...blueprint.tables.flatMap(({ table, columns, rows }) => (rows === null ? [] : [`insert into ${table} (${columns}) overriding system value select ${columns} from json_populate_recordset(null::${table}, ${quoted(rows)})`])),
    ...blueprint.sequences.map(({ sequence, last, isCalled }) => `select setval(${quoted(sequence)}, ${last}, ${isCalled})`),
  ];
  await sql.unsafe(`begin; ${statements.join(';\n')}; commit`);
  return true;
}

/** Whether a database differs from its template in no more than rows. */
function isLike(blueprint: Blueprint, { schema, bytes, isConfigured, isAnalyzed }: Shape): boolean {
  return schema === blueprint.schema && !isConfigured && !isAnalyzed && bytes <= blueprint.bytes + MAX_GROWTH_BYTES;
}

// The number of rows of a catalog and the last transaction that wrote one: every change alters one of them.
const catalogs = ['pg_class', 'pg_attribute', 'pg_attrdef', 'pg_proc', 'pg_trigger', 'pg_constraint', 'pg_namespace', 'pg_type', 'pg_policy', 'pg_rewrite', 'pg_extension', 'pg_default_acl', 'pg_event_trigger', 'pg_publication', 'pg_description'];

type Shape = Readonly<{ schema: string; bytes: number; isConfigured: boolean; isAnalyzed: boolean }>;

async function readShape(sql: postgres.Sql): Promise<Shape> {
  const schema = catalogs.map((catalog) => `(select count(*) || '/' || coalesce(max(xmin::text::bigint), 0) from ${catalog})`).join(` || ' ' || `);
  const [row] = await sql.unsafe<Shape[]>(`
    select ${schema} as schema, pg_database_size(d.oid)::float8 as bytes,
      d.datacl is not null or exists (select 1 from pg_db_role_setting s where s.setdatabase = d.oid) as "isConfigured",
      exists (select 1 from pg_statistic s join pg_class c on c.oid = s.starelid join pg_namespace n on n.oid = c.relnamespace where n.nspname not in ('pg_catalog', 'information_schema')) as "isAnalyzed"
    from pg_database d where datname = current_database()`);
  if (row === undefined) throw new Error('the database does not know itself');
  return row;
}

function quoted(text: string): string {
  return `'${text.replaceAll("'", "''")}'`;
}
