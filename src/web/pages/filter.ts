// The filter of the list of sagas. It is part of the page's URL, so that a person can send a view to another person.
import { z } from 'zod';
import type { SagaStatus } from '../../saga/saga.ts';
import { sagaStatuses } from '../../saga/saga.ts';
import { readForm } from './form-body.ts';
import { STORABLE_TIMES, isStorableTime, storableText } from '../storable.ts';

const text = storableText(255);
/** A time as a browser's input sends it. It has no offset and counts as UTC, as the label says. */
export const timeField = z
  .union([z.iso.datetime({ offset: true }), z.iso.datetime({ local: true })], 'expected a time, such as 2026-01-31T12:00Z')
  .transform((given) => new Date(/[zZ]$|[+-]\d\d:\d\d$/.test(given) ? given : `${given}Z`))
  .refine(isStorableTime, STORABLE_TIMES);
const fields = {
  q: text.optional(),
  status: z.preprocess(
    (value) => (value === undefined ? undefined : [value].flat()),
    z.array(z.enum(sagaStatuses, `expected one of ${sagaStatuses.join(', ')}`)).optional(),
  ),
  name: text.optional(),
  tag: text.optional(),
  requester: text.optional(),
  from: timeField.optional(),
  before: timeField.optional(),
  cause: z.string().regex(/^[0-9a-f]{12}$/, 'expected the cause of a failure, as the list of sagas links to it').optional(),
};

/** What the list can be sorted by; `-`: the other way around. Without any, it is in groups by status. */
export const sagaSorts = ['age', '-age', 'saga', '-saga', 'about', '-about'] as const;

/** Query of the list. Unknown fields are ignored. */
export const listQuery = z.object({
  ...fields,
  sort: z.enum(sagaSorts, `expected one of ${sagaSorts.join(', ')}`).optional(),
  cursor: z.string().max(500).optional(),
});

/** The query of the list that a saga was opened from, as text. An invalid query counts as absent, so that the saga is shown. */
export const fromList = z
  .string()
  .max(4_000)
  .optional()
  .catch(undefined)
  .transform((query) => {
    if (query === undefined) return null;
    const parsed = listQuery.safeParse(readForm(query));
    return parsed.success ? parsed.data : null;
  });

/** Maximum number of sagas in one bulk action of the pages, because a person waits for the response. */
export const BULK_LIMIT = 200;

/** Query of the preview of a bulk action: the filter and the action. */
export const bulkQuery = z.object({ ...fields, action: z.enum(['cancel', 'retry', 'rerun'], 'expected cancel, retry or rerun') });

/** The form of a bulk action: the sagas that the preview showed, and its filter. */
export const bulkForm = bulkQuery.extend({
  id: z.preprocess((value) => (value === undefined ? [] : [value].flat()), z.array(z.uuid('expected the ids of sagas').toLowerCase()).max(BULK_LIMIT, `expected at most ${BULK_LIMIT} sagas`)),
  reason: storableText(1_000).transform((given) => given.trim()).optional(),
});

export type ListQuery = Readonly<z.infer<typeof listQuery>>;
export type ListFilter = Omit<ListQuery, 'cursor'>;

/** Whether it has a condition; an order is none. */
export function isNarrowed(filter: ListFilter): boolean {
  return [filter.q, filter.status, filter.name, filter.tag, filter.requester, filter.from, filter.before, filter.cause].some((value) => value !== undefined);
}

/** Names and values of the filter's fields, for a URL and for the hidden fields of a form. */
export function fieldsOf({ q, status = [], name, tag, requester, from, before, cause, sort }: ListFilter): [string, string][] {
  const all: [string, string | undefined][] = [
    ['q', q], ...status.map((value): [string, SagaStatus] => ['status', value]), ['name', name], ['tag', tag], ['requester', requester],
    ['from', from?.toISOString()], ['before', before?.toISOString()], ['cause', cause], ['sort', sort],
  ];
  return all.filter((field): field is [string, string] => field[1] !== undefined);
}

/** URL of a page with this filter. */
export function addressOf(path: string, filter: ListFilter, more: Readonly<Record<string, string>> = {}): string {
  const query = new URLSearchParams([...fieldsOf(filter), ...Object.entries(more)]).toString();
  return query === '' ? path : `${path}?${query}`;
}

/** URL of a saga's page that leads back to this place in the list. */
export function addressOfSaga(sagaId: string, { cursor, ...filter }: ListQuery): string {
  const place: [string, string][] = cursor === undefined ? [] : [['cursor', cursor]];
  const query = new URLSearchParams([...fieldsOf(filter), ...place]).toString();
  return query === '' ? `/sagas/${sagaId}` : `/sagas/${sagaId}?${new URLSearchParams({ list: query }).toString()}`;
}

/** The URL without empty fields, which a browser's form sends too; null if there are none. */
export function withoutEmpty(url: string): string | null {
  const [path = '', query = ''] = url.split('?', 2);
  const given = [...new URLSearchParams(query)];
  const filled = given.filter(([, value]) => value.trim() !== '');
  if (filled.length === given.length) return null;
  return filled.length === 0 ? path : `${path}?${new URLSearchParams(filled).toString()}`;
}

/** A time for a browser's input, in UTC. */
export function localTime(time: Date | undefined): string | null {
  return time === undefined ? null : time.toISOString().slice(0, 16);
}
