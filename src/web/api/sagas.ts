// /v1/sagas: starting sagas, finding, following, cancelling and retrying them.
import { isAtRest } from '../../saga/saga.ts';
import type { ActionResult } from '../../saga/cancel-and-retry.ts';
import type { App } from '../app.ts';
import { actorOf, scopeToStart, starterOf } from '../auth.ts';
import type { SagaPort } from '../ports.ts';
import { Problem } from '../problems.ts';
import type { EventStreams } from '../event-streams.ts';
import { answers, streams as streamAnswers } from './answers.ts';
import {
  cancelBody, sagaParams, sagaWithTimeline, sagasAnswer, sagasQuery, startHeaders, startedAnswer, actionAnswer, streamHeaders,
} from './shapes.ts';
import { toSagaFilter } from '../saga-filter.ts';

/** Adds the routes. */
export function addSagaRoutes(app: App, { sagas, streams }: { sagas: SagaPort; streams: EventStreams }): void {
  for (const [name, { input }] of Object.entries(sagas.definitions)) addStartRoute(app, { name, input }, sagas);

  app.post<{ Params: { name: string } }>('/v1/sagas/:name', { config: { needs: 'start' }, schema: { hide: true } }, async (request) => {
    const known = Object.keys(sagas.definitions).join(', ');
    const message = `no saga is called ${JSON.stringify(request.params.name)}; expected one of ${known}`;
    await Promise.resolve();
    throw new Problem('unknown_saga', `name: ${message}`, { errors: [{ field: 'name', message }] });
  });

  app.get(
    '/v1/sagas',
    { schema: { summary: 'Find sagas, newest first', tags: ['sagas'], querystring: sagasQuery, response: answers(200, sagasAnswer) } },
    async (request) => {
      const { limit, cursor, ...filter } = request.query;
      const page = await sagas.search(toSagaFilter(filter), { limit: limit === undefined ? 50 : Number(limit), cursor });
      return { sagas: page.sagas.map(sagas.surface.redact.saga), nextCursor: page.nextCursor };
    },
  );

  app.get(
    '/v1/sagas/:id',
    { schema: { summary: 'Read a saga with its timeline', tags: ['sagas'], params: sagaParams, response: answers(200, sagaWithTimeline) } },
    async (request) => {
      const { id } = request.params;
      const saga = await sagas.get(id);
      if (saga === null) throw noSaga(id);
      // What was written since belongs to the next look: the row and its timeline tell the same.
      const events = (await sagas.events(id)).filter(({ seq }) => seq <= saga.revision);
      return { ...sagas.surface.redact.saga(saga), events };
    },
  );

  app.get(
    '/v1/sagas/:id/events',
    {
      // A HEAD would listen to a stream that it does not show.
      exposeHeadRoute: false,
      schema: {
        summary: 'Follow a saga until it is at rest',
        description:
          'Server-sent events. Each has the id `seq` and an event as data, as in the timeline; a stream that was cut off goes on after Last-Event-ID. ' +
          'The last one is of type `end`, with the status as data. 204: there is nothing after Last-Event-ID, and there will not be.',
        tags: ['sagas'],
        params: sagaParams,
        headers: streamHeaders,
        produces: ['text/event-stream'],
        response: streamAnswers(),
      },
    },
    async (request, reply) => {
      const { id } = request.params;
      const saga = await sagas.get(id);
      if (saga === null) throw noSaga(id);
      const lastEventId = request.headers['last-event-id'] ?? '';
      const afterSeq = lastEventId === '' ? -1 : Number(lastEventId);
      // To a 204, browsers do not come back.
      if (isAtRest(saga.status) && afterSeq >= saga.revision) return reply.code(204).send();
      return streams.open(reply, id, afterSeq, actorOf(request.principal));
    },
  );

  app.post(
    '/v1/sagas/:id/cancel',
    {
      config: { needs: 'operate' },
      schema: {
        summary: "Ask for a saga's rollback",
        description: 'Of a cancel and a completion exactly one wins. 409: it is completed already.',
        tags: ['sagas'],
        params: sagaParams,
        body: cancelBody,
        response: answers(202, actionAnswer),
      },
    },
    async (request, reply) => {
      const answered = await sagas.cancel(request.params.id, actorOf(request.principal), request.body?.reason);
      return reply.code(202).send(await toAnswer(sagas, request.params.id, answered));
    },
  );

  app.post(
    '/v1/sagas/:id/retry',
    {
      config: { needs: 'operate' },
      schema: { summary: 'Resume a stuck saga', tags: ['sagas'], params: sagaParams, response: answers(202, actionAnswer) },
    },
    async (request, reply) => {
      const answered = await sagas.retry(request.params.id, actorOf(request.principal));
      return reply.code(202).send(await toAnswer(sagas, request.params.id, answered));
    },
  );
}

/** A route for each saga, so that the OpenAPI document shows its input. It is checked by whatever starts the saga. */
function addStartRoute(app: App, { name, input }: { name: string; input: SagaPort['definitions'][string]['input'] }, sagas: SagaPort): void {
  app.post(
    `/v1/sagas/${name}`,
    {
      config: { needs: scopeToStart(sagas.definitions, name) },
      attachValidation: true,
      schema: {
        summary: `Start ${name}`,
        description: 'The body is the input. 202 with Location: the saga stands, and will be carried out or rolled back. 409: the idempotency key was used with another input.',
        tags: ['sagas'],
        headers: startHeaders,
        body: input,
        response: answers(202, startedAnswer),
      },
    },
    async (request, reply) => {
      const idempotencyKey = request.headers['idempotency-key'];
      const started = await sagas.start({ name, input: request.body ?? {}, idempotencyKey, requestedBy: actorOf(request.principal), starter: starterOf(request.principal) });
      const replayed = started.firstJob === null;
      if (replayed) reply.header('idempotency-replayed', 'true');
      return reply.code(202).header('location', `/v1/sagas/${started.sagaId}`).send({ sagaId: started.sagaId, replayed });
    },
  );
}

function noSaga(id: string): Problem {
  return new Problem('saga_not_found', `there is no saga ${id}`, { sagaId: id });
}

async function toAnswer(sagas: SagaPort, id: string, answered: ActionResult) {
  switch (answered.kind) {
    case 'accepted':
    case 'already':
      // Read anew: the database's own times are in it.
      return { result: answered.kind, saga: sagas.surface.redact.saga((await sagas.get(id)) ?? answered.saga) };
    case 'refused':
      throw new Problem('saga_refused', answered.why, { sagaId: id });
    case 'not_found':
      throw noSaga(id);
    default:
      return answered satisfies never;
  }
}
