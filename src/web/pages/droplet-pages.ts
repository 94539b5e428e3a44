// /droplets: the routes of the pages about droplets, and what their forms do. Each form needs the scope that the HTTP API needs for the
// same thing.
import { z } from 'zod';
import type { LeaseChoice } from '../../inventory/lease-listing.ts';
import { parseDuration } from '../../platform/duration.ts';
import { MAX_LEASE_S } from '../../platform/longest-lease.ts';
import { isAtRest } from '../../saga/saga.ts';
import type { Saga } from '../../saga/saga.ts';
import type { App, Principal } from '../app.ts';
import { actorOf, may, rightToStart, starterOf } from '../auth.ts';
import type { InventoryPort, WebPorts } from '../ports.ts';
import { Problem } from '../problems.ts';
import { toSagaFilter } from '../saga-filter.ts';
import { storableText } from '../storable.ts';
import { withReasons } from './audit-reasons.ts';
import type { Destruction } from './droplet-actions.ts';
import { actionsOf } from './droplet-actions.ts';
import { addressOfDroplets, conditionsOf, dropletQuery, placeOf } from './droplet-filter.ts';
import { renderDroplets } from './droplet-list.ts';
import { nameOf, renderDroplet } from './droplet-view.ts';
import { sendErrorPage } from './error-page.ts';
import { withoutEmpty } from './filter.ts';
import { acceptForms } from './form-body.ts';
import { sendPage } from './layout.ts';
import { addressOfLeases, leaseChoice } from './lease-filter.ts';
import { MOST_APPROVED, renderApproved, renderOrphans } from './orphans-page.ts';

type Ports = Pick<WebPorts, 'sagas' | 'audit'> & Readonly<{ inventory: InventoryPort }>;

const SAGAS = 25;
const AUDIT_ROWS = 50;
// More than a person would review.
const MOST_ORPHANS = 1_000;

const told = {
  renewed: 'The lease is renewed.',
  protected: 'The droplet is protected.',
  unprotected: 'The protection is lifted.',
  unchanged: 'Nothing to do: this has already happened.',
  accepted: 'The drift is accepted.',
  resolved: 'Nothing was changed, because the drift is resolved already.',
  moved_on: 'Nothing was changed, because the drift has changed since this page was shown. Look again.',
  approved: 'Its destruction is approved.',
  not_surplus: 'Nothing was changed, because the droplet is not surplus any more.',
  acknowledged: 'Acknowledged.',
  unacknowledged: 'The acknowledgement is taken back.',
  not_unknown: 'Nothing was changed, because the droplet is not an unknown orphan any more.',
} as const;

type Told = keyof typeof told;

const DROPLET = 'expected the id of a droplet: a positive whole number';
const params = z.object({ id: z.string().regex(/^[1-9]\d{0,15}$/, DROPLET).transform(Number).refine(Number.isSafeInteger, DROPLET) });
const toldQuery = z.object({ told: z.string().optional() });
const reason = storableText(1_000).transform((given) => given.trim()).optional();
const form = z.uuid('expected the id of a form').optional();
const destroyForm = z.object({ confirm: z.string('type the id of the droplet to confirm'), reason, form });
/** Seconds; undefined: left empty. */
const duration = z
  .string()
  .transform((text, context) => {
    if (text.trim() === '') return undefined;
    const seconds = parseDuration(text.trim());
    if (seconds !== null) return seconds;
    context.addIssue({ code: 'custom', message: 'expected a duration such as 30m, 2h or 7d' });
    return z.NEVER;
  })
  .optional();
const adoptForm = z
  .object({ protected: z.literal('true').optional(), lease: duration, lease_max: duration, reason, form })
  .refine((given) => given.lease !== undefined || given.lease_max === undefined, { path: ['lease'], message: 'expected the lease that lease_max is the limit of' })
  .nullish();
/** The page of leases that a form leads back to. */
const back = leaseChoice.optional();
const leaseForm = z.object({ ttl_s: z.coerce.number('expected a number of seconds').int().min(1).max(MAX_LEASE_S), back });
const protectionForm = z.object({ protected: z.enum(['true', 'false'], 'expected true or false'), back });
const acceptForm = z.object({ actual: storableText(1_000) });
const orphanIds = z.preprocess((value) => [value].flat(), z.array(z.string().regex(/^[1-9]\d{0,14}$/, 'expected the ids of orphans').transform(Number)).max(MOST_APPROVED, `expected at most ${MOST_APPROVED} orphans`));
/** The page of a droplet that a form leads back to. */
const backToDroplet = z.string().regex(/^[1-9]\d{0,15}$/).optional();
const approveForm = z.object({ id: orphanIds, back: backToDroplet });
const acknowledgeForm = approveForm.extend({ reason });

/** Adds the pages. */
export function addDropletPages(app: App, ports: Ports, { syncIntervalMs }: { syncIntervalMs: number | null }): void {
  void app.register(async (scope: App) => {
    acceptForms(scope);
    scope.setErrorHandler(sendErrorPage);
    addList(scope, ports, syncIntervalMs);
    addOrphans(scope, ports, syncIntervalMs);
    addDroplet(scope, ports, syncIntervalMs);
    addActions(scope, ports);
    await Promise.resolve();
  });
}

function addList(app: App, { inventory }: Ports, syncIntervalMs: number | null): void {
  app.get(
    '/droplets',
    {
      schema: { hide: true, querystring: dropletQuery },
      preValidation: async (request, reply) => {
        const address = withoutEmpty(request.url);
        return address === null ? undefined : reply.redirect(address);
      },
    },
    async (request, reply) => {
      const { query, principal } = request;
      const list = await inventory.droplets(conditionsOf(query), placeOf(query));
      return sendPage(reply, { title: 'Droplets', place: 'droplets', body: renderDroplets({ query, list, syncIntervalMs, mayDestroy: may(principal, 'destroy') }) });
    },
  );
}

function addOrphans(app: App, { inventory }: Ports, syncIntervalMs: number | null): void {
  app.get('/droplets/orphans', { schema: { hide: true, querystring: toldQuery } }, async (request, reply) => {
    const [orphans, sync] = await Promise.all([inventory.orphans(MOST_ORPHANS), inventory.syncAge()]);
    const view = { now: new Date(Date.now()), sync, syncIntervalMs, mayDestroy: may(request.principal, 'destroy'), mayAcknowledge: may(request.principal, 'operate'), told: isTold(request.query.told) ? told[request.query.told] : null };
    return sendPage(reply, { title: 'Orphans', place: 'droplets', body: renderOrphans(orphans, view) });
  });

  app.post('/droplets/orphans', { config: { needs: 'destroy' }, schema: { hide: true, body: approveForm } }, async (request, reply) => {
    const { id: ids, back } = request.body;
    const approved = await inventory.approveOrphans(ids, actorOf(request.principal));
    if (back !== undefined) return reply.redirect(placeTold(back, approved.length === 1 ? 'approved' : 'not_surplus'), 303);
    return sendPage(reply, { title: 'Orphans', place: 'droplets', back: '/droplets/orphans', body: renderApproved(ids.length, approved.length) });
  });

  app.post('/droplets/orphans/acknowledge', { config: { needs: 'operate' }, schema: { hide: true, body: acknowledgeForm } }, async (request, reply) => {
    const { id: ids, back, reason: why = '' } = request.body;
    const known = await inventory.acknowledgeOrphans(ids, { by: actorOf(request.principal), reason: why === '' ? null : why });
    return reply.redirect(placeOfOrphans(back, known.length === 0 ? 'not_unknown' : 'acknowledged'), 303);
  });

  app.post('/droplets/orphans/unacknowledge', { config: { needs: 'operate' }, schema: { hide: true, body: approveForm } }, async (request, reply) => {
    const { id: ids, back } = request.body;
    const known = await inventory.unacknowledgeOrphans(ids, { by: actorOf(request.principal) });
    return reply.redirect(placeOfOrphans(back, known.length === 0 ? 'not_unknown' : 'unacknowledged'), 303);
  });
}

function addDroplet(app: App, { sagas, audit, inventory }: Ports, syncIntervalMs: number | null): void {
  app.get('/droplets/:id', { schema: { hide: true, params: z.object({ id: z.string() }), querystring: toldQuery } }, async (request, reply) => {
    const parsed = params.safeParse(request.params);
    // People often know only the name.
    if (!parsed.success) return reply.redirect(addressOfDroplets({ q: request.params.id.slice(0, 255) }));
    const { id: dropletId } = parsed.data;
    const [record, page, { now }] = await Promise.all([inventory.droplet(dropletId), sagas.search(toSagaFilter({ droplet_id: dropletId }), { limit: SAGAS }), sagas.overview({ ids: [] })]);
    if (record === null && page.sagas.length === 0) throw new Problem('droplet_unknown', `droplet ${dropletId} is neither in the inventory nor in any saga. A droplet made elsewhere appears with the next sync`);
    const ids = page.sagas.map(({ id }) => id);
    const [held, leases, trail] = await Promise.all([
      sagas.holds(ids),
      record === null ? inventory.leasesOf(ids) : null,
      audit.ofSagas([...new Set([...ids, ...(record?.sagaId == null ? [] : [record.sagaId]), ...(record?.orphan?.sagaId == null ? [] : [record.orphan.sagaId])])], AUDIT_ROWS),
    ]);
    const destruction = destructionOf(page.sagas.filter((saga) => isDestroying(saga, { sagas, inventory })));
    const view = {
      dropletId, record, held, syncIntervalMs, destruction,
      sagas: page.sagas,
      hasMoreSagas: page.nextCursor !== null,
      lease: [...(leases?.values() ?? [])][0] ?? null,
      audit: await withReasons(trail, sagas),
      surface: sagas.surface,
      now: record?.now ?? now,
      actions: actionsOf(record, { dropletId, destruction, formId: crypto.randomUUID(), has: (action) => has(action, request.principal, { sagas, inventory }) }),
      told: isTold(request.query.told) ? told[request.query.told] : null,
    };
    return sendPage(reply, { title: `${nameOf(view)} · droplet`, place: 'droplets', body: renderDroplet(view) });
  });
}

/** One that goes on counts before one that is stuck. */
function destructionOf(destroying: readonly Saga[]): Destruction | null {
  const saga = destroying.find(({ status }) => status !== 'stuck') ?? destroying[0];
  return saga === undefined ? null : { sagaId: saga.id, isStuck: saga.status === 'stuck' };
}

/** Whether a saga that has not ended destroys its droplet. */
function isDestroying(saga: Saga, { sagas, inventory }: Pick<Ports, 'sagas' | 'inventory'>): boolean {
  if (isAtRest(saga.status) && saga.status !== 'stuck') return false;
  if (saga.name === inventory.sagas.destroy) return true;
  const isUndone = saga.status === 'compensating' || (saga.status === 'stuck' && saga.error !== null);
  return isUndone && sagas.surface.words(saga).cancelDestroys?.(saga) === true;
}

function has(action: Parameters<Parameters<typeof actionsOf>[1]['has']>[0], principal: Principal | null, { sagas, inventory }: Pick<Ports, 'sagas' | 'inventory'>): boolean {
  switch (action) {
    case 'destroy':
    case 'adopt': {
      const name = inventory.sagas[action];
      return Object.hasOwn(sagas.definitions, name) && may(principal, rightToStart(sagas.definitions, name));
    }
    case 'renew':
      return may(principal, 'start');
    case 'approve':
      return may(principal, 'destroy');
    case 'acknowledge':
    case 'unacknowledge':
    case 'protect':
    case 'unprotect':
    case 'accept':
      return may(principal, 'operate');
    default:
      return action satisfies never;
  }
}

function addActions(app: App, { sagas, inventory }: Ports): void {
  /** Starts a saga for a droplet, once for each form that was shown. */
  const start = async (name: string, input: Readonly<Record<string, unknown>>, { principal, form: formId }: { principal: Principal | null; form: string | undefined }): Promise<string> => {
    const { sagaId } = await sagas.start({ name, input, idempotencyKey: formId === undefined ? undefined : `page-${formId}`, requestedBy: actorOf(principal), starter: starterOf(principal) });
    return sagaId;
  };
  const rightOf = (action: 'destroy' | 'adopt') => rightToStart(sagas.definitions, inventory.sagas[action]);

  if (Object.hasOwn(sagas.definitions, inventory.sagas.destroy)) {
    app.post('/droplets/:id/destroy', { config: { needs: rightOf('destroy') }, schema: { hide: true, params, body: destroyForm } }, async (request, reply) => {
      const { id } = request.params;
      const { confirm, reason: why, form: formId } = request.body;
      if (confirm.trim() !== String(id)) throw new Problem('invalid_request', `confirm: expected the id of the droplet, ${id}. Nothing was destroyed`, { errors: [{ field: 'confirm', message: 'is not the id of the droplet' }] });
      const sagaId = await start(inventory.sagas.destroy, { droplet_id: id, ...reasonOf(why) }, { principal: request.principal, form: formId });
      return reply.redirect(`/sagas/${sagaId}?told=started`, 303);
    });
  }

  if (Object.hasOwn(sagas.definitions, inventory.sagas.adopt)) {
    app.post('/droplets/:id/adopt', { config: { needs: rightOf('adopt') }, schema: { hide: true, params, body: adoptForm } }, async (request, reply) => {
      const { protected: isProtected, lease: ttl, lease_max: max, reason: why, form: formId } = request.body ?? {};
      const lease = ttl === undefined ? {} : { lease: { ttl_s: ttl, ...(max === undefined ? {} : { max_s: max }) } };
      const input = { droplet_id: request.params.id, ...(isProtected === undefined ? {} : { protected: true }), ...lease, ...reasonOf(why) };
      const sagaId = await start(inventory.sagas.adopt, input, { principal: request.principal, form: formId });
      return reply.redirect(`/sagas/${sagaId}?told=started`, 303);
    });
  }

  app.post('/droplets/:id/lease', { config: { needs: 'start' }, schema: { hide: true, params, body: leaseForm } }, async (request, reply) => {
    await inventory.renewLease(request.params.id, { ttlS: request.body.ttl_s, by: actorOf(request.principal) });
    return reply.redirect(placeAfter(request.params.id, request.body.back, 'renewed'), 303);
  });

  app.post('/droplets/:id/protection', { config: { needs: 'operate' }, schema: { hide: true, params, body: protectionForm } }, async (request, reply) => {
    const result = await inventory.setProtection(request.params.id, { protected: request.body.protected === 'true', by: actorOf(request.principal) });
    return reply.redirect(placeAfter(request.params.id, request.body.back, !result.changed ? 'unchanged' : result.protected ? 'protected' : 'unprotected'), 303);
  });

  app.post('/droplets/:id/drift/:drift', { config: { needs: 'operate' }, schema: { hide: true, params: params.extend({ drift: z.string().regex(/^[1-9]\d{0,14}$/, 'expected the id of a drift').transform(Number) }), body: acceptForm } }, async (request, reply) => {
    const { id, drift } = request.params;
    const accepted = await inventory.acceptDrift(drift, actorOf(request.principal), request.body.actual);
    if (accepted.kind === 'not_found') throw new Problem('not_found', `drift ${drift} not found`);
    return reply.redirect(placeTold(id, accepted.kind), 303);
  });
}

/** Redirects to the page, so that a reload does not repeat the action. */
function placeTold(dropletId: number | string, what: Told): string {
  return `/droplets/${dropletId}?told=${what}`;
}

/** The same, or the page of all orphans. */
function placeOfOrphans(dropletId: string | undefined, what: Told): string {
  return dropletId === undefined ? `/droplets/orphans?told=${what}` : placeTold(dropletId, what);
}

/** The same, or the page of leases that the form came from. */
function placeAfter(dropletId: number, choice: LeaseChoice | undefined, what: Told): string {
  return choice === undefined ? placeTold(dropletId, what) : addressOfLeases(choice, { told: what });
}

function isTold(given: string | undefined): given is Told {
  return given !== undefined && Object.hasOwn(told, given);
}

function reasonOf(reason: string | undefined): { reason?: string } {
  return reason === undefined || reason === '' ? {} : { reason };
}
