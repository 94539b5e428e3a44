// /v1/bulk: cancelling and retrying by filter. Each saga is steered as if alone, and audited as if alone.
import type { SagaStatus } from '../../saga/saga.ts';
import type { SagaFilter } from '../../saga/search.ts';
import type { Steered } from '../../saga/steer.ts';
import type { App } from '../app.ts';
import { actorOf } from '../auth.ts';
import type { SagaPort } from '../ports.ts';
import { answers } from './answers.ts';
import { bulkAnswer, bulkBody, bulkRetryBody, toSagaFilter } from './shapes.ts';

// One request must not hold all connections of the pool.
const PARALLEL = 5;

/** Adds the routes. */
export function addBulkRoutes(app: App, sagas: SagaPort): void {
  app.post(
    '/v1/bulk/cancel',
    { config: { needs: 'operate' }, schema: { summary: 'Cancel the sagas that a filter finds', tags: ['bulk'], body: bulkBody, response: answers(200, bulkAnswer) } },
    async ({ body, principal }) =>
      steerAll(sagas, { ...body, filter: toSagaFilter(body.filter) }, ['pending', 'running'], (sagaId) => sagas.cancel(sagaId, actorOf(principal), body.reason)),
  );
  app.post(
    '/v1/bulk/retry',
    { config: { needs: 'operate' }, schema: { summary: 'Resume the stuck sagas that a filter finds', tags: ['bulk'], body: bulkRetryBody, response: answers(200, bulkAnswer) } },
    async ({ body, principal }) => steerAll(sagas, { ...body, filter: toSagaFilter(body.filter) }, ['stuck'], (sagaId) => sagas.retry(sagaId, actorOf(principal))),
  );
}

type BulkRequest = Readonly<{ filter: SagaFilter; dryRun: boolean; limit: number }>;
export type BulkAnswer = Readonly<{ dryRun: boolean; matched: number; sagas: readonly BulkResult[]; remaining: number }>;
type BulkResult = { sagaId: string; result: 'would' | Steered['kind']; why?: string };

/** Steers those that a filter finds among the `possible`; a dry run only says which. */
export async function steerAll(
  sagas: Pick<SagaPort, 'count' | 'search'>,
  request: BulkRequest,
  possible: readonly SagaStatus[],
  steer: (sagaId: string) => Promise<Steered>,
): Promise<BulkAnswer> {
  const given = request.filter;
  const status = given.status === undefined ? possible : possible.filter((candidate) => given.status?.includes(candidate));
  if (status.length === 0) return { dryRun: request.dryRun, matched: 0, sagas: [], remaining: 0 };
  const filter: SagaFilter = { ...given, status };
  const [matched, page] = await Promise.all([sagas.count(filter), sagas.search(filter, { limit: request.limit })]);
  const results: BulkResult[] = [];
  for (let start = 0; start < page.sagas.length; start += PARALLEL) {
    const some = page.sagas.slice(start, start + PARALLEL);
    results.push(...(await Promise.all(some.map(async ({ id }) => (request.dryRun ? { sagaId: id, result: 'would' as const } : toResult(id, await steer(id)))))));
  }
  return { dryRun: request.dryRun, matched: Math.max(matched, results.length), sagas: results, remaining: Math.max(0, matched - results.length) };
}

function toResult(sagaId: string, steered: Steered): BulkResult {
  return steered.kind === 'refused' ? { sagaId, result: 'refused', why: steered.why } : { sagaId, result: steered.kind };
}
