// What sagas can be sorted by, and where a saga stands in that order.
import type { Sql, SqlFragment } from '../platform/db.ts';
import type { SubjectFields } from './subject.ts';
import { fieldSql, plainFields } from './subject.ts';

/**
 * `title`: the name of a saga's subject, ignoring case; `subject`: its id, as text. An order by these finds only the sagas that have
 * one: `SagaFilter.without` finds the others.
 */
export type SagaOrder = Readonly<{ by: 'started' | 'title' | 'subject'; isDescending: boolean }>;

export const newestFirst: SagaOrder = { by: 'started', isDescending: true };

/** The time for a cursor, as text that sorts like the time: a Date would lose the microseconds. */
export function exactTime(sql: Sql): SqlFragment {
  return sql`to_char(created_at at time zone 'utc', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"') collate "C"`;
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
export function hasKey(sql: Sql, by: 'title' | 'subject', { names, ids }: SubjectFields = plainFields): SqlFragment {
  const others = names.filter((field) => field !== 'name').map((field) => fieldSql(sql, field));
  if (by === 'title') return sql`${anyOf(sql, [sql`input->>'name'`, ...others])} is not null`;
  return sql`${keySql(sql, by, { names, ids })} is not null`;
}

export function sorting(sql: Sql, { by, isDescending }: SagaOrder, fields: SubjectFields | undefined): SqlFragment {
  const key = keySql(sql, by, fields);
  return isDescending ? sql`${key} desc, id desc` : sql`${key}, id`;
}

export function isAfterKey(sql: Sql, { by, isDescending }: SagaOrder, after: readonly [string, string] | null, fields: SubjectFields | undefined): SqlFragment {
  if (by === 'started') throw new TypeError('expected an order by a text');
  const has = hasKey(sql, by, fields);
  if (after === null) return has;
  const key = keySql(sql, by, fields);
  return isDescending ? sql`${has} and (${key}, id) < (${after[0]}, ${after[1]}::uuid)` : sql`${has} and (${key}, id) > (${after[0]}, ${after[1]}::uuid)`;
}

/** What a cursor says of a saga's place. A Date would lose the microseconds. */
export function placeSql(sql: Sql, { by }: SagaOrder, fields: SubjectFields | undefined): SqlFragment {
  return by === 'started' ? exactTime(sql) : keySql(sql, by, fields);
}
