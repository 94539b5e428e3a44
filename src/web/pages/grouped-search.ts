// Orders the list: sagas that need a person, then unfinished ones, then finished ones; each group newest first, in pages.
import type { Saga, SagaStatus } from '../../saga/saga.ts';
import type { SagaFilter } from '../../saga/search.ts';
import { CursorError } from '../../saga/search.ts';
import type { SagaPort } from '../ports.ts';

export type Group = Readonly<{ title: string; statuses: readonly SagaStatus[] }>;

export const groups: readonly Group[] = [
  { title: 'Needs attention', statuses: ['stuck'] },
  { title: 'In progress', statuses: ['pending', 'running', 'compensating'] },
  { title: 'Finished', statuses: ['completed', 'compensated'] },
];

export type GroupedPage = Readonly<{ groups: readonly Readonly<{ group: Group; sagas: readonly Saga[] }>[]; nextCursor: string | null }>;

/**
 * Finds a page of sagas. Its cursor is the number of the next group and the position in it.
 *
 * @throws {CursorError}
 */
export async function searchGrouped(sagas: Pick<SagaPort, 'search'>, filter: SagaFilter, page: { limit: number; cursor?: string | undefined }): Promise<GroupedPage> {
  let { index, cursor } = placeOf(page.cursor);
  const found: { group: Group; sagas: readonly Saga[] }[] = [];
  let left = page.limit;
  for (; index < groups.length; index += 1, cursor = undefined) {
    const group = groups[index];
    const status = group?.statuses.filter((candidate) => filter.status === undefined || filter.status.includes(candidate)) ?? [];
    if (group === undefined || status.length === 0) continue;
    if (left === 0) {
      const next = await sagas.search({ ...filter, status }, { limit: 1 });
      if (next.sagas.length > 0) return { groups: found, nextCursor: `${index}.` };
      continue;
    }
    const part = await sagas.search({ ...filter, status }, { limit: left, cursor });
    if (part.sagas.length > 0) found.push({ group, sagas: part.sagas });
    if (part.nextCursor !== null) return { groups: found, nextCursor: `${index}.${part.nextCursor}` };
    left -= part.sagas.length;
  }
  return { groups: found, nextCursor: null };
}

function placeOf(cursor: string | undefined): { index: number; cursor: string | undefined } {
  if (cursor === undefined) return { index: 0, cursor: undefined };
  const [, index, inGroup] = /^([0-2])\.(.*)$/.exec(cursor) ?? [];
  if (index === undefined) throw new CursorError();
  return { index: Number(index), cursor: inGroup === '' ? undefined : inGroup };
}
