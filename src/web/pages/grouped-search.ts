// Orders the list: sagas that need a person, then unfinished ones, then finished ones; each group newest first, in pages.
// Sorted by a column, all sagas are one group, and those without a value come in a second one.
import type { Saga, SagaStatus } from '../../saga/saga.ts';
import type { SagaFilter } from '../../saga/filter.ts';
import type { SagaOrder } from '../../saga/order.ts';
import { CursorError } from '../../platform/cursor.ts';
import { newestFirst } from '../../saga/order.ts';
import { sagaStatuses } from '../../saga/saga.ts';
import type { SagaPort } from '../ports.ts';
import type { sagaSorts } from './filter.ts';

export type Group = Readonly<{ title: string; statuses: readonly SagaStatus[] }>;

export const groups: readonly Group[] = [
  { title: 'Needs attention', statuses: ['stuck'] },
  { title: 'In progress', statuses: ['pending', 'running', 'compensating'] },
  { title: 'Finished', statuses: ['completed', 'compensated'] },
];

/** How the list is sorted: see `sagaSorts`. */
export type ListSort = (typeof sagaSorts)[number] | undefined;

/** A group with the order of its sagas; `without`: it has those that the order of the group before has no place for. */
type SortedGroup = Group & Readonly<{ order: SagaOrder; without?: 'title' | 'subject' }>;

// A page that filters by what no index covers looks at so many sagas, and leaves those beyond to the next page.
const WALK = 20_000;

function groupsOf(sort: ListSort): readonly SortedGroup[] {
  const sorted = (title: string, order: SagaOrder, rest: Partial<SortedGroup> = {}): SortedGroup => ({ title, statuses: sagaStatuses, order, ...rest });
  switch (sort) {
    case undefined:
      return groups.map((group) => ({ ...group, order: newestFirst }));
    case 'age':
      return [sorted('Youngest first', newestFirst)];
    case '-age':
      return [sorted('Oldest first', { by: 'started', isDescending: false })];
    case 'saga':
    case '-saga':
      return [sorted('By name', { by: 'title', isDescending: sort === '-saga' }), sorted('Without a name, youngest first', newestFirst, { without: 'title' })];
    case 'about':
    case '-about':
      return [sorted('By id', { by: 'subject', isDescending: sort === '-about' }), sorted('Without an id, youngest first', newestFirst, { without: 'subject' })];
    default:
      return sort satisfies never;
  }
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
  const all = groupsOf(page.sort);
  const found: { group: Group; sagas: readonly Saga[] }[] = [];
  let left = page.limit;
  for (; index < all.length; index += 1, cursor = undefined) {
    const group = all[index];
    const conditions = group === undefined ? null : within(group, filter);
    if (group === undefined || conditions === null) continue;
    if (left === 0) {
      const next = await sagas.search(conditions, { limit: 1, order: group.order, walk: WALK });
      if (next.sagas.length > 0 || next.nextCursor !== null) return { groups: found, nextCursor: `${index}.` };
      continue;
    }
    const part = await sagas.search(conditions, { limit: left, cursor, order: group.order, walk: WALK });
    if (part.sagas.length > 0) found.push({ group, sagas: part.sagas });
    if (part.nextCursor !== null) return { groups: found, nextCursor: `${index}.${part.nextCursor}` };
    left -= part.sagas.length;
  }
  return { groups: found, nextCursor: null };
}

/** Finds the ids of the sagas before and after a saga in the list of a filter; null: there is none. */
export async function findNeighbours(sagas: Pick<SagaPort, 'search' | 'cursorAfter'>, filter: SagaFilter, saga: Pick<Saga, 'id' | 'status'>, sort: ListSort): Promise<Readonly<{ previous: string | null; next: string | null }>> {
  const all = groupsOf(sort);
  const places = await Promise.all(all.map(async ({ order: { by }, statuses }) => (statuses.includes(saga.status) ? sagas.cursorAfter(saga.id, by) : null)));
  const here = places.findIndex((place) => place !== null);
  if (here === -1) return { previous: null, next: null };
  const first = async (nearestFirst: readonly SortedGroup[], isBackwards: boolean): Promise<string | null> => {
    for (const [distance, group] of nearestFirst.entries()) {
      const conditions = within(group, filter);
      if (conditions === null) continue;
      const order = isBackwards ? { ...group.order, isDescending: !group.order.isDescending } : group.order;
      const [found] = (await sagas.search(conditions, { limit: 1, order, cursor: distance === 0 ? (places[here] ?? undefined) : undefined, walk: WALK })).sagas;
      if (found !== undefined) return found.id;
    }
    return null;
  };
  const [previous, next] = await Promise.all([first(all.slice(0, here + 1).toReversed(), true), first(all.slice(here), false)]);
  return { previous, next };
}

/** The filter within a group; null: it finds nothing there. */
function within({ statuses, without }: SortedGroup, filter: SagaFilter): SagaFilter | null {
  const status = filter.status === undefined ? statuses : statuses.filter((candidate) => filter.status?.includes(candidate));
  if (status.length === 0) return null;
  return { ...filter, without, status: status.length === sagaStatuses.length ? undefined : status };
}

function placeOf(cursor: string | undefined): { index: number; cursor: string | undefined } {
  if (cursor === undefined) return { index: 0, cursor: undefined };
  const [, index, inGroup] = /^([0-2])\.(.*)$/.exec(cursor) ?? [];
  if (index === undefined) throw new CursorError();
  return { index: Number(index), cursor: inGroup === '' ? undefined : inGroup };
}
