// /v1/sagas: start, find, follow, cancel, retry and rerun sagas.
import type { FastifyReply, FastifyRequest } from 'fastify';
import type { SagaPriority } from '../../saga/saga.ts';
import { isAtRest } from '../../saga/saga.ts';
import type { ActionResult } from '../../saga/cancel-and-retry.ts';
import type { RerunRequest, RerunResult } from '../../saga/rerun.ts';
import { InvalidRequestError } from '../../saga/start-errors.ts';
import type { App, Principal } from '../app.ts';
import { actorOf, requireRight, rightToStart, starterOf } from '../auth.ts';
import type { SagaPort } from '../ports.ts';
import { Problem, problemsOfSchema } from '../problems.ts';
import type { EventStreams } from '../event-streams.ts';
import { answers, streams as streamAnswers } from './answers.ts';
import { cancelBody, rerunAnswer, rerunBody, sagaParams, sagaWithTimeline, sagasAnswer, sagasQuery, startHeaders, startQuery, startedAnswer, actionAnswer, streamHeaders } from './saga-shapes.ts';
import { readIdempotencyKey } from './idempotency-key.ts';
import { toSagaFilter } from '../saga-filter.ts';

// A page that filters by what no index covers looks at so many sagas, some tenths of a second's work. Older ones are left to the next.
const WALK = 200_000;

/** Adds the routes. */
export function addSagaRoutes(app: App, { sagas, streams }: { sagas: SagaPort; streams: EventStreams }): void {
  for (const [name, { input }] of Object.entries(sagas.definitions)) addStartRoute(app, { name, input }, sagas);

  app.post<{ Params: { name: string } }>('/v1/sagas/:name', { config: { needs: 'start' }, schema: { hide: true } }, async (request, reply) => {
    const { name } = request.params;
    try {
      // A repeated key still finds its saga, although this version does not know its name.
      return await start(request, reply, { name, sagas });
    } catch (error) {
      if (!(error instanceof InvalidRequestError)) throw error;
      const known = Object.keys(sagas.definitions).join(', ');
      const message = `no saga is called ${JSON.stringify(name)}; expected one of ${known}`;
      throw new Problem('unknown_saga', `name: ${message}`, { errors: [{ field: 'name', message }] });
    }
  });

  app.get(
    '/v1/sagas',
    { schema: { operationId: 'listSagas', summary: 'Find sagas, newest first', tags: ['sagas'], querystring: sagasQuery, response: answers(200, sagasAnswer) } },
    async (request) => {
      const { limit, cursor, ...filter } = request.query;
      const page = await sagas.search(toSagaFilter(filter), { limit: limit === undefined ? 50 : Number(limit), cursor, walk: WALK });
      const holds = await sagas.holds(page.sagas.filter(({ status }) => !isAtRest(status)).map(({ id }) => id));
      return { sagas: page.sagas.map((saga) => ({ ...sagas.surface.redact.saga(saga), held: holds.get(saga.id) ?? null })), nextCursor: page.nextCursor };
    },
  );

  app.get(
    '/v1/sagas/:id',
    { schema: { operationId: 'getSaga', summary: 'Read a saga with its timeline', tags: ['sagas'], params: sagaParams, response: answers(200, sagaWithTimeline) } },
    async (request) => {
      const { id } = request.params;
      const saga = await sagas.get(id);
      if (saga === null) throw noSaga(id);
      // Omits events that were written after the row was read, so that the row and its timeline agree.
      const [events, holds] = await Promise.all([sagas.events(id), isAtRest(saga.status) ? null : sagas.holds([id])]);
      return { ...sagas.surface.redact.saga(saga), held: holds?.get(id) ?? null, events: events.filter(({ seq }) => seq <= saga.revision) };
    },
  );

  app.get(
    '/v1/sagas/:id/events',
    {
      // A HEAD request would open a stream without reading it.
      exposeHeadRoute: false,
      schema: {
        operationId: 'followSaga',
        summary: 'Follow a saga until it ends or needs attention',
        description: 'Server-sent events. A stream that was cut off resumes after Last-Event-ID.',
        tags: ['sagas'],
        params: sagaParams,
        headers: streamHeaders,
        response: streamAnswers('A stream. Each event has the id `seq` and an event of the timeline as data. The last one is of type `end`, with the status of the saga as data.', 'No event follows Last-Event-ID, and none will.'),
      },
    },
    async (request, reply) => {
      const { id } = request.params;
      const saga = await sagas.get(id);
      if (saga === null) throw noSaga(id);
      const lastEventId = request.headers['last-event-id'] ?? '';
      const afterSeq = lastEventId === '' ? -1 : Number(lastEventId);
      // A browser does not reconnect after a 204.
      if (isAtRest(saga.status) && afterSeq >= saga.revision) return reply.code(204).send();
      return streams.open(reply, id, afterSeq, actorOf(request.principal));
    },
  );

  app.post(
    '/v1/sagas/:id/cancel',
    {
      config: { needs: 'operate' },
      schema: {
        operationId: 'cancelSaga',
        summary: 'Cancel a saga and roll it back',
        description: 'A cancel and a completion race; exactly one wins. 409: the saga is already completed.',
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
      schema: { operationId: 'retrySaga', summary: 'Resume a stuck saga', tags: ['sagas'], params: sagaParams, response: answers(202, actionAnswer) },
    },
    async (request, reply) => {
      const answered = await sagas.retry(request.params.id, actorOf(request.principal));
      return reply.code(202).send(await toAnswer(sagas, request.params.id, answered));
    },
  );

  app.post(
    '/v1/sagas/:id/rerun',
    {
      config: { needs: 'operate' },
      schema: {
        operationId: 'rerunSaga',
        summary: 'Run a rolled-back saga again',
        description:
          'Starts a new saga with the same input, once: a repeated request returns the same new saga. Besides `operate` it needs the scope to start such a saga: `start`, or `destroy`. 409: the saga was not rolled back. 422 `secrets_missing`: secrets such as user_data were erased; give them again. 409 `leftovers_unchecked`: the rollback may have left something; check it, then pass `despiteLeftovers`.',
        tags: ['sagas'],
        params: sagaParams,
        body: rerunBody,
        response: answers(202, rerunAnswer),
      },
    },
    async (request, reply) => {
      const { id } = request.params;
      const answered = await rerunFor(sagas, id, { principal: request.principal, secrets: request.body?.secrets, despiteLeftovers: request.body?.despiteLeftovers });
      if (answered.kind === 'not_found') throw noSaga(id);
      if (answered.kind === 'refused') throw rerunRefused(answered);
      const { id: sagaId } = answered.saga;
      return reply.code(202).header('location', `/v1/sagas/${sagaId}`).send({ sagaId, rerunOf: id, replayed: answered.kind === 'already' });
    },
  );
}

/**
 * Runs a saga again for a principal, who needs the scope to start such a saga too.
 *
 * @throws {Problem} for a scope that is missing; {InvalidRequestError} {StartRefusedError}
 */
export async function rerunFor(sagas: Pick<SagaPort, 'definitions' | 'get' | 'rerun'>, sagaId: string, { principal, secrets, despiteLeftovers }: { principal: Principal | null } & Pick<RerunRequest, 'secrets' | 'despiteLeftovers'>): Promise<RerunResult> {
  const saga = await sagas.get(sagaId);
  if (saga === null) return { kind: 'not_found' };
  requireRight(principal, rightToStart(sagas.definitions, saga.name));
  return sagas.rerun({ sagaId, secrets, despiteLeftovers, requestedBy: actorOf(principal), starter: starterOf(principal) });
}

/** The problem document of a refusal. */
export function rerunRefused({ why, missing, leftovers, saga }: Extract<RerunResult, { kind: 'refused' }>): Problem {
  if (leftovers !== null) return new Problem('leftovers_unchecked', why, { sagaId: saga.id, errors: [{ field: 'despiteLeftovers', message: 'pass true when a person has checked what is left' }] });
  if (missing.length === 0) return new Problem('saga_refused', why, { sagaId: saga.id });
  return new Problem('secrets_missing', why, { sagaId: saga.id, errors: missing.map((field) => ({ field: `secrets.${field}`, message: 'was erased; give it again' })) });
}

/** A route for each saga, so that the OpenAPI document shows its input. It is checked by whatever starts the saga. */
function addStartRoute(app: App, { name, input }: { name: string; input: SagaPort['definitions'][string]['input'] }, sagas: SagaPort): void {
  app.post(
    `/v1/sagas/${name}`,
    {
      config: { needs: rightToStart(sagas.definitions, name) },
      attachValidation: true,
      // To parse the input twice would apply the schema's transforms twice.
      validatorCompiler: (part) => (part.httpPart === 'body' || app.validatorCompiler === undefined ? () => true : app.validatorCompiler(part)),
      schema: {
        operationId: `start_${name}`,
        summary: `Start ${name}`,
        description: 'The body is the input. 202 with Location: the saga is recorded, and will be completed or rolled back. 409: the idempotency key was used with another input, or for another saga.',
        tags: ['sagas'],
        headers: startHeaders,
        querystring: startQuery,
        body: input,
        response: answers(202, startedAnswer),
      },
    },
    async (request, reply) => {
      const refused = problemsOfSchema(request.validationError);
      // 422, like a wrong field of the input: that is what callers know of a wrong priority.
      if (refused !== null) throw new InvalidRequestError(refused);
      return start(request, reply, { name, sagas, priority: request.query.priority });
    },
  );
}

async function start(request: FastifyRequest, reply: FastifyReply, { name, priority, sagas }: { name: string; priority?: SagaPriority | undefined; sagas: SagaPort }): Promise<FastifyReply> {
  const started = await sagas.start({ name, input: request.body ?? {}, ...readIdempotencyKey(request.raw), priority, requestedBy: actorOf(request.principal), starter: starterOf(request.principal) });
  const replayed = started.firstJob === null;
  if (replayed) reply.header('idempotency-replayed', 'true');
  return reply.code(202).header('location', `/v1/sagas/${started.sagaId}`).send({ sagaId: started.sagaId, replayed });
}

function noSaga(id: string): Problem {
  return new Problem('saga_not_found', `saga ${id} not found`, { sagaId: id });
}

async function toAnswer(sagas: SagaPort, id: string, answered: ActionResult) {
  switch (answered.kind) {
    case 'accepted':
    case 'already':
      // Read again, because the database set the times.
      return { result: answered.kind, saga: sagas.surface.redact.saga((await sagas.get(id)) ?? answered.saga) };
    case 'refused':
      throw new Problem('saga_refused', answered.why, { sagaId: id });
    case 'not_found':
      throw noSaga(id);
    default:
      return answered satisfies never;
  }
}
