// /start: provisions a droplet from a form, in two steps: a preview with the price and the plan's checks, then the start. User data
// is sent only in bodies, never in a URL.
import { randomUUID } from 'node:crypto';
import type { FastifyReply } from 'fastify';
import { z } from 'zod';
import { problemsOf } from '../../platform/request-problems.ts';
import { IdempotencyConflictError, InvalidRequestError, StartRefusedError } from '../../saga/start-errors.ts';
import type { App, Principal } from '../app.ts';
import { actorOf, rightToStart, starterOf } from '../auth.ts';
import type { PlansPort, SagaPort } from '../ports.ts';
import { sendErrorPage } from './error-page.ts';
import { acceptForms } from './form-body.ts';
import { sendPage } from './layout.ts';
import type { Fields } from './start-fields.ts';
import { addProblems, readFields } from './start-fields.ts';
import { renderForm, renderPreview } from './start-form.ts';

type Ports = Readonly<{ plans: PlansPort; sagas: Pick<SagaPort, 'definitions' | 'start'> }>;

// More than any field of the form may have.
const MAX_FIELD_LENGTH = 1_048_576;

const formBody = z
  .record(z.string().max(100), z.union([z.string().max(MAX_FIELD_LENGTH), z.array(z.string().max(MAX_FIELD_LENGTH)).max(200)]))
  .nullish()
  .transform((fields) => fields ?? {});

const FORM = { title: 'New droplet', place: 'start', back: '/start' } as const;

/** Adds the page, behind the scope that starts such a saga, and the one that reads: it shows lists of the account and plans. */
export function addStartPage(app: App, { plans, sagas }: Ports): void {
  const definition = sagas.definitions[plans.sagaName];
  if (definition === undefined) return;
  const config = { needs: ['read', rightToStart(sagas.definitions, plans.sagaName)] } as const;
  const schema = { hide: true, body: formBody };

  const showForm = async (reply: FastifyReply, fields: Fields, errors: ReadonlyMap<string, string> = new Map(), key = keyOf(fields)) => {
    const lists = await plans.lists();
    return sendPage(errors.size === 0 ? reply : reply.code(422), { ...FORM, body: renderForm({ fields, errors, key, lists }) });
  };
  /** What the form asks for; the errors are empty if it can be asked for. */
  const read = (fields: Fields) => {
    const { input, errors } = readFields(fields);
    const parsed = definition.input.safeParse(input);
    if (!parsed.success) addProblems(errors, problemsOf(parsed.error.issues));
    return { input, errors };
  };
  const start = async (input: unknown, key: string, principal: Principal | null) =>
    sagas.start({ name: plans.sagaName, input, idempotencyKey: `form:${key}`, requestedBy: actorOf(principal), starter: starterOf(principal) });

  void app.register(async (scope: App) => {
    acceptForms(scope);
    scope.setErrorHandler(sendErrorPage);
    scope.get('/start', { config, schema: { hide: true } }, async (_request, reply) => showForm(reply, {}));
    scope.post('/start/edit', { config, schema }, async (request, reply) => showForm(reply, request.body));

    scope.post('/start', { config, schema }, async (request, reply) => {
      const fields = request.body;
      const { input, errors } = read(fields);
      if (errors.size > 0) return showForm(reply, fields, errors);
      const [plan, lists] = await Promise.all([plans.plan(input, actorOf(request.principal)), plans.lists()]);
      return sendPage(reply, { ...FORM, body: renderPreview({ fields, key: keyOf(fields), lists }, plan) });
    });

    scope.post('/start/confirm', { config, schema }, async (request, reply) => {
      const fields = request.body;
      const { input, errors } = read(fields);
      if (errors.size > 0) return showForm(reply, fields, errors);
      try {
        const { sagaId, firstJob } = await start(input, keyOf(fields), request.principal);
        return reply.redirect(`/sagas/${sagaId}${firstJob === null ? '?told=already' : ''}`, 303);
      } catch (error) {
        if (error instanceof InvalidRequestError) addProblems(errors, error.problems);
        else if (error instanceof StartRefusedError) addProblems(errors, [{ field: 'form', message: error.message }]);
        // A person who sends the form again has already seen the first droplet, so this starts another one.
        else if (error instanceof IdempotencyConflictError) errors.set('form', `This form has started saga ${error.sagaId} already, with other values. Send it again to start another one.`);
        else throw error;
        return showForm(reply, fields, errors, error instanceof IdempotencyConflictError ? randomUUID() : keyOf(fields));
      }
    });
    await Promise.resolve();
  });
}

/** The key of a form that was sent; a new one for a new form. */
function keyOf(fields: Fields): string {
  const key = z.uuid().safeParse(fields['key']);
  return key.success ? key.data : randomUUID();
}
