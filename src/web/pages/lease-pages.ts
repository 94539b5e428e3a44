// /leases: the routes of the pages about leases. Renewing and lifting a protection are forms of droplet-pages.ts, which lead back here.
import { z } from 'zod';
import { actorOf, may } from '../auth.ts';
import type { App } from '../app.ts';
import type { InventoryPort } from '../ports.ts';
import { Problem } from '../problems.ts';
import { sendErrorPage } from './error-page.ts';
import { acceptForms } from './form-body.ts';
import { sendPage } from './layout.ts';
import { MOST_LEASES_APPROVED, renderAnswer, renderQuestion } from './lease-approval.ts';
import { leaseQuery } from './lease-filter.ts';
import { LEASES_PER_PAGE, renderLeases } from './lease-list.ts';

const told: Readonly<Record<string, string>> = {
  renewed: 'The lease is renewed.',
  unprotected: 'The protection is lifted: the droplet is destroyed within seconds, unless the brake holds its lease.',
  unchanged: 'Nothing to do: this has already happened.',
};

const SHOWN_LEASE = /^([\da-f]{8}(?:-[\da-f]{4}){3}-[\da-f]{12})\.(\d{1,9})$/;
const shownLease = z.string().regex(SHOWN_LEASE, 'expected leases as the page shows them').transform((given) => {
  const [, sagaId = '', generation] = SHOWN_LEASE.exec(given) ?? [];
  return { sagaId, generation: Number(generation) };
});
const approveForm = z.object({
  lease: z.preprocess((value) => [value].flat(), z.array(shownLease).max(MOST_LEASES_APPROVED, `expected at most ${MOST_LEASES_APPROVED} leases`)),
  confirm: z.string('type the number of droplets to confirm'),
});

/** Adds the pages. */
export function addLeasePages(app: App, inventory: InventoryPort): void {
  void app.register(async (scope: App) => {
    acceptForms(scope);
    scope.setErrorHandler(sendErrorPage);
    addList(scope, inventory);
    addApproval(scope, inventory);
    await Promise.resolve();
  });
}

function addList(app: App, inventory: InventoryPort): void {
  app.get('/leases', { schema: { hide: true, querystring: leaseQuery } }, async (request, reply) => {
    const { state: choice = 'all', page = 1, told: what = '' } = request.query;
    const [leases, overview] = await Promise.all([inventory.leases({ choice, limit: LEASES_PER_PAGE, offset: (page - 1) * LEASES_PER_PAGE }), inventory.leaseOverview()]);
    const { principal } = request;
    const rights = { renew: may(principal, 'start'), unprotect: may(principal, 'operate'), approve: may(principal, 'destroy') };
    return sendPage(reply, { title: 'Leases', place: 'leases', body: renderLeases({ choice, page, leases, overview, may: rights, told: Object.hasOwn(told, what) ? (told[what] ?? null) : null }) });
  });
}

function addApproval(app: App, inventory: InventoryPort): void {
  app.get('/leases/approve', { schema: { hide: true } }, async (request, reply) => {
    const [held, overview] = await Promise.all([inventory.leases({ choice: 'held', limit: MOST_LEASES_APPROVED }), inventory.leaseOverview()]);
    return sendPage(reply, { title: 'Approve leases', place: 'leases', body: renderQuestion(held, overview, { mayDestroy: may(request.principal, 'destroy') }) });
  });

  app.post('/leases/approve', { config: { needs: ['read', 'destroy'] }, schema: { hide: true, body: approveForm } }, async (request, reply) => {
    const { lease: leases, confirm } = request.body;
    if (confirm.trim() !== String(leases.length)) throw new Problem('invalid_request', `confirm: expected the number of droplets, ${leases.length}. Nothing was approved`, { errors: [{ field: 'confirm', message: 'is not the number of droplets' }] });
    const approved = await inventory.approveLeases(leases, actorOf(request.principal));
    const asked = leases.map(({ sagaId }) => sagaId);
    const now = await inventory.leaseRows(asked);
    const { now: at } = await inventory.leaseOverview();
    return sendPage(reply, { title: 'Approve leases', place: 'leases', back: '/leases/approve', body: renderAnswer({ asked, approved, now, at }) });
  });
}
