// The droplet that a saga is about: the one it created, or the one it destroys. No other file reads the field.
import type { Sql, SqlFragment } from '../platform/db.ts';
import type { Json } from '../platform/json.ts';
import { shortTextOf } from '../platform/text.ts';
import type { Saga } from '../saga/saga.ts';
import type { SagaFilter } from '../saga/filter.ts';
import { fieldSql } from '../saga/subject.ts';

/** The key of the id: in a saga's context once it has created the droplet, else in its input. */
export const DROPLET_FIELD = 'droplet_id';

/** Returns the droplet that a saga created or destroys; null if none is on record yet. */
export function dropletIdOf(saga: Pick<Saga, 'input' | 'context'>): number | null {
  return asDropletId(stored(saga));
}

/** Returns the droplet that a saga created; null: none on record. */
export function recordedDropletId({ context }: Pick<Saga, 'context'>): number | null {
  return asDropletId(context[DROPLET_FIELD]);
}

/** Returns the stored id as text for people; empty: none. */
export function dropletTextOf(saga: Pick<Saga, 'input' | 'context'>): string {
  return shortTextOf(stored(saga));
}

/** The droplet label of a saga's jobs and traces. */
export function dropletLabels(saga: Pick<Saga, 'input' | 'context'>): Readonly<{ dropletId?: number }> {
  const dropletId = dropletIdOf(saga);
  return dropletId === null ? {} : { dropletId };
}

/** The filter for a droplet's sagas. */
export function ofDroplet(dropletId: number): NonNullable<SagaFilter['field']> {
  return { name: DROPLET_FIELD, value: String(dropletId) };
}

/**
 * SQL for the droplet of a row of `arcadia.sagas`, as text; written exactly like the expression of the index
 * `sagas_by_droplet`.
 */
export function dropletIdSql(sql: Sql): SqlFragment {
  return fieldSql(sql, DROPLET_FIELD);
}

/** Whether a value is a droplet id. */
export function isDropletId(value: unknown): value is number {
  return typeof value === 'number' && Number.isSafeInteger(value) && value > 0;
}

function stored({ input, context }: Pick<Saga, 'input' | 'context'>): Json | undefined {
  return context[DROPLET_FIELD] ?? input[DROPLET_FIELD];
}

function asDropletId(value: unknown): number | null {
  return isDropletId(value) ? value : null;
}
