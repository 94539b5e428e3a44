// /v1/drift and /v1/orphans: where droplets are not what was asked for, and those that no saga accounts for.
import type { Redaction } from '../../saga/redact.ts';
import type { App } from '../app.ts';
import { actorOf } from '../auth.ts';
import type { InventoryPort } from '../ports.ts';
import { Problem } from '../problems.ts';
import { answers } from './answers.ts';
import { acceptedAnswer, driftParams, driftQuery, driftsAnswer, orphansAnswer, orphansQuery } from './shapes.ts';

const FALLBACK_LIMIT = 200;

/** Adds the routes. */
export function addInventoryRoutes(app: App, inventory: InventoryPort, redact: Redaction): void {
  app.get(
    '/v1/drift',
    { schema: { summary: 'List drift that is open, oldest first', tags: ['inventory'], querystring: driftQuery, response: answers(200, driftsAnswer) } },
    async ({ query }) => ({ drift: await inventory.drift({ withResolved: query.resolved === 'true', limit: Number(query.limit ?? FALLBACK_LIMIT) }) }),
  );

  app.post(
    '/v1/drift/:id/accept',
    { schema: { summary: 'Make what is there what is desired', tags: ['inventory'], params: driftParams, response: answers(200, acceptedAnswer) } },
    async (request) => {
      const accepted = await inventory.acceptDrift(Number(request.params.id), actorOf(request.principal));
      if (accepted.kind === 'accepted') return { drift: accepted.drift };
      if (accepted.kind === 'not_found') throw new Problem('not_found', `there is no drift ${request.params.id}`);
      throw new Problem('drift_refused', accepted.kind === 'resolved' ? 'it is resolved already' : 'it has just changed: look at it again');
    },
  );

  app.get(
    '/v1/orphans',
    { schema: { summary: 'List droplets with our tags that no saga accounts for', tags: ['inventory'], querystring: orphansQuery, response: answers(200, orphansAnswer) } },
    async ({ query }) => ({ orphans: redact.value(await inventory.orphans(Number(query.limit ?? FALLBACK_LIMIT))) }),
  );
}
