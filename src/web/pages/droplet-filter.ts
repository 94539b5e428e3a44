// The filter of the list of droplets, as it stands in the page's address.
import { z } from 'zod';
import type { DropletFilter, DropletState } from '../../inventory/droplet-conditions.ts';
import type { DropletPlace, DropletSort } from '../../inventory/droplet-list.ts';
import { storableText } from '../storable.ts';

/** The states, in words for people. */
export const stateWords: Readonly<Record<DropletState, string>> = {
  managed: 'managed',
  drifted: 'drifted',
  orphan: 'orphans',
  unleased: 'without a lease',
  protected: 'protected',
  foreign: 'not managed',
  gone: 'gone',
};

/** What the list can be sorted by, with the words of the columns. */
export const sortWords: Readonly<Record<DropletSort, string>> = { name: 'Name', address: 'Address', region: 'Region', size: 'Size', price: '$/h', age: 'Age', lease: 'Lease' };

const PAGE = 50;

const text = storableText(255);
// oxlint-disable-next-line typescript/no-unsafe-type-assertion -- the keys of a literal above
const keysOf = <Key extends string>(words: Readonly<Record<Key, string>>) => Object.keys(words) as [Key, ...Key[]];

/** Query of the list. Unknown fields are ignored. */
export const dropletQuery = z.object({
  q: text.optional(),
  region: text.optional(),
  size: text.optional(),
  tag: text.optional(),
  requester: text.optional(),
  state: z.enum(keysOf(stateWords), `expected one of ${Object.keys(stateWords).join(', ')}`).optional(),
  sort: z.enum(keysOf(sortWords).flatMap((sort) => [sort, `-${sort}`] as const), `expected one of ${Object.keys(sortWords).join(', ')}, or one of these after a minus`).optional(),
  page: z.string().regex(/^[1-9]\d{0,5}$/, 'expected the number of a page').transform(Number).optional(),
});

export type DropletQuery = Readonly<z.infer<typeof dropletQuery>>;

/** The conditions of a query. */
export function conditionsOf({ q, region, size, tag, requester, state }: DropletQuery): DropletFilter {
  const query = q?.trim();
  return { query: query === '' ? undefined : query, region, size, tag, requester, state };
}

/** The order and the page of a query. */
export function placeOf({ sort = 'name', page = 1 }: DropletQuery): DropletPlace {
  const isDescending = sort.startsWith('-');
  return { sort: keysOf(sortWords).find((one) => one === sort.replace('-', '')) ?? 'name', isDescending, page, limit: PAGE };
}

/** Whether it has a condition; an order is none. */
export function isNarrowed({ sort: _sort, page: _page, ...conditions }: DropletQuery): boolean {
  return Object.values(conditions).some((value) => value !== undefined);
}

/** Address of the list with a query; what is undefined is left out. */
export function addressOfDroplets(query: DropletQuery): string {
  const fields = Object.entries(query).flatMap(([name, value]): [string, string][] => (value === undefined ? [] : [[name, String(value)]]));
  return fields.length === 0 ? '/droplets' : `/droplets?${new URLSearchParams(fields).toString()}`;
}
