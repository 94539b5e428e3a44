// Finding sagas: by status, name, what they are about, tag, time and text, a page at a time, newest first. And counting them, for
// whoever watches the fleet.
import { z } from 'zod';
import type { Database, Sql, SqlFragment } from '../platform/db.ts';
import type { Saga, SagaStatus } from './saga.ts';
import { sagaColumns } from './store.ts';
import type { SubjectFields } from './subject.ts';
import { fieldSql } from './subject.ts';

/** What to look for. All that is given must hold; nothing given finds all. */
export type SagaFilter = Readonly<{
  /** One of these, by their ids. */
  ids?: readonly string[] | undefined;
  /** One of these. */
  status?: readonly SagaStatus[] | undefined;
  /** Name of the saga: of its definition. */
  name?: string | undefined;
  /** A field of its context, or else of its input, and the value as text. */
  field?: Readonly<{ name: string; value: string }> | undefined;
  /** One of the `tags` in its input, in whatever case. */
  tag?: string | undefined;
  /** Created at this time or later. */
  createdFrom?: Date | undefined;
  /** Created before this time. */
  createdBefore?: Date | undefined;
  /** Part of the name of what it is about, in whatever case. */
  text?: string | undefined;
  /** Who asked for it, such as `cli:ada`. */
  requestedBy?: string | undefined;
  /** What a person typed: a saga's id or its first 8 characters, the id of what a saga is about, or a part of its name. */
  query?: string | undefined;
  /** Where `text` and `query` look, beside `name` in the input (see `subjectFieldsOf`). */
  subjectFields?: SubjectFields | undefined;
}>;

// Of a saga that nobody knows more of, `name` in the input is taken for the name of what it is about.
const plainFields: SubjectFields = { names: [], ids: [] };

const MAX_NAME_LENGTH = 255;

export type SagaPage = Readonly<{
  sagas: readonly Saga[];
  /** Hand it in to get the page after this one; null when this was the last. */
  nextCursor: string | null;
}>;

/** A cursor that this program did not make. */
export class CursorError extends Error {
  override readonly name = 'CursorError';
  readonly code = 'invalid_cursor';

  constructor() {
    super('expected the nextCursor of an earlier page');
  }
}

/**
 * Finds sagas, newest first. A page goes on right after the last saga of the one before it, whatever was started
 * meanwhile: no saga is shown twice, and none that was there at the first page is left out.
 *
 * @param page.limit from 1
 * @throws {CursorError}
 */
export async function searchSagas(
  db: Pick<Database, 'run'>,
  filter: SagaFilter,
  page: { limit: number; cursor?: string | undefined },
): Promise<SagaPage> {
  const after = page.cursor === undefined ? null : decodeCursor(page.cursor, sagaCursor);
  const rows = await db.run(
    'search.sagas',
    (sql) => sql<(Saga & { exactCreatedAt: string })[]>`
      select ${sagaColumns(sql, listed(sql, filter.subjectFields))}, to_char(created_at at time zone 'utc', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"') as exact_created_at
      from arcadia.sagas
      where ${matches(sql, filter)}
        and ${after === null ? sql`true` : sql`created_at <= ${after[0]}::text::timestamptz and (created_at < ${after[0]}::text::timestamptz or id > ${after[1]})`}
      order by created_at desc, id limit ${page.limit + 1}`,
  );
  const found = rows.slice(0, page.limit).map(({ exactCreatedAt, ...saga }) => ({ exactCreatedAt, saga }));
  const last = found.at(-1);
  return {
    sagas: found.map(({ saga }) => saga),
    nextCursor: rows.length > page.limit && last !== undefined ? encodeCursor([last.exactCreatedAt, last.saga.id]) : null,
  };
}

/**
 * A page of sagas holds hundreds, and SQL takes inputs of 512 KiB: of one that no saga accepts, a list shows what people
 * know it by. The limits are far above what a saga that runs has. To read a row's size costs less than to read the row,
 * unless it is large.
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

/** The column with its texts cut, where it is large: rows of earlier versions may hold any. */
export function shortTextsIn(sql: Sql, column: SqlFragment): SqlFragment {
  return sql`case when pg_column_size(${column}) > 1000 and octet_length(${column}::text) > 16384 then (
      select jsonb_object_agg(key, case when jsonb_typeof(value) = 'string' then to_jsonb(left(value #>> '{}', 2000)) else value end) from jsonb_each(${column})
    ) else ${column} end`;
}

/** Counts what {@link searchSagas} would find. */
export async function countSagas(db: Pick<Database, 'run'>, filter: SagaFilter): Promise<number> {
  const [row] = await db.run(
    'search.count',
    (sql) => sql<{ count: number }[]>`select count(*)::int as count from arcadia.sagas where ${matches(sql, filter)}`,
  );
  return row?.count ?? 0;
}

/** The conditions of a filter, for a query of `arcadia.sagas`. */
export function matches(sql: Sql, filter: SagaFilter): SqlFragment {
  const conditions: SqlFragment[] = [];
  if (filter.ids !== undefined) conditions.push(sql`id = any(${[...filter.ids]}::uuid[])`);
  if (filter.status !== undefined) conditions.push(hasStatus(sql, filter.status));
  if (filter.name !== undefined) conditions.push(sql`name = ${filter.name}`);
  if (filter.field !== undefined) conditions.push(sql`${fieldSql(sql, filter.field.name)} = ${filter.field.value}`);
  if (filter.tag !== undefined) conditions.push(hasTag(sql, filter.tag));
  if (filter.createdFrom !== undefined) conditions.push(sql`created_at >= ${filter.createdFrom}`);
  if (filter.createdBefore !== undefined) conditions.push(sql`created_at < ${filter.createdBefore}`);
  if (filter.requestedBy !== undefined) conditions.push(sql`requested_by = ${filter.requestedBy}`);
  if (filter.text !== undefined) conditions.push(isNamed(sql, filter.text, filter.subjectFields));
  if (filter.query !== undefined) conditions.push(matchesQuery(sql, filter.query, filter.subjectFields));
  return conditions.reduce((all, condition) => sql`${all} and ${condition}`, sql`true`);
}

/** In the words of the index. */
function hasTag(sql: Sql, tag: string): SqlFragment {
  return sql`input ? 'tags' and lower((input->'tags')::text collate "C")::jsonb @> lower(${JSON.stringify([tag])}::text collate "C")::jsonb`;
}

/** No index names the status: what it means for other columns is said besides, in the words of the index that knows them. */
function hasStatus(sql: Sql, statuses: readonly SagaStatus[]): SqlFragment {
  const isOneOf = sql`status in ${sql([...statuses])}`;
  if (statuses.every((status) => status === 'stuck')) return sql`${isOneOf} and wake_at is null and finished_at is null`;
  if (statuses.every((status) => status === 'compensated')) return sql`${isOneOf} and finished_at is not null and error is not null`;
  if (statuses.every((status) => status === 'pending' || status === 'running' || status === 'compensating')) return sql`${isOneOf} and wake_at is not null`;
  return isOneOf;
}

/** Eight digits may be the beginning of a saga's id, the id of what it is about, and a part of a name: all are looked for. */
function matchesQuery(sql: Sql, query: string, fields: SubjectFields = plainFields): SqlFragment {
  const uuid = z.uuid().safeParse(query);
  if (uuid.success) return sql`id = ${uuid.data}`;
  const named = sql`${isNamed(sql, query, fields)} or saga8 = ${query.toLowerCase()}`;
  return sql`(${fields.ids.reduce((any, field) => sql`${any} or ${fieldSql(sql, field)} = ${query}`, named)})`;
}

/** A name is cut before it is searched: one that SQL brought in may be half a megabyte long, and takes its time. */
function isNamed(sql: Sql, part: string, { names }: SubjectFields = plainFields): SqlFragment {
  const has = (name: SqlFragment) => sql`strpos(lower(left(${name}, ${MAX_NAME_LENGTH})), lower(${part})) > 0`;
  const others = names.filter((field) => field !== 'name');
  return sql`(${others.reduce((any, field) => sql`${any} or ${has(fieldSql(sql, field))}`, has(sql`input->>'name'`))})`;
}

// Postgres knows no year 0.
const sagaCursor = z.tuple([z.iso.datetime({ precision: 6 }).refine((time) => !time.startsWith('0000')), z.uuid()]);

/** A cursor is opaque to its users; inside, it is the place of a page's last row. */
export function encodeCursor(place: readonly string[]): string {
  return Buffer.from(JSON.stringify(place)).toString('base64url');
}

/** @throws {CursorError} */
export function decodeCursor<Schema extends z.ZodType>(cursor: string, schema: Schema): z.infer<Schema> {
  let place: unknown;
  try {
    place = JSON.parse(Buffer.from(cursor, 'base64url').toString());
  } catch {
    throw new CursorError();
  }
  const parsed = schema.safeParse(place);
  if (!parsed.success) throw new CursorError();
  return parsed.data;
}
