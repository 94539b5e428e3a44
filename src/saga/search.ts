// Searches sagas by status, name, subject, tag, time and text, in pages, newest first. Also counts them, for monitoring.
import { z } from 'zod';
import { decodeCursor, encodeCursor } from '../platform/cursor.ts';
import type { Database, Sql, SqlFragment } from '../platform/db.ts';
import type { SagaFilter } from './filter.ts';
import { MAX_NAME_LENGTH, matches, needsWalk } from './filter.ts';
import type { SagaOrder } from './order.ts';
import { exactTime, isAfterKey, newestFirst, placeSql, sorting } from './order.ts';
import type { Saga } from './saga.ts';
import { sagaColumns } from './store.ts';
import type { SubjectFields } from './subject.ts';
import { fieldSql, plainFields } from './subject.ts';

export type SagaPage = Readonly<{
  sagas: readonly Saga[];
  /** Pass it to get the next page; null after the last page. */
  nextCursor: string | null;
}>;

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

function exactCreatedAt(sql: Sql): SqlFragment {
  return sql`${exactTime(sql)} as exact_created_at`;
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

// Postgres has no year 0.
const sagaTime = z.iso.datetime({ precision: 6 }).refine((time) => !time.startsWith('0000'));
// `rest`: earlier pages held all that an index finds for the query.
const sagaCursor = z.union([z.tuple([sagaTime, z.uuid()]), z.tuple([sagaTime, z.uuid(), z.literal('rest')])]);

// Names come from inputs of any length; the key is shortened.
const textCursor = z.tuple([z.string().max(255), z.uuid()]);
