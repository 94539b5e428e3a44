// What a search asks for, as conditions on the rows of sagas. Where an index helps, they are written exactly like it.
import { z } from 'zod';
import type { Sql, SqlFragment } from '../platform/db.ts';
import { isUuidPrefix, uuidsWithPrefix } from '../platform/uuid.ts';
import { recentFailures } from './failure-causes.ts';
import { hasKey } from './order.ts';
import type { SagaStatus } from './saga.ts';
import type { SubjectFields } from './subject.ts';
import { fieldSql, plainFields } from './subject.ts';

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

/** Names are compared by so many characters. A name inserted by SQL may be half a megabyte long and slow to search. */
export const MAX_NAME_LENGTH = 255;

/** Whether a filter has conditions that no index covers, so that sagas have to be looked at one by one. */
export function needsWalk({ text, query, requestedBy, ids, idPrefix, field, tag }: SagaFilter): boolean {
  if ([ids, idPrefix, field, tag].some((condition) => condition !== undefined)) return false;
  return text !== undefined || requestedBy !== undefined || (query !== undefined && !z.uuid().safeParse(query).success);
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

function isNamed(sql: Sql, part: string, { names }: SubjectFields = plainFields): SqlFragment {
  const has = (name: SqlFragment) => sql`strpos(lower(left(${name}, ${MAX_NAME_LENGTH})), lower(${part})) > 0`;
  const others = names.filter((field) => field !== 'name');
  return sql`(${others.reduce((any, field) => sql`${any} or ${has(fieldSql(sql, field))}`, has(sql`input->>'name'`))})`;
}
