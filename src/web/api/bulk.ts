// /v1/bulk: cancel, retry or rerun many sagas, selected by a filter or by the ids of a dry run. Each saga is handled and
// audited by itself.
import type { z } from 'zod';
import type { Saga, SagaStatus } from '../../saga/saga.ts';
import type { SagaFilter } from '../../saga/filter.ts';
import type { ActionResult } from '../../saga/cancel-and-retry.ts';
import { askToCheck } from '../../saga/rerun.ts';
import { InvalidRequestError, StartRefusedError } from '../../saga/start-errors.ts';
import { leftoversOf } from '../../saga/words.ts';
import type { App, Principal } from '../app.ts';
import { actorOf } from '../auth.ts';
import type { SagaPort } from '../ports.ts';
import { Problem } from '../problems.ts';
import { answers } from './answers.ts';
import { rerunFor } from './sagas.ts';
import { bulkAnswer, bulkBody, bulkRetryBody } from './bulk-shapes.ts';
import { toSagaFilter } from '../saga-filter.ts';

const PARALLEL = 5;

/** Adds the routes. */
export function addBulkRoutes(app: App, sagas: SagaPort): void {
  app.post(
    '/v1/bulk/cancel',
    { config: { needs: 'operate' }, schema: { operationId: 'bulkCancel', summary: 'Cancel sagas, by filter or by id', tags: ['bulk'], body: bulkBody, response: answers(200, bulkAnswer) } },
    async ({ body, principal }) =>
      actOnAll(sagas, requestOf(body), 'cancel', (sagaId) => sagas.cancel(sagaId, actorOf(principal), body.reason)),
  );
  app.post(
    '/v1/bulk/retry',
    { config: { needs: 'operate' }, schema: { operationId: 'bulkRetry', summary: 'Resume stuck sagas, by filter or by id', tags: ['bulk'], body: bulkRetryBody, response: answers(200, bulkAnswer) } },
    async ({ body, principal }) => actOnAll(sagas, requestOf(body), 'retry', (sagaId) => sagas.retry(sagaId, actorOf(principal))),
  );
  app.post(
    '/v1/bulk/rerun',
    { config: { needs: 'operate' }, schema: { operationId: 'bulkRerun', summary: 'Run rolled-back sagas again, by filter or by id', tags: ['bulk'], body: bulkRetryBody, response: answers(200, bulkAnswer) } },
    async ({ body, principal }) => actOnAll(sagas, requestOf(body), 'rerun', (sagaId) => rerunInBulk(sagas, sagaId, principal)),
  );
}

export type BulkAction = 'cancel' | 'retry' | 'rerun';

/** The statuses in which an action has an effect. */
export const affected: Readonly<Record<BulkAction, readonly SagaStatus[]>> = { cancel: ['pending', 'running'], retry: ['stuck'], rerun: ['compensated'] };

/** Further conditions of an action: a saga is rerun only once. */
export const needed: Readonly<Record<BulkAction, Pick<SagaFilter, 'isRerun'>>> = { cancel: {}, retry: {}, rerun: { isRerun: false } };

/** Either or both of `filter` and `ids`. */
type BulkRequest = Readonly<{ filter: SagaFilter | null; ids: readonly string[] | null; dryRun: boolean; limit: number }>;
export type BulkAnswer = Readonly<{ dryRun: boolean; matched: number; ids: readonly string[]; sagas: readonly BulkResult[]; remaining: number }>;
export type BulkResult = Readonly<{ sagaId: string; result: 'would' | ActionResult['kind']; status?: SagaStatus; why?: string; rerunAs?: string }>;
type Ports = Pick<SagaPort, 'count' | 'search' | 'surface'>;
type Act = (sagaId: string) => Promise<ActionResult>;

function requestOf({ filter, ids, dryRun, limit }: z.infer<typeof bulkRetryBody>): BulkRequest {
  return { filter: filter === undefined ? null : toSagaFilter(filter), ids: ids ?? null, dryRun, limit };
}

/** Runs a saga again. A refusal becomes a result, so that the others still run. */
export async function rerunInBulk(sagas: SagaPort, sagaId: string, principal: Principal | null): Promise<ActionResult> {
  try {
    return await rerunFor(sagas, sagaId, { principal });
  } catch (error) {
    const isRefusal = error instanceof Problem || error instanceof InvalidRequestError || error instanceof StartRefusedError;
    const saga = isRefusal ? await sagas.get(sagaId) : null;
    if (saga === null) throw error;
    return { kind: 'refused', saga, why: error instanceof Error ? error.message : String(error) };
  }
}

/**
 * Acts on the sagas with these ids, or on those that match the filter and that the action can affect. A dry run only lists them.
 * With ids, each id has a result, even if its saga has changed in the meantime.
 */
export async function actOnAll(sagas: Ports, request: BulkRequest, action: BulkAction, act: Act): Promise<BulkAnswer> {
  const { filter, ids } = request;
  const possible = affected[action];
  if (ids !== null) return actOnThese(sagas, { ...request, ids: [...new Set(ids.map((id) => id.toLowerCase()))] }, action, act);
  const status = filter?.status === undefined ? possible : possible.filter((candidate) => filter.status?.includes(candidate));
  if (status.length === 0) return { dryRun: request.dryRun, matched: 0, ids: [], sagas: [], remaining: 0 };
  const conditions: SagaFilter = { ...filter, ...needed[action], status };
  const [matched, page] = await Promise.all([sagas.count(conditions), sagas.search(conditions, { limit: request.limit })]);
  const results = await forEach(page.sagas, async (saga): Promise<BulkResult> => (request.dryRun ? preview(sagas, action, saga) : toResult(saga.id, action, await act(saga.id))));
  return {
    dryRun: request.dryRun,
    matched: Math.max(matched, results.length),
    ids: results.map(({ sagaId }) => sagaId),
    sagas: results,
    remaining: Math.max(0, matched - results.length),
  };
}

async function actOnThese(sagas: Ports, request: BulkRequest & { ids: readonly string[] }, action: BulkAction, act: Act): Promise<BulkAnswer> {
  const { filter, ids, dryRun } = request;
  const find = async (conditions: SagaFilter) => (await sagas.search({ ...conditions, ids }, { limit: ids.length })).sagas;
  // The status may have changed since the dry run. The result says so: the saga is not filtered out.
  const [known, matching] = await Promise.all([find({}), filter === null ? null : find({ ...filter, status: undefined })]);
  const results = await forEach(ids, async (sagaId): Promise<BulkResult> => {
    const saga = known.find(({ id }) => id === sagaId);
    if (saga === undefined) return { sagaId, result: 'not_found' };
    const { status } = saga;
    if (matching !== null && !matching.some(({ id }) => id === sagaId)) return { sagaId, result: 'refused', status, why: 'the saga does not match the filter' };
    if (!dryRun) return toResult(sagaId, action, await act(sagaId));
    if (action === 'rerun' && saga.rerunAs !== null) return { sagaId, result: 'already', status, rerunAs: saga.rerunAs };
    return affected[action].includes(status) ? preview(sagas, action, saga) : { sagaId, result: 'refused', status, why: `the saga is ${status}` };
  });
  const effective = results.filter(({ result }) => result === 'would' || result === 'accepted').length;
  return { dryRun, matched: effective, ids: results.map(({ sagaId }) => sagaId), sagas: results, remaining: 0 };
}

/** What a dry run says of a saga in a status that the action affects. */
function preview({ surface }: Ports, action: BulkAction, saga: Saga): BulkResult {
  const { id: sagaId, status } = saga;
  const leftovers = leftOut(surface, action, saga);
  return leftovers === null ? { sagaId, result: 'would', status } : { sagaId, result: 'refused', status, why: askToCheck(leftovers) };
}

/** Returns why a bulk action leaves a saga out, as a sentence; null: it does not. In bulk, nobody confirms what each rollback may have left. */
export function leftOut(surface: SagaPort['surface'], action: BulkAction, saga: Saga): string | null {
  return action === 'rerun' ? leftoversOf(surface.words(saga), saga) : null;
}

/** One request must not hold all connections of the pool. */
async function forEach<T>(items: readonly T[], act: (item: T) => Promise<BulkResult>): Promise<BulkResult[]> {
  const results: BulkResult[] = [];
  for (let start = 0; start < items.length; start += PARALLEL) {
    results.push(...(await Promise.all(items.slice(start, start + PARALLEL).map(act))));
  }
  return results;
}

function toResult(sagaId: string, action: BulkAction, answered: ActionResult): BulkResult {
  if (answered.kind === 'not_found') return { sagaId, result: 'not_found' };
  const { status } = answered.saga;
  return answered.kind === 'refused' ? { sagaId, result: 'refused', status, why: answered.why } : { sagaId, result: answered.kind, status, ...(action === 'rerun' ? { rerunAs: answered.saga.id } : {}) };
}
