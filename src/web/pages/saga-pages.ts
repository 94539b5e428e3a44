// /sagas: for now one page a saga, as the links on the queues' dashboard need it.
import { z } from 'zod';
import { redactSaga } from '../../saga/redact.ts';
import type { App } from '../app.ts';
import { html } from '../html.ts';
import type { SagaPort } from '../ports.ts';
import { Problem } from '../problems.ts';
import { sendPage } from './layout.ts';

const RECENT = 50;

/** Adds the pages. They are behind the same guard as everything else. */
export function addSagaPages(app: App, sagas: SagaPort): void {
  app.get('/sagas', { schema: { hide: true } }, async (_request, reply) => {
    const page = await sagas.search({}, { limit: RECENT });
    const rows = page.sagas.map((saga) => html`<tr><td><a href="/sagas/${saga.id}">${saga.id}</a></td><td>${saga.name}</td><td>${saga.status}</td><td>${saga.createdAt.toISOString()}</td></tr>`);
    return sendPage(reply, 'Sagas', html`<table><tr><th>id</th><th>saga</th><th>status</th><th>created</th></tr>${rows}</table>`);
  });

  app.get('/sagas/:id', { schema: { hide: true, params: z.object({ id: z.uuid('expected the id of a saga: a UUID') }) } }, async (request, reply) => {
    const { id } = request.params;
    const saga = await sagas.get(id);
    if (saga === null) throw new Problem('saga_not_found', `there is no saga ${id}`, { sagaId: id });
    const events = await sagas.events(id);
    const rows = events.map((event) => html`<tr><td>${event.seq}</td><td>${event.at.toISOString()}</td><td>${event.kind}</td><td>${event.step}</td></tr>`);
    return sendPage(
      reply,
      `${saga.name} ${saga.saga8}`,
      html`<p>${saga.status}</p><table><tr><th></th><th>at</th><th>what</th><th>step</th></tr>${rows}</table><pre>${JSON.stringify(redactSaga(saga), null, 2)}</pre>`,
    );
  });
}
