// Orders the list: sagas that need a person, then unfinished ones, then finished ones; each group newest first, in pages.
// Sorted by age, all sagas are one group.
import type { Saga, SagaStatus } from '../../saga/saga.ts';
import type { SagaFilter, SagaOrder } from '../../saga/search.ts';
import { CursorError } from '../../saga/search.ts';
import { sagaStatuses } from '../../saga/saga.ts';
import type { SagaPort } from '../ports.ts';

export type Group = Readonly<{ title: string; statuses: readonly SagaStatus[] }>;

export const groups: readonly Group[] = [
  { title: 'Needs attention', statuses: ['stuck'] },
  { title: 'In progress', statuses: ['pending', 'running', 'compensating'] },
  { title: 'Finished', statuses: ['completed', 'compensated'] },
];

/** How the list is sorted: by the age of the sagas, youngest first, or the other way around. Undefined: in groups by status. */
export type ListSort = 'age' | '-age' | undefined;

const youngestFirst: readonly Group[] = [{ title: 'Youngest first', statuses: sagaStatuses }];
const oldestFirst: readonly Group[] = [{ title: 'Oldest first', statuses: sagaStatuses }];

// A page that filters by what no index covers looks at so many sagas, and leaves those beyond to the next page.
const WALK = 20_000;

function groupsOf(sort: ListSort): readonly Group[] {
  return sort === undefined ? groups : sort === 'age' ? youngestFirst : oldestFirst;
}

export type GroupedPage = Readonly<{ groups: readonly Readonly<{ group: Group; sagas: readonly Saga[] }>[]; nextCursor: string | null }>;

/**
 * Finds a page of sagas. Its cursor is the number of the next group and the position in it. Among very many sagas, a page may
 * have fewer sagas than its limit, or none, and be followed by another.
 *
 * @throws {CursorError}
 */
export async function searchGrouped(sagas: Pick<SagaPort, 'search'>, filter: SagaFilter, page: { limit: number; cursor?: string | undefined; sort?: ListSort }): Promise<GroupedPage> {
  let { index, cursor } = placeOf(page.cursor);
  const order: SagaOrder = page.sort === '-age' ? 'oldest first' : 'newest first';
  const all = groupsOf(page.sort);
  const found: { group: Group; sagas: readonly Saga[] }[] = [];
  let left = page.limit;
  for (; index < all.length; index += 1, cursor = undefined) {
    const group = all[index];
    const conditions = group === undefined ? null : within(group, filter);
    if (group === undefined || conditions === null) continue;
    if (left === 0) {
      const next = await sagas.search(conditions, { limit: 1, order, walk: WALK });
      if (next.sagas.length > 0 || next.nextCursor !== null) return { groups: found, nextCursor: `${index}.` };
      continue;
    }
    const part = await sagas.search(conditions, { limit: left, cursor, order, walk: WALK });
    if (part.sagas.length > 0) found.push({ group, sagas: part.sagas });
    if (part.nextCursor !== null) return { groups: found, nextCursor: `${index}.${part.nextCursor}` };
    left -= part.sagas.length;
  }
  return { groups: found, nextCursor: null };
}

/** Finds the ids of the sagas before and after a saga in the list of a filter; null: there is none. */
export async function findNeighbours(sagas: Pick<SagaPort, 'search' | 'cursorAfter'>, filter: SagaFilter, saga: Pick<Saga, 'id' | 'status'>, sort: ListSort): Promise<Readonly<{ previous: string | null; next: string | null }>> {
  const cursor = await sagas.cursorAfter(saga.id);
  if (cursor === null) return { previous: null, next: null };
  const all = groupsOf(sort);
  const here = all.findIndex(({ statuses }) => statuses.includes(saga.status));
  const down: SagaOrder = sort === '-age' ? 'oldest first' : 'newest first';
  const up: SagaOrder = sort === '-age' ? 'newest first' : 'oldest first';
  const first = async (nearestFirst: readonly Group[], order: SagaOrder): Promise<string | null> => {
    for (const [distance, group] of nearestFirst.entries()) {
      const conditions = within(group, filter);
      if (conditions === null) continue;
      const [found] = (await sagas.search(conditions, { limit: 1, order, cursor: distance === 0 ? cursor : undefined, walk: WALK })).sagas;
      if (found !== undefined) return found.id;
    }
    return null;
  };
  const [previous, next] = await Promise.all([first(all.slice(0, here + 1).toReversed(), up), first(all.slice(here), down)]);
  return { previous, next };
}

/** The filter within a group; null: it finds nothing there. */
function within({ statuses }: Group, filter: SagaFilter): SagaFilter | null {
  const status = filter.status === undefined ? statuses : statuses.filter((candidate) => filter.status?.includes(candidate));
  if (status.length === 0) return null;
  return { ...filter, status: status.length === sagaStatuses.length ? undefined : status };
}

function placeOf(cursor: string | undefined): { index: number; cursor: string | undefined } {
  if (cursor === undefined) return { index: 0, cursor: undefined };
  const [, index, inGroup] = /^([0-2])\.(.*)$/.exec(cursor) ?? [];
  if (index === undefined) throw new CursorError();
  return { index: Number(index), cursor: inGroup === '' ? undefined : inGroup };
}
