// /v1/drift, /v1/orphans, /v1/leases and /v1/droplets: droplets that differ from their spec, droplets that no saga
// accounts for, and the leases and protection of droplets.
import type { Redaction } from '../../saga/redact.ts';
import type { App } from '../app.ts';
import { actorOf } from '../auth.ts';
import type { InventoryPort } from '../ports.ts';
import { Problem } from '../problems.ts';
import { answers } from './answers.ts';
import { acceptedAnswer, acknowledgeBody, acknowledgedAnswer, approveLeasesBody, approvedLeasesAnswer, driftParams, driftQuery, driftsAnswer, dropletParams, leaseAnswer, leaseBody, leasesAnswer, leasesQuery, orphansAnswer, orphansQuery, protectionAnswer, protectionBody, unacknowledgeBody } from './inventory-shapes.ts';

const FALLBACK_LIMIT = 200;

/** Adds the routes. */
export function addInventoryRoutes(app: App, inventory: InventoryPort, redact: Redaction): void {
  app.get(
    '/v1/drift',
    { schema: { operationId: 'listDrift', summary: 'List drift that is open, oldest first', tags: ['inventory'], querystring: driftQuery, response: answers(200, driftsAnswer) } },
    async ({ query }) => {
      const { rows: drift, more } = await upTo(query.limit, (limit) => inventory.drift({ withResolved: query.resolved === 'true', limit }));
      return { drift, more };
    },
  );

  app.post(
    '/v1/drift/:id/accept',
    { schema: { operationId: 'acceptDrift', summary: 'Accept the current state as the desired state', tags: ['inventory'], params: driftParams, response: answers(200, acceptedAnswer) } },
    async (request) => {
      const accepted = await inventory.acceptDrift(Number(request.params.id), actorOf(request.principal));
      if (accepted.kind === 'accepted') return { drift: accepted.drift };
      if (accepted.kind === 'not_found') throw new Problem('not_found', `drift ${request.params.id} not found`);
      throw new Problem('drift_refused', accepted.kind === 'resolved' ? 'it is already resolved' : 'it has just changed: read it again');
    },
  );

  app.put(
    '/v1/droplets/:id/protection',
    {
      schema: {
        operationId: 'setProtection',
        summary: 'Protect a droplet, or lift its protection',
        description: 'A protected droplet is not destroyed. 404: no such droplet is on record as provisioned or adopted here. 409: it is being destroyed already.',
        tags: ['inventory'],
        params: dropletParams,
        body: protectionBody,
        response: answers(200, protectionAnswer),
      },
    },
    async (request) => inventory.setProtection(Number(request.params.id), { protected: request.body.protected, by: actorOf(request.principal) }),
  );

  app.post(
    '/v1/droplets/:id/lease',
    {
      config: { needs: 'start' },
      schema: {
        operationId: 'renewLease',
        summary: 'Renew the lease of a droplet',
        description: 'The lease ends no sooner than ttl_s from now, unless its max_s comes first; it is never shortened. 404: no such droplet is on record as provisioned or adopted here. 409: the lease expired, the droplet has none, or it is being destroyed; the code says which.',
        tags: ['inventory'],
        params: dropletParams,
        body: leaseBody,
        response: answers(200, leaseAnswer),
      },
    },
    async (request) => inventory.renewLease(Number(request.params.id), { ttlS: request.body.ttl_s, by: actorOf(request.principal) }),
  );

  app.get(
    '/v1/leases',
    { schema: { operationId: 'listLeases', summary: 'List droplets with a lease; the lease that ends first comes first', tags: ['inventory'], querystring: leasesQuery, response: answers(200, leasesAnswer) } },
    async ({ query }) => {
      const choice = query.ended === 'true' ? 'ended' : query.without === 'true' ? 'without' : 'all';
      const { rows, more } = await upTo(query.limit, (limit) => inventory.leases({ choice, limit }));
      return { leases: redact.value(rows), more };
    },
  );

  app.post(
    '/v1/leases/approve',
    {
      config: { needs: 'destroy' },
      schema: {
        operationId: 'approveLeases',
        summary: 'Let leases expire that the brake against mass expiry holds',
        description: 'Their droplets are destroyed. Left alone are leases that have not ended or have expired already, those of protected droplets, and, if `leases` names them, those that were renewed since the list was read. The deprecated `saga_ids` does not tell which list was read: it approves what has ended when the request arrives.',
        tags: ['inventory'],
        body: approveLeasesBody,
        response: answers(200, approvedLeasesAnswer),
      },
    },
    async ({ body, principal }) => {
      const leases = body.leases?.map(({ saga_id: sagaId, generation }) => ({ sagaId, generation })) ?? body.saga_ids?.map((sagaId) => ({ sagaId })) ?? [];
      return { approved: await inventory.approveLeases(leases, actorOf(principal)) };
    },
  );

  app.get(
    '/v1/orphans',
    { schema: { operationId: 'listOrphans', summary: 'List droplets that carry our tags but that no record accounts for', tags: ['inventory'], querystring: orphansQuery, response: answers(200, orphansAnswer) } },
    async ({ query }) => {
      const { rows, more } = await upTo(query.limit, inventory.orphans);
      return { orphans: redact.value(rows), more };
    },
  );

  app.post(
    '/v1/orphans/acknowledge',
    {
      schema: {
        operationId: 'acknowledgeOrphans',
        summary: 'Acknowledge unknown orphans',
        description: 'They stay listed, and are no longer reported as a problem. A sync that judges one differently reports it again.',
        tags: ['inventory'],
        body: acknowledgeBody,
        response: answers(200, acknowledgedAnswer),
      },
    },
    async ({ body, principal }) => ({ ids: await inventory.acknowledgeOrphans(body.ids, { by: actorOf(principal), reason: body.reason ?? null }) }),
  );

  app.post(
    '/v1/orphans/unacknowledge',
    { schema: { operationId: 'unacknowledgeOrphans', summary: 'Report acknowledged orphans as a problem again', tags: ['inventory'], body: unacknowledgeBody, response: answers(200, acknowledgedAnswer) } },
    async ({ body, principal }) => ({ ids: await inventory.unacknowledgeOrphans(body.ids, { by: actorOf(principal) }) }),
  );
}

/** Reads up to the limit of the query, and whether there is more. */
async function upTo<Row>(given: string | undefined, read: (limit: number) => Promise<readonly Row[]>): Promise<{ rows: Row[]; more: boolean }> {
  const limit = Number(given ?? FALLBACK_LIMIT);
  const rows = await read(limit + 1);
  return { rows: rows.slice(0, limit), more: rows.length > limit };
}
