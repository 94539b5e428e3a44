// The filter of the page of leases, as it stands in the page's address.
import { z } from 'zod';
import type { LeaseChoice } from '../../inventory/lease-listing.ts';

/** The choices, in words for people. */
export const choiceWords: Readonly<Record<LeaseChoice, string>> = { all: 'all', ending: 'ending soon', ended: 'ended', held: 'held', without: 'without a lease' };

// oxlint-disable-next-line typescript/no-unsafe-type-assertion -- the keys of a literal above
const choices = Object.keys(choiceWords) as [LeaseChoice, ...LeaseChoice[]];

/** A choice, as a field of a query or of a form. */
export const leaseChoice = z.enum(choices, `expected one of ${choices.join(', ')}`);

/** Query of the page. Fields that this version does not know are left out. */
export const leaseQuery = z.object({
  state: leaseChoice.optional(),
  page: z.string().regex(/^[1-9]\d{0,5}$/, 'expected the number of a page').transform(Number).optional(),
  told: z.string().optional(),
});

/** Address of the page. */
export function addressOfLeases(choice: LeaseChoice, more: Readonly<Record<string, string>> = {}): string {
  const query = new URLSearchParams({ ...(choice === 'all' ? {} : { state: choice }), ...more }).toString();
  return query === '' ? '/leases' : `/leases?${query}`;
}
