// The conditions of a query, a body or a form, as the search takes them: for the API and for the pages.
import type { SagaStatus } from '../saga/saga.ts';
import type { SagaFilter } from '../saga/filter.ts';

/** `from` and `before`: a time, or an ISO 8601 text. `q`: what a person typed. */
type Conditions = Readonly<{
  status?: readonly SagaStatus[] | undefined;
  name?: string | undefined;
  tag?: string | undefined;
  from?: Date | string | undefined;
  before?: Date | string | undefined;
  text?: string | undefined;
  requested_by?: string | undefined;
  droplet_id?: string | number | undefined;
  q?: string | undefined;
  /** Names a group of failures: see saga/failure-causes.ts. */
  cause?: string | undefined;
}>;

/** Reads the conditions; no status is no condition. */
export function toSagaFilter(given: Conditions): SagaFilter {
  return {
    status: given.status === undefined || given.status.length === 0 ? undefined : given.status,
    name: given.name,
    tag: given.tag,
    text: given.text,
    query: given.q?.trim(),
    cause: given.cause,
    requestedBy: given.requested_by,
    field: given.droplet_id === undefined ? undefined : { name: 'droplet_id', value: String(given.droplet_id) },
    createdFrom: given.from === undefined ? undefined : new Date(given.from),
    createdBefore: given.before === undefined ? undefined : new Date(given.before),
  };
}
