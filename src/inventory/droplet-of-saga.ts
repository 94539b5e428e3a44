// Which droplet a saga is about: the one that it made, or the one that it is to destroy. No other file reads the field.
import type { Sql, SqlFragment } from '../platform/db.ts';
import type { Json } from '../platform/json.ts';
import { shortTextOf } from '../platform/text.ts';
import type { Saga } from '../saga/saga.ts';
import type { SagaFilter } from '../saga/search.ts';
import { fieldSql } from '../saga/subject.ts';

/** Where a saga keeps the id: in its context once it made the droplet, else in its input. */
export const DROPLET_FIELD = 'droplet_id';

/** The droplet that a saga made, or is to destroy; null where none is on record yet. */
export function dropletIdOf(saga: Pick<Saga, 'input' | 'context'>): number | null {
  return asDropletId(stored(saga));
}

/** The droplet that a saga made; null: none is on record. */
export function recordedDropletId({ context }: Pick<Saga, 'context'>): number | null {
  return asDropletId(context[DROPLET_FIELD]);
}

/** What stands in the place of the id, as a text for people; empty: nothing. */
export function dropletTextOf(saga: Pick<Saga, 'input' | 'context'>): string {
  return shortTextOf(stored(saga));
}

/** What the jobs and the traces of a saga tell of its droplet. */
export function dropletLabels(saga: Pick<Saga, 'input' | 'context'>): Readonly<{ dropletId?: number }> {
  const dropletId = dropletIdOf(saga);
  return dropletId === null ? {} : { dropletId };
}

/** The filter for the sagas of a droplet. */
export function ofDroplet(dropletId: number): NonNullable<SagaFilter['field']> {
  return { name: DROPLET_FIELD, value: String(dropletId) };
}

/** SQL for the droplet of a row of `arcadia.sagas`, as text: in the words of the index `sagas_by_droplet`. */
export function dropletIdSql(sql: Sql): SqlFragment {
  return fieldSql(sql, DROPLET_FIELD);
}

/** Whether a value is the id of a droplet. */
export function isDropletId(value: unknown): value is number {
  return typeof value === 'number' && Number.isSafeInteger(value) && value > 0;
}

function stored({ input, context }: Pick<Saga, 'input' | 'context'>): Json | undefined {
  return context[DROPLET_FIELD] ?? input[DROPLET_FIELD];
}

function asDropletId(value: unknown): number | null {
  return isDropletId(value) ? value : null;
}
