// Bull Board at /queues: read access, and for operators pause, retry and promote. Their actions are audited before they
// are applied.
import { createBullBoard } from '@bull-board/api';
import { FastifyAdapter } from '@bull-board/fastify';
import type { FastifyReply, FastifyRequest } from 'fastify';
import { z } from 'zod';
import { withDeadline } from '../platform/deadline.ts';
import { redactedFieldIn } from '../saga/redact.ts';
import type { App } from './app.ts';
import { actorOf, may, requireRight, rightToStart } from './auth.ts';
import { sendQueuesAway } from './pages/queues-away.ts';
import type { WebPorts } from './ports.ts';
import { Problem } from './problems.ts';

const BASE_PATH = '/queues';

// As long as a page waits for what it knows of the fleet.
const ANSWER_WITHIN_MS = 1_000;

type Ports = Pick<WebPorts, 'queues' | 'audit' | 'sagas'>;

// Bull Board uses inline styles. Its scripts are files. External fonts are blocked.
const CONTENT_SECURITY_POLICY = [
  "default-src 'none'",
  "script-src 'self'",
  "style-src 'self' 'unsafe-inline'",
  "img-src 'self' data:",
  "font-src 'self' data:",
  "connect-src 'self'",
  "base-uri 'self'",
  "form-action 'self'",
  "frame-ancestors 'none'",
].join('; ');

// The policy blocks them. If the page still requested them, every browser console would show an error.
const FONTS_FROM_ELSEWHERE = /<link href="https:\/\/fonts\.googleapis\.com\/[^>]*>/;

/** Adds the dashboard. */
export function addBoard(app: App, ports: Ports): void {
  const adapter = new FastifyAdapter();
  adapter.setBasePath(`${app.basePath}${BASE_PATH}`);
  createBullBoard({
    queues: [...ports.queues.adapters],
    serverAdapter: adapter,
    options: { uiConfig: { boardTitle: 'arcadia-cloud', miscLinks: [{ text: 'sagas', url: `${app.basePath}/sagas` }, { text: 'API', url: `${app.basePath}/docs` }], hideDocsLink: true, showMetrics: true } },
  });
  // Bull Board's own error handler would expose the error. Rethrown, it becomes a problem document like any other.
  adapter.setErrorHandler((error) => {
    throw error;
  });
  void app.register(async (scope) => {
    scope.addHook('onRequest', async (_request, reply) => {
      reply.header('content-security-policy', CONTENT_SECURITY_POLICY);
      await Promise.resolve();
    });
    scope.addHook('onSend', async (_request, _reply, payload) => Promise.resolve(typeof payload === 'string' ? payload.replace(FONTS_FROM_ELSEWHERE, '') : payload));
    scope.addHook('preHandler', async (request, reply) => requireQueues(request, reply, ports.queues));
    scope.addHook('preHandler', async (request) => {
      if (request.method === 'GET' || request.method === 'HEAD') return;
      refuseRedacted(request);
      await requireRights(request, ports);
      nameWhoAsks(request, ports.queues);
      await ports.audit.record(auditEntryOf(request));
    });
    scope.addHook('preSerialization', async (request, _reply, payload) => Promise.resolve(shownTo(request, payload, ports.sagas.surface)));
    await scope.register(adapter.registerPlugin(), { prefix: BASE_PATH });
  });
}

const API = `${BASE_PATH}/api/`;
const FILES = `${BASE_PATH}/static/`;

/**
 * Answers in the board's place while the queue store does not answer: the board would wait for it, or show no queues.
 *
 * @throws {Problem} to the board's own requests
 */
async function requireQueues(request: FastifyRequest, reply: FastifyReply, queues: Pick<Ports['queues'], 'paused'>): Promise<FastifyReply | undefined> {
  const route = request.routeOptions.url ?? '';
  if (route.startsWith(FILES)) return undefined;
  try {
    await withDeadline(ANSWER_WITHIN_MS, queues.paused(), () => new Error('the queues did not answer in time'));
    return undefined;
  } catch {
    const problem = new Problem('unavailable', 'the queue store does not answer; try again', { retryAfterSeconds: 2 });
    if (route.startsWith(API)) throw problem;
    return sendQueuesAway(problem, reply);
  }
}

// The routes that create a job or change its request.
const ADD = `${BASE_PATH}/api/queues/:queueName/add`;
const EDIT = `${BASE_PATH}/api/queues/:queueName/:jobId/update-data`;
const SCHEDULER = `${BASE_PATH}/api/queues/:queueName/job-schedulers/:schedulerId`;
const RUN = `${SCHEDULER}/run`;

const target = z.object({ queueName: z.string(), jobId: z.string().optional() });
const added = z.looseObject({ name: z.string(), data: z.looseObject({}) });
const edited = z.looseObject({ jobData: z.looseObject({}) });

/**
 * Adding or changing a job starts what it requests, so it requires the same scope as starting that over HTTP.
 *
 * @throws {Problem}
 */
async function requireRights(request: FastifyRequest, { queues, sagas }: Ports): Promise<void> {
  const route = request.routeOptions.url;
  if (route === undefined || ![ADD, EDIT, RUN, SCHEDULER].includes(route)) return;
  const { queueName, jobId } = target.parse(request.params);
  if (queueName !== queues.intake) {
    requireRight(request.principal, 'start');
    return;
  }
  // A scheduler may add any request, repeatedly.
  if (route === RUN || route === SCHEDULER) {
    requireRight(request.principal, 'destroy');
    return;
  }
  const name = jobId === undefined ? added.safeParse(request.body).data?.name : await nameOfJob(queues, queueName, jobId);
  requireRight(request.principal, rightToStart(sagas.definitions, name ?? ''));
}

async function nameOfJob({ adapters }: Ports['queues'], queueName: string, jobId: string): Promise<string | undefined> {
  const job = await adapters.find((adapter) => adapter.getName() === queueName)?.getJob(jobId);
  return job?.toJSON().name;
}

/** Sets the requester of a job in the queue `sagas` to the person who added it. */
function nameWhoAsks(request: FastifyRequest, { intake }: Pick<Ports['queues'], 'intake'>): void {
  const { queueName } = target.safeParse(request.params).data ?? {};
  if (queueName !== intake) return;
  const requestedBy = actorOf(request.principal);
  if (request.routeOptions.url === ADD) {
    const body = added.safeParse(request.body).data;
    if (body !== undefined) request.body = { ...body, data: { ...body.data, requestedBy } };
  } else if (request.routeOptions.url === EDIT) {
    const body = edited.safeParse(request.body).data;
    if (body !== undefined) request.body = { ...body, jobData: { ...body.jobData, requestedBy } };
  }
}

/** Saving a job as shown would replace the secret by the redaction mark. */
function refuseRedacted(request: FastifyRequest): void {
  const field = redactedFieldIn(request.body);
  if (field === null) return;
  const message = 'is not shown here, so that it cannot be written from here';
  throw new Problem('invalid_input', `${field}: ${message}`, { errors: [{ field, message }] });
}

function auditEntryOf(request: FastifyRequest) {
  const path = request.url.split('?', 1)[0] ?? '';
  // The id of a step's job starts with its saga's id.
  const sagaId = /\/([0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12})_\d+(?:\/|$)/.exec(path)?.[1] ?? null;
  return { actor: actorOf(request.principal), action: `dashboard:${request.method} ${request.routeOptions.url ?? ''}`, sagaId, detail: { path } };
}

/** Removes secrets, and removes the buttons for callers with read access only. */
function shownTo(request: FastifyRequest, payload: unknown, { redact }: Ports['sagas']['surface']): unknown {
  const shown = redact.value(payload);
  if (may(request.principal, 'operate') || typeof shown !== 'object' || shown === null || !('queues' in shown) || !Array.isArray(shown.queues)) return shown;
  const queues = shown.queues.map((queue: unknown) =>
    typeof queue === 'object' ? { ...queue, readOnlyMode: true, allowRetries: false, allowCompletedRetries: false } : queue,
  );
  return { ...shown, queues };
}
