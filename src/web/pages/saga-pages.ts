// /sagas: the routes of the pages for operators. They work without a script; with it, they keep themselves up to date.
import type { FastifyReply } from 'fastify';
import { z } from 'zod';
import { withDeadline } from '../../platform/deadline.ts';
import type { FleetStatus } from '../../fleet/conditions.ts';
import type { Saga } from '../../saga/saga.ts';
import { directionOf, isAtRest } from '../../saga/saga.ts';
import type { Subject } from '../../saga/saga-words.ts';
import { statusWords, titleOf } from '../../saga/words.ts';
import { erasedSecrets } from '../../saga/rerun.ts';
import type { ActionResult } from '../../saga/cancel-and-retry.ts';
import { affected, actOnAll, needed, rerunInBulk } from '../api/bulk.ts';
import type { BulkAction } from '../api/bulk.ts';
import type { App, Principal } from '../app.ts';
import { rerunFor, rerunRefused } from '../api/sagas.ts';
import { actorOf, may, rightToStart } from '../auth.ts';
import type { QueuesPort, WebPorts } from '../ports.ts';
import { Problem } from '../problems.ts';
import { storableText } from '../storable.ts';
import { renderBulkDone, renderDryRun } from './bulk-page.ts';
import { sendErrorPage } from './error-page.ts';
import type { ListFilter, ListQuery } from './filter.ts';
import { acceptForms } from './form-body.ts';
import { BULK_LIMIT, addressOf, bulkForm, bulkQuery, fromList, isNarrowed, listQuery, withoutEmpty } from './filter.ts';
import { toSagaFilter } from '../saga-filter.ts';
import { findNeighbours, searchGrouped } from './grouped-search.ts';
import { sendPage } from './layout.ts';
import { renderList } from './saga-list.ts';
import type { DueJob } from './saga-facts.ts';
import { memoOf, renderSaga } from './saga-view.ts';
import { timelineOf } from './timeline.ts';
import { untakenForMs } from './waits.ts';
import { MAX_LEASE_S } from '../../platform/longest-lease.ts';

type Ports = Pick<WebPorts, 'sagas' | 'audit' | 'queues' | 'inventory'>;

const PAGE = 50;

// Groups of failures above the list.
const CAUSES = 5;

// Longer than any secret that an input may have.
const MAX_SECRET_LENGTH = 1_048_576;

// The pages read Postgres. They add what the queues report, if those answer in time.
const QUEUES_TIME_LIMIT_MS = 1_000;

// An action has only begun when the page is shown: the page itself shows the result.
const told = {
  cancelled: 'The saga is cancelled. None of its steps had run.',
  rollback: 'The rollback has begun.',
  retry: 'The retry has begun.',
  renewed: 'The lease is renewed.',
  rerun: 'This is the new saga.',
  started: 'This is the new saga.',
  rerun_before: 'The saga was run again before. This is the saga that was started then.',
  already: 'Nothing to do: this has already happened, or is happening now.',
  refused: 'Nothing was changed, because the saga has moved on in the meantime.',
} as const;

type Told = keyof typeof told;

const params = z.object({ id: z.uuid('expected a saga id, a UUID').toLowerCase() });
const sagaQuery = z.object({ list: fromList, told: z.string().optional() });
const cancelForm = z.object({ reason: storableText(1_000).transform((given) => given.trim()).optional() }).nullish();
// A browser sends the lines of a text area with CR LF, which a shell script does not survive.
const rerunForm = z.record(z.string().max(255), storableText(MAX_SECRET_LENGTH).transform((given) => given.replaceAll('\r\n', '\n'))).nullish();

const leaseForm = z.object({ ttl_s: z.coerce.number('expected a number of seconds').int().min(1).max(MAX_LEASE_S) });

/** Adds the pages. They are behind the same guard as everything else. */
export function addSagaPages(app: App, ports: Ports): void {
  void app.register(async (scope: App) => {
    acceptForms(scope);
    scope.setErrorHandler(sendErrorPage);
    addList(scope, ports);
    addBulk(scope, ports);
    addSaga(scope, ports);
    await Promise.resolve();
  });
}

function addList(app: App, { sagas, queues, inventory }: Ports): void {
  app.get(
    '/sagas',
    {
      schema: { hide: true, querystring: listQuery },
      // Runs before validation: an empty field counts as absent.
      preValidation: async (request, reply) => {
        const address = withoutEmpty(request.url);
        return address === null ? undefined : reply.redirect(address);
      },
    },
    async (request, reply) => {
      const { cursor, ...filter } = request.query;
      const conditions = conditionsOfList(filter);
      const [overview, page, causes] = await Promise.all([
        sagas.overview({ ...conditions, status: undefined }),
        searchGrouped(sagas, conditions, { limit: PAGE, cursor, sort: filter.sort }),
        cursor === undefined ? sagas.failureCauses(conditions, CAUSES) : [],
      ]);
      const open = page.groups.flatMap((group) => group.sagas).filter(({ status }) => status === 'stuck' || !isAtRest(status));
      const ids = open.map(({ id }) => id);
      const completed = page.groups.flatMap((group) => group.sagas).filter(({ status }) => status === 'completed').map(({ id }) => id);
      const [lastEvents, jobs, held, leases] = await Promise.all([sagas.lastEvents(ids), jobsOf(open, queues), sagas.holds(ids), inventory?.leasesOf(completed) ?? new Map<string, never>()]);
      const body = renderList({
        held, leases,
        aliveWorkers: aliveWorkersOf(await app.fleet.glance()),
        filter, overview, page, causes, lastEvents, jobs,
        names: Object.keys(sagas.definitions),
        surface: sagas.surface,
        cursor,
        actor: actorOf(request.principal),
        mayOperate: may(request.principal, 'operate'),
        hasDroplets: app.hasDroplets,
      });
      return sendPage(reply, { title: titleOfList(filter), place: 'sagas', body });
    },
  );
}

async function jobsOf(sagas: readonly Saga[], queues: QueuesPort) {
  const found = await Promise.all(sagas.filter(({ status }) => !isAtRest(status)).map(async (saga) => [saga.id, await dueJobOf(saga, queues)] as const));
  return new Map(found.flatMap(([id, job]) => (job.kind === 'there' ? [[id, job] as const] : [])));
}

async function dueJobOf(saga: Saga, queues: QueuesPort): Promise<DueJob> {
  try {
    const job = await withDeadline(QUEUES_TIME_LIMIT_MS, queues.peek(saga), () => new Error('the queues did not answer in time'));
    return job === null ? { kind: 'gone' } : { kind: 'there', ...job };
  } catch {
    return { kind: 'unknown' };
  }
}

function addSaga(app: App, { sagas, audit, queues, inventory }: Ports): void {
  app.get('/sagas/:id', { schema: { hide: true, params: z.object({ id: z.string() }), querystring: sagaQuery } }, async (request, reply) => {
    const parsed = params.safeParse(request.params);
    // People often have only the short form of an id.
    if (!parsed.success) return reply.redirect(`/sagas?${new URLSearchParams({ q: request.params.id }).toString()}`);
    const { id } = parsed.data;
    const loaded = await sagas.load(id);
    if (loaded === null) throw new Problem('saga_not_found', `saga ${id} not found`, { sagaId: id });
    const { saga } = loaded;
    const words = sagas.surface.words(saga);
    const [found, auditRows, job, isPaused, held, leases, list, subjectName] = await Promise.all([
      sagas.events(id),
      audit.list(id),
      isAtRest(saga.status) ? null : dueJobOf(saga, queues),
      isAtRest(saga.status) ? false : isQueueOfPaused(saga, queues),
      isAtRest(saga.status) ? null : sagas.holds([id]),
      inventory?.leasesOf([id]),
      placeInList(sagas, request.query.list, saga),
      subjectNameOf(words.subject?.(saga), inventory),
    ]);
    // Leaves out events that were written after the row was read, so that the row and the timeline agree.
    const events = found.filter(({ seq }) => seq <= saga.revision);
    const alive = aliveWorkersOf(await app.fleet.glance());
    const untakenMs = job === null ? null : untakenForMs(saga, job.kind === 'there' ? job : null, { aliveWorkers: alive, now: loaded.now });
    const untakenSince = untakenMs === null ? null : new Date(loaded.now.getTime() - untakenMs);
    const body = renderSaga({
      ...loaded, events, job, isPaused,
      words,
      surface: sagas.surface,
      // If the queues do not answer, the page reports that instead.
      untakenSince: job?.kind === 'unknown' ? null : untakenSince,
      isHeld: held?.has(id) ?? false,
      entries: timelineOf(saga, events, { now: loaded.now, memo: memoOf({ job, memo: loaded.memo }), isWaiting: job?.kind === 'there' && job.dueInMs > 0, untakenSince, isHeld: held?.has(id) ?? false, isJobUnknown: job?.kind === 'unknown' }),
      lease: leases?.get(id) ?? null,
      audit: auditRows,
      place: (where) => queues.place({ sagaId: id, ...where }),
      mayOperate: may(request.principal, 'operate'),
      mayRenew: may(request.principal, 'start'),
      hasDroplets: app.hasDroplets,
      subjectName,
      list,
      secretsToRerun: secretsToRerun(sagas, saga, request.principal),
      told: isTold(request.query.told) ? told[request.query.told] : null,
    });
    return sendPage(reply, { title: `${titleOf(words, saga)} · ${saga.status}`, place: 'sagas', body });
  });

  app.post('/sagas/:id/cancel', { config: { needs: 'operate' }, schema: { hide: true, params, body: cancelForm } }, async (request, reply) => {
    const { id } = request.params;
    const answered = await sagas.cancel(id, actorOf(request.principal), request.body?.reason);
    return showAnswer(reply, id, answered, answered.kind === 'accepted' && answered.saga.status === 'compensated' ? 'cancelled' : 'rollback');
  });

  if (inventory !== undefined) {
    app.post('/sagas/:id/lease', { config: { needs: 'start' }, schema: { hide: true, params, body: leaseForm } }, async (request, reply) => {
      const { id } = request.params;
      const saga = await sagas.get(id);
      if (saga === null) throw new Problem('saga_not_found', `saga ${id} not found`, { sagaId: id });
      const dropletId = Number(sagas.surface.words(saga).subject?.(saga).id ?? 0);
      if (dropletId === 0) throw new Problem('lease_absent', 'the saga has no droplet yet');
      await inventory.renewLease(dropletId, { ttlS: request.body.ttl_s, by: actorOf(request.principal) });
      return reply.redirect(`/sagas/${id}?told=${'renewed' satisfies Told}`, 303);
    });
  }

  app.post('/sagas/:id/retry', { config: { needs: 'operate' }, schema: { hide: true, params } }, async (request, reply) => {
    const { id } = request.params;
    return showAnswer(reply, id, await sagas.retry(id, actorOf(request.principal)), 'retry');
  });

  app.post('/sagas/:id/rerun', { config: { needs: 'operate' }, schema: { hide: true, params, body: rerunForm } }, async (request, reply) => {
    const { id } = request.params;
    const { despiteLeftovers, ...secrets } = request.body ?? {};
    const answered = await rerunFor(sagas, id, { principal: request.principal, secrets, despiteLeftovers: despiteLeftovers === 'true' });
    if (answered.kind === 'not_found') throw new Problem('saga_not_found', `saga ${id} not found`, { sagaId: id });
    if (answered.kind === 'refused') throw rerunRefused(answered);
    return reply.redirect(`/sagas/${answered.saga.id}?told=${answered.kind === 'accepted' ? 'rerun' : 'rerun_before'}`, 303);
  });
}

/** What the saga does not say itself: the name of the droplet that it destroys. */
async function subjectNameOf(subject: Subject | undefined, inventory: Ports['inventory']): Promise<string | null> {
  if (inventory === undefined || subject?.kind !== 'droplet' || subject.name !== null || subject.id === null) return null;
  const dropletId = Number(subject.id);
  return Number.isSafeInteger(dropletId) ? ((await inventory.droplet(dropletId))?.name ?? null) : null;
}

async function placeInList(sagas: Ports['sagas'], query: ListQuery | null, saga: Saga) {
  if (query === null) return null;
  return { query, ...(await findNeighbours(sagas, conditionsOfList(query), saga, query.sort)) };
}

function conditionsOfList(filter: ListFilter) {
  return toSagaFilter({ ...filter, requested_by: filter.requester });
}

/** What the filter finds, as the title of a tab among others. */
function titleOfList({ q, status, name, tag, requester }: ListFilter): string {
  const words = [q, ...(status ?? []).map((one) => statusWords[one]), name, tag, requester].filter((word) => word !== undefined && word !== '');
  return words.length === 0 ? 'Sagas' : `${words.join(', ')} · Sagas`;
}

/** Null: the saga cannot be run again, or not by this person; else the secrets that must be given again. */
function secretsToRerun({ definitions }: Ports['sagas'], saga: Saga, principal: Principal | null): readonly string[] | null {
  if (saga.status !== 'compensated' || saga.rerunAs !== null || !Object.hasOwn(definitions, saga.name) || !may(principal, rightToStart(definitions, saga.name))) return null;
  return erasedSecrets(saga);
}

/** Redirects to the page, so that a reload does not repeat the action. */
async function showAnswer(reply: FastifyReply, id: string, answered: ActionResult, begun: Told): Promise<FastifyReply> {
  if (answered.kind === 'not_found') throw new Problem('saga_not_found', `saga ${id} not found`, { sagaId: id });
  const what: Told = answered.kind === 'accepted' ? begun : answered.kind;
  return reply.redirect(`/sagas/${id}?told=${what}`, 303);
}

function isTold(given: string | undefined): given is Told {
  return given !== undefined && Object.hasOwn(told, given);
}

/** Null: not known. */
function aliveWorkersOf(status: FleetStatus | null): readonly string[] | null {
  return status?.facts.postgres?.workers.filter(({ isAlive }) => isAlive).map(({ name }) => name) ?? null;
}

async function isQueueOfPaused(saga: Saga, queues: QueuesPort): Promise<boolean> {
  const { queue } = queues.place({ sagaId: saga.id, revision: saga.revision, direction: directionOf(saga) });
  try {
    const heads = await withDeadline(QUEUES_TIME_LIMIT_MS, queues.heads(), () => new Error('the queues did not answer in time'));
    return heads.some((head) => head.queue === queue && head.isPaused);
  } catch {
    return false;
  }
}

const bulkTitles: Readonly<Record<BulkAction, string>> = { cancel: 'Roll back', retry: 'Retry', rerun: 'Run again' };

function addBulk(app: App, { sagas }: Ports): void {
  app.get('/sagas/bulk', { config: { needs: ['read', 'operate'] }, schema: { hide: true, querystring: bulkQuery } }, async (request, reply) => {
    const { action, ...filter } = request.query;
    const conditions = conditionsOf(action, filter);
    const [matched, page] =
      conditions.status.length === 0 ? [0, { sagas: [], nextCursor: null }] : await Promise.all([sagas.count(conditions), sagas.search(conditions, { limit: BULK_LIMIT })]);
    const lastEvents = await sagas.lastEvents(page.sagas.filter(({ status }) => status === 'stuck').map(({ id }) => id));
    return sendPage(reply, { title: bulkTitles[action], place: 'sagas', body: renderDryRun(action, filter, { matched, page, lastEvents, surface: sagas.surface }) });
  });

  app.post('/sagas/bulk', { config: { needs: 'operate' }, schema: { hide: true, body: bulkForm } }, async (request, reply) => {
    const { action, reason, id: ids, ...filter } = request.body;
    const conditions = conditionsOf(action, filter);
    // A form without ids comes from an old page or from elsewhere: the person has not seen the sagas that it would change.
    if (ids.length === 0) return reply.redirect(addressOf('/sagas/bulk', filter, { action }), 303);
    const actor = actorOf(request.principal);
    const answer = await actOnAll(sagas, { filter: null, ids, dryRun: false, limit: BULK_LIMIT }, action, (id) => {
      if (action === 'rerun') return rerunInBulk(sagas, id, request.principal);
      return action === 'cancel' ? sagas.cancel(id, actor, reason) : sagas.retry(id, actor);
    });
    const remaining = conditions.status.length === 0 ? 0 : await sagas.count(conditions);
    return sendPage(reply, { title: bulkTitles[action], place: 'sagas', back: addressOf('/sagas/bulk', filter, { action }), body: renderBulkDone(action, filter, answer, remaining) });
  });
}

/** What the filter finds, among the sagas on which the action has an effect. */
function conditionsOf(action: BulkAction, filter: ListFilter) {
  needCondition(filter, action);
  return { ...conditionsOfList(filter), ...needed[action], status: affected[action].filter((candidate) => filter.status === undefined || filter.status.includes(candidate)) };
}

function needCondition(filter: ListFilter, action: BulkAction): void {
  // Retrying everything that is stuck is reasonable. Cancelling everything that runs is hardly ever intended.
  if (action === 'retry' || isNarrowed(filter)) return;
  throw new Problem('invalid_request', 'expected at least one condition: search or filter first');
}
