// Searches sagas by status, name, subject, tag, time and text, in pages, newest first. Also counts them, for monitoring.
import { z } from 'zod';
import { decodeCursor, encodeCursor } from '../platform/cursor.ts';
import type { Database, Sql, SqlFragment } from '../platform/db.ts';
import { isUuidPrefix, uuidsWithPrefix } from '../platform/uuid.ts';
import { recentFailures } from './failure-causes.ts';
import type { Saga, SagaStatus } from './saga.ts';
import { sagaColumns } from './store.ts';
import type { SubjectFields } from './subject.ts';
import { fieldSql } from './subject.ts';

/** Search filters, combined with AND. Without any, all sagas match. */
export type SagaFilter = Readonly<{
  /** Any of these ids. */
  ids?: readonly string[] | undefined;
  /** The beginning of its id, with the dashes, in either case. */
  idPrefix?: string | undefined;
  /** Any of these statuses. */
  status?: readonly SagaStatus[] | undefined;
  /** The saga's name, as in its definition. */
  name?: string | undefined;
  /** false: only sagas that no other saga repeats. */
  isRerun?: false | undefined;
  /** A field of its context, or else of its input, with its value as text. */
  field?: Readonly<{ name: string; value: string }> | undefined;
  /** One of the `tags` in its input, ignoring case. */
  tag?: string | undefined;
  /** Created at or after this time. */
  createdFrom?: Date | undefined;
  /** Created before this time. */
  createdBefore?: Date | undefined;
  /** Part of its subject's name, ignoring case. */
  text?: string | undefined;
  /** Failed for this cause: see failure-causes.ts. */
  cause?: string | undefined;
  /** Sagas that have no place in the order by this. */
  without?: 'title' | 'subject' | undefined;
  /** Who asked for it, such as `cli:ada`. */
  requestedBy?: string | undefined;
  /**
   * A person's search text: a saga's id or its first 8 characters, the id of a saga's subject, or a part of the subject's
   * name.
   */
  query?: string | undefined;
  /** The fields that `text` and `query` search, besides `name` in the input (see `subjectFieldsOf`). */
  subjectFields?: SubjectFields | undefined;
}>;

// Without a definition, `name` in the input counts as the subject's name.
const plainFields: SubjectFields = { names: [], ids: [] };

const MAX_NAME_LENGTH = 255;

export type SagaPage = Readonly<{
  sagas: readonly Saga[];
  /** Pass it to get the next page; null after the last page. */
  nextCursor: string | null;
}>;

/**
 * `title`: the name of a saga's subject, ignoring case; `subject`: its id, as text. An order by these finds only the sagas that have
 * one: {@link SagaFilter.without} finds the others.
 */
export type SagaOrder = Readonly<{ by: 'started' | 'title' | 'subject'; isDescending: boolean }>;

export const newestFirst: SagaOrder = { by: 'started', isDescending: true };

/**
 * Finds sagas, by default newest first. Each page continues right after the last saga of the previous one, even if sagas
 * were started meanwhile. No saga appears twice, and none that existed at the first page is missed, unless what it is sorted by
 * changed in between.
 *
 * No index covers a part of a name, or the requester. With `page.walk`, a page that looks for them among completed sagas
 * goes past so many sagas at most, and then ends early: it may hold fewer than `limit`, or none, and has a `nextCursor` all
 * the same. Sagas whose id or subject's id is the query, or whose name begins with it, are found however old they are.
 *
 * @param page.limit from 1
 * @param page.walk from 1; by default, all sagas
 * @throws {CursorError}
 */
export async function searchSagas(
  db: Pick<Database, 'run'>,
  filter: SagaFilter,
  page: { limit: number; cursor?: string | undefined; order?: SagaOrder | undefined; walk?: number | undefined },
): Promise<SagaPage> {
  const order = page.order ?? newestFirst;
  if (order.by !== 'started') return searchSorted(db, filter, { ...page, order });
  const [time, id, isRest] = page.cursor === undefined ? [] : decodeCursor(page.cursor, sagaCursor);
  const place: Place = { after: time === undefined || id === undefined ? null : [time, id], isOldestFirst: !order.isDescending };
  const isOfCompleted = filter.status?.includes('completed') ?? true;
  const isWalk = page.walk !== undefined && needsWalk(filter) && isOfCompleted;
  const end = isWalk ? await endOfWalk(db, place, page.walk ?? 1) : null;
  const rows = await db.run('search.sagas', (sql) => {
    const columns = sql`${sagaColumns(sql, listed(sql, filter.subjectFields))}, ${exactCreatedAt(sql)}`;
    const ordered = sql`order by ${place.isOldestFirst ? sql`created_at, id desc` : sql`created_at desc, id`}`;
    if (!isWalk || (end === null && isRest === undefined)) {
      // Postgres expects to find a page of these soon and would walk all sagas, the newest first. `offset 0` makes it read the few
      // that an index holds.
      const from = needsWalk(filter) && !isOfCompleted ? sql`(select * from arcadia.sagas where ${matches(sql, { status: filter.status })} offset 0) as sagas` : sql`arcadia.sagas`;
      return sql<FoundRow[]>`select ${columns} from ${from} where ${matches(sql, filter)} and ${isAfter(sql, place)} ${ordered} limit ${page.limit + 1}`;
    }
    return sql<FoundRow[]>`
      with named as materialized (${namedExactly(sql, filter)}),
      few as materialized (select id from (select id, count(*) over (partition by kind) as alike from named) as counted where alike <= ${MAX_NAMED})
      select * from (
        (select ${columns} from arcadia.sagas where ${isRest === undefined ? sql`id in (select id from few)` : sql`false`} and ${matches(sql, filter)} and ${isAfter(sql, place)} ${ordered} limit ${page.limit + 1})
        union all
        (select ${columns} from arcadia.sagas where ${matches(sql, filter)} and ${isAfter(sql, place)} and ${end === null ? sql`true` : isUntil(sql, end, place)} and id not in (select id from few) ${ordered} limit ${page.limit + 1})
      ) as found order by ${place.isOldestFirst ? sql`exact_created_at, id desc` : sql`exact_created_at desc, id`} limit ${page.limit + 1}`;
  });
  const found = rows.slice(0, page.limit).map(({ exactCreatedAt, ...saga }) => ({ exactCreatedAt, saga }));
  const last = found.at(-1);
  const sagas = found.map(({ saga }) => saga);
  if (rows.length > page.limit && last !== undefined) return { sagas, nextCursor: encodeCursor([last.exactCreatedAt, last.saga.id, ...(isRest === undefined ? [] : [isRest])]) };
  return { sagas, nextCursor: end === null ? null : encodeCursor([...end, 'rest']) };
}

type FoundRow = Saga & { exactCreatedAt: string };
type Row = readonly [time: string, id: string];
type Place = Readonly<{ after: Row | null; isOldestFirst: boolean }>;

// So many sagas may have a name that begins with the query. A more common beginning is looked for like any part of a name.
const MAX_NAMED = 1_000;

/** Whether a filter has conditions that no index covers, so that sagas have to be looked at one by one. */
export function needsWalk({ text, query, requestedBy, ids, idPrefix, field, tag }: SagaFilter): boolean {
  if ([ids, idPrefix, field, tag].some((condition) => condition !== undefined)) return false;
  return text !== undefined || requestedBy !== undefined || (query !== undefined && !z.uuid().safeParse(query).success);
}

function isAfter(sql: Sql, { after, isOldestFirst }: Place): SqlFragment {
  if (after === null) return sql`true`;
  const [time, id] = after;
  return isOldestFirst
    ? sql`created_at >= ${time}::text::timestamptz and (created_at > ${time}::text::timestamptz or id < ${id})`
    : sql`created_at <= ${time}::text::timestamptz and (created_at < ${time}::text::timestamptz or id > ${id})`;
}

function isUntil(sql: Sql, [time, id]: Row, { isOldestFirst }: Place): SqlFragment {
  return isOldestFirst
    ? sql`created_at <= ${time}::text::timestamptz and (created_at < ${time}::text::timestamptz or id >= ${id})`
    : sql`created_at >= ${time}::text::timestamptz and (created_at > ${time}::text::timestamptz or id <= ${id})`;
}

/** The last of the next so many sagas, of any kind; null: there are not so many. */
async function endOfWalk(db: Pick<Database, 'run'>, place: Place, walk: number): Promise<Row | null> {
  const [row] = await db.run(
    'search.end_of_walk',
    (sql) => sql<{ id: string; exactCreatedAt: string }[]>`
      select id, ${exactCreatedAt(sql)} from arcadia.sagas where ${isAfter(sql, place)} order by ${place.isOldestFirst ? sql`created_at, id desc` : sql`created_at desc, id`} offset ${walk - 1} limit 1`,
  );
  return row === undefined ? null : [row.exactCreatedAt, row.id];
}

/**
 * What indexes find for the text or the query: `id`, and `kind` 0 for an id or the whole name, 1 for a name that begins so,
 * in any case. At most one more than {@link MAX_NAMED} of each.
 */
function namedExactly(sql: Sql, filter: SagaFilter): SqlFragment {
  const { text, query, subjectFields = plainFields } = filter;
  // Both, or only the requester: nothing is found without looking.
  if ((text === undefined) === (query === undefined)) return sql`select id, 0 as kind from arcadia.sagas where false`;
  const part = text ?? query ?? '';
  const most = MAX_NAMED + 1;
  const byName = sql`
    (select id, 0 as kind from arcadia.sagas where ${titleSql(sql)} = lower(${part}) and input->>'name' is not null limit ${most})
    union all (select id, 1 from arcadia.sagas where ${beginsWith(sql, part)} limit ${most})`;
  if (query === undefined) return byName;
  return subjectFields.ids.reduce(
    (any, field) => sql`${any} union all (select id, 0 from arcadia.sagas where ${fieldSql(sql, field)} = ${query} limit ${most})`,
    sql`${byName} union all (select id, 0 from arcadia.sagas where saga8 = ${query.toLowerCase()})`,
  );
}

/** All texts that begin so lie between these two, compared by their bytes. */
function beginsWith(sql: Sql, part: string): SqlFragment {
  return sql`${titleSql(sql)} >= lower(${part}) and ${titleSql(sql)} < lower(${part}) || ${'\u{10FFFF}'} and input->>'name' is not null`;
}

/** Written exactly like the expression of the index `sagas_by_title`. */
function titleSql(sql: Sql): SqlFragment {
  return sql`(lower(left(input->>'name', 255)) collate "C")`;
}

/** Finds sagas in the order of a text. It needs no walk: an index holds them in that order, and finds none for a filter sooner. */
async function searchSorted(db: Pick<Database, 'run'>, filter: SagaFilter, page: { limit: number; cursor?: string | undefined; order: SagaOrder }): Promise<SagaPage> {
  const { order } = page;
  const after = page.cursor === undefined ? null : decodeCursor(page.cursor, textCursor);
  const rows = await db.run(
    'search.sorted',
    (sql) => sql<(Saga & { place: string })[]>`
      select ${sagaColumns(sql, listed(sql, filter.subjectFields))}, ${placeSql(sql, order, filter.subjectFields)} as place
      from arcadia.sagas
      where ${matches(sql, filter)} and ${isAfterKey(sql, order, after, filter.subjectFields)}
      order by ${sorting(sql, order, filter.subjectFields)} limit ${page.limit + 1}`,
  );
  const found = rows.slice(0, page.limit).map(({ place, ...saga }) => ({ place, saga }));
  const last = found.at(-1);
  return {
    sagas: found.map(({ saga }) => saga),
    nextCursor: rows.length > page.limit && last !== undefined ? encodeCursor([last.place, last.saga.id]) : null,
  };
}

/**
 * A page holds hundreds of sagas, and SQL accepts inputs of up to 512 KiB. For an input too large for any saga to accept,
 * a list shows only the fields by which people recognize it. The limits are far above what a running saga has. Reading a
 * row's size is cheaper than reading the row, unless it is large.
 */
function listed(sql: Sql, { names, ids }: SubjectFields = plainFields): Readonly<{ input: SqlFragment; error: SqlFragment }> {
  return {
    input: sql`case when pg_column_size(input) > 1000 and octet_length(input::text) > 131072 then (
        select coalesce(jsonb_object_agg(key, case jsonb_typeof(value) when 'string' then to_jsonb(left(value #>> '{}', ${MAX_NAME_LENGTH})) else value end), '{}')
        from jsonb_each(input) where key = any(${['name', ...names, ...ids]}::text[]) and (jsonb_typeof(value) = 'string' or jsonb_typeof(value) = 'number' and length(value::text) < 16)
      ) || jsonb_build_object(
        'left_out', format('an input of %s bytes: read the saga by its id', octet_length(input::text))
      ) else input end as input`,
    error: sql`${shortTextsIn(sql, sql`error`)} as error`,
  };
}

/** The column with its texts shortened if it is large. Rows of earlier versions may have any size. */
export function shortTextsIn(sql: Sql, column: SqlFragment): SqlFragment {
  return sql`case when pg_column_size(${column}) > 1000 and octet_length(${column}::text) > 16384 then (
      select jsonb_object_agg(key, case when jsonb_typeof(value) = 'string' then to_jsonb(left(value #>> '{}', 2000)) else value end) from jsonb_each(${column})
    ) else ${column} end`;
}

/** The time for a cursor, as text that sorts like the time: a Date would lose the microseconds. */
function exactTime(sql: Sql): SqlFragment {
  return sql`to_char(created_at at time zone 'utc', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"') collate "C"`;
}

function exactCreatedAt(sql: Sql): SqlFragment {
  return sql`${exactTime(sql)} as exact_created_at`;
}

/** What the sagas are sorted by, written exactly like the index expressions. */
function keySql(sql: Sql, by: SagaOrder['by'], { names, ids }: SubjectFields = plainFields): SqlFragment {
  if (by === 'started') return sql`created_at`;
  const fields = by === 'title' ? names.filter((field) => field !== 'name').map((field) => fieldSql(sql, field)) : ids.map((field) => fieldSql(sql, field));
  if (by === 'title') return sql`(lower(left(${anyOf(sql, [sql`input->>'name'`, ...fields])}, 255)) collate "C")`;
  return fields.length === 0 ? sql`null::text` : anyOf(sql, fields);
}

function anyOf(sql: Sql, values: readonly SqlFragment[]): SqlFragment {
  return values.reduceRight((rest, value) => sql`coalesce(${value}, ${rest})`);
}

/** Whether a saga has what it would be sorted by. */
function hasKey(sql: Sql, by: 'title' | 'subject', { names, ids }: SubjectFields = plainFields): SqlFragment {
  const others = names.filter((field) => field !== 'name').map((field) => fieldSql(sql, field));
  if (by === 'title') return sql`${anyOf(sql, [sql`input->>'name'`, ...others])} is not null`;
  return sql`${keySql(sql, by, { names, ids })} is not null`;
}

function sorting(sql: Sql, { by, isDescending }: SagaOrder, fields: SubjectFields | undefined): SqlFragment {
  const key = keySql(sql, by, fields);
  return isDescending ? sql`${key} desc, id desc` : sql`${key}, id`;
}

function isAfterKey(sql: Sql, { by, isDescending }: SagaOrder, after: readonly [string, string] | null, fields: SubjectFields | undefined): SqlFragment {
  if (by === 'started') throw new TypeError('expected an order by a text');
  const has = hasKey(sql, by, fields);
  if (after === null) return has;
  const key = keySql(sql, by, fields);
  return isDescending ? sql`${has} and (${key}, id) < (${after[0]}, ${after[1]}::uuid)` : sql`${has} and (${key}, id) > (${after[0]}, ${after[1]}::uuid)`;
}

/** What a cursor says of a saga's place. A Date would lose the microseconds. */
function placeSql(sql: Sql, { by }: SagaOrder, fields: SubjectFields | undefined): SqlFragment {
  return by === 'started' ? exactTime(sql) : keySql(sql, by, fields);
}

/**
 * Returns the cursor of the page that continues right after this saga, in either direction; null: there is no such saga, or it has no
 * place in this order.
 */
export async function cursorAfter(db: Pick<Database, 'run'>, sagaId: string, by: SagaOrder['by'] = 'started', fields?: SubjectFields): Promise<string | null> {
  const [row] = await db.run(
    'search.cursor_after',
    (sql) => sql<{ place: string | null }[]>`select ${placeSql(sql, { by, isDescending: false }, fields)} as place from arcadia.sagas where id = ${sagaId}`,
  );
  return row === undefined || row.place === null ? null : encodeCursor([row.place, sagaId]);
}

/** Counts the sagas that {@link searchSagas} would find. */
export async function countSagas(db: Pick<Database, 'run'>, filter: SagaFilter): Promise<number> {
  const [row] = await db.run(
    'search.count',
    (sql) => sql<{ count: number }[]>`select count(*)::int as count from arcadia.sagas where ${matches(sql, filter)}`,
  );
  return row?.count ?? 0;
}

/** Builds a filter's conditions for a query of `arcadia.sagas`. */
export function matches(sql: Sql, filter: SagaFilter): SqlFragment {
  const conditions: SqlFragment[] = [];
  if (filter.ids !== undefined) conditions.push(sql`id = any(${[...filter.ids]}::uuid[])`);
  if (filter.idPrefix !== undefined) conditions.push(hasIdPrefix(sql, filter.idPrefix));
  if (filter.status !== undefined) conditions.push(hasStatus(sql, filter.status));
  if (filter.isRerun === false) conditions.push(sql`not exists (select from arcadia.sagas as rerun where rerun.rerun_of = sagas.id)`);
  if (filter.name !== undefined) conditions.push(sql`name = ${filter.name}`);
  if (filter.field !== undefined) conditions.push(sql`${fieldSql(sql, filter.field.name)} = ${filter.field.value}`);
  if (filter.tag !== undefined) conditions.push(hasTag(sql, filter.tag));
  if (filter.createdFrom !== undefined) conditions.push(sql`created_at >= ${filter.createdFrom}`);
  if (filter.createdBefore !== undefined) conditions.push(sql`created_at < ${filter.createdBefore}`);
  if (filter.without !== undefined) conditions.push(sql`not (${hasKey(sql, filter.without, filter.subjectFields)})`);
  if (filter.requestedBy !== undefined) conditions.push(sql`requested_by = ${filter.requestedBy}`);
  if (filter.cause !== undefined) conditions.push(sql`id in (select failure.id from (${recentFailures(sql)}) as failure where failure.cause = ${filter.cause})`);
  if (filter.text !== undefined) conditions.push(isNamed(sql, filter.text, filter.subjectFields));
  if (filter.query !== undefined) conditions.push(matchesQuery(sql, filter.query, filter.subjectFields));
  return conditions.reduce((all, condition) => sql`${all} and ${condition}`, sql`true`);
}

/** A range of the primary key. */
function hasIdPrefix(sql: Sql, prefix: string): SqlFragment {
  if (!isUuidPrefix(prefix)) return sql`false`;
  const [lowest, highest] = uuidsWithPrefix(prefix);
  return sql`id between ${lowest}::uuid and ${highest}::uuid`;
}

/** Written exactly like the index expression. */
function hasTag(sql: Sql, tag: string): SqlFragment {
  return sql`input ? 'tags' and lower((input->'tags')::text collate "C")::jsonb @> lower(${JSON.stringify([tag])}::text collate "C")::jsonb`;
}

/**
 * No index contains the status. So the condition adds what the status implies for other columns, written exactly like the
 * index that covers them.
 */
function hasStatus(sql: Sql, statuses: readonly SagaStatus[]): SqlFragment {
  const isOneOf = sql`status in ${sql([...statuses])}`;
  if (statuses.every((status) => status === 'stuck')) return sql`${isOneOf} and wake_at is null and finished_at is null`;
  if (statuses.every((status) => status === 'compensated')) return sql`${isOneOf} and finished_at is not null and error is not null`;
  if (statuses.every((status) => status === 'pending' || status === 'running' || status === 'compensating')) return sql`${isOneOf} and wake_at is not null`;
  return isOneOf;
}

/** Eight digits may be the start of a saga's id, the id of its subject, or part of a name. Search for all three. */
function matchesQuery(sql: Sql, query: string, fields: SubjectFields = plainFields): SqlFragment {
  const uuid = z.uuid().safeParse(query);
  if (uuid.success) return sql`id = ${uuid.data}`;
  const named = sql`${isNamed(sql, query, fields)} or saga8 = ${query.toLowerCase()}`;
  return sql`(${fields.ids.reduce((any, field) => sql`${any} or ${fieldSql(sql, field)} = ${query}`, named)})`;
}

/** Shortens a name before the search: a name inserted by SQL may be half a megabyte long and slow to search. */
function isNamed(sql: Sql, part: string, { names }: SubjectFields = plainFields): SqlFragment {
  const has = (name: SqlFragment) => sql`strpos(lower(left(${name}, ${MAX_NAME_LENGTH})), lower(${part})) > 0`;
  const others = names.filter((field) => field !== 'name');
  return sql`(${others.reduce((any, field) => sql`${any} or ${has(fieldSql(sql, field))}`, has(sql`input->>'name'`))})`;
}

// Postgres has no year 0.
const sagaTime = z.iso.datetime({ precision: 6 }).refine((time) => !time.startsWith('0000'));
// `rest`: earlier pages held all that an index finds for the query.
const sagaCursor = z.union([z.tuple([sagaTime, z.uuid()]), z.tuple([sagaTime, z.uuid(), z.literal('rest')])]);

// Names come from inputs of any length; the key is shortened.
const textCursor = z.tuple([z.string().max(255), z.uuid()]);
