// The web application: what guards it, and what it consists of. Everything it knows comes through the ports.
import helmet from '@fastify/helmet';
import rateLimit from '@fastify/rate-limit';
import swagger from '@fastify/swagger';
import { LogController, fastify } from 'fastify';
import type { FastifyBaseLogger } from 'fastify';
import type { ZodTypeProvider } from 'fastify-type-provider-zod';
import { validatorCompiler } from 'fastify-type-provider-zod';
import { publicStatusBody, statusBody } from '../fleet/report.ts';
import type { Log } from '../platform/log.ts';
import { excessOf } from '../saga/input-limits.ts';
import { addAuditRoute } from './api/audit.ts';
import { addBulkRoutes } from './api/bulk.ts';
import { describeRoutes } from './api/document.ts';
import { addInventoryRoutes } from './api/inventory.ts';
import { addOutcomeRoutes } from './api/outcomes.ts';
import { addPlanRoute } from './api/plans.ts';
import { addResourceRoutes } from './api/resources.ts';
import { addReadyRoute } from './api/ready.ts';
import { addSagaRoutes } from './api/sagas.ts';
import type { App } from './app.ts';
import type { AuthOptions } from './auth.ts';
import { actorOf, forbidCaching, guard, may } from './auth.ts';
import { addBasePath, withoutBasePath } from './base-path.ts';
import { addBoard } from './board.ts';
import { answerClientError } from './client-error.ts';
import { createEventFeed } from '../saga/event-feed.ts';
import { createEventStreams } from './event-streams.ts';
import type { FleetWatchOptions } from './fleet-status.ts';
import { watchFleet } from './fleet-status.ts';
import { addJsonParser } from './json-body.ts';
import { createMetrics } from './metrics.ts';
import { addApiPages } from './pages/api-page.ts';
import { addAuditPage } from './pages/audit-page.ts';
import { addAssets } from './pages/assets.ts';
import { addDropletPages } from './pages/droplet-pages.ts';
import { addLeasePages } from './pages/lease-pages.ts';
import { sendErrorPage } from './pages/error-page.ts';
import { addFleetPage } from './pages/fleet-page.ts';
import { addSagaPages } from './pages/saga-pages.ts';
import { addStartPage } from './pages/start-page.ts';
import type { WebPorts } from './ports.ts';
import { Problem, answerWithProblems, sendError } from './problems.ts';
import { checkReadiness } from './readiness.ts';
import { addTracing } from './tracing.ts';

export type WebOptions = Readonly<{
  auth: AuthOptions;
  fleet: FleetWatchOptions;
  /** Path under which a proxy serves it; empty: at the root. */
  basePath: string;
  /** Addresses and CIDRs of proxies whose word for the client's address, host and protocol is believed. */
  trustedProxies: readonly string[];
  log: Log;
}>;

// 64 KiB of user data can become six times as much when each character is written as an escape.
const BODY_LIMIT_BYTES = 512 * 1024;

/** Builds the application; it does not listen yet. */
export async function buildWeb(ports: WebPorts, options: WebOptions): Promise<App> {
  const { log } = options;
  const logger: FastifyBaseLogger = log;
  const app: App = fastify({
    loggerInstance: logger,
    // One line for each request that matters, below; and no headers, which carry credentials.
    logController: new LogController({ disableRequestLogging: true }),
    bodyLimit: BODY_LIMIT_BYTES,
    // Nobody else's word for who asks: the limit of failures would be anybody's to get around.
    trustProxy: options.trustedProxies.length === 0 ? false : [...options.trustedProxies],
    rewriteUrl: withoutBasePath(options.basePath),
    requestTimeout: 30_000,
    // A path that cannot be read leads to no route, and so to no hook and no error handler of one.
    clientErrorHandler: (error, socket) => answerClientError(error, socket, log),
    frameworkErrors: (error, request, reply) => void sendError(error, request, reply),
  }).withTypeProvider<ZodTypeProvider>();
  app.setValidatorCompiler(validatorCompiler);
  app.setSerializerCompiler(() => JSON.stringify);
  // What a form of another site could send is not read at all.
  app.removeContentTypeParser('text/plain');
  addJsonParser(app);
  answerWithProblems(app, sendErrorPage);
  addBasePath(app, options.basePath);

  const { redact } = ports.sagas.surface;
  const fleet = watchFleet(ports, options.fleet);
  app.decorate('fleet', fleet);
  app.decorate('hasDroplets', ports.inventory !== undefined);
  const metrics = createMetrics(ports, { fleet, limits: options.fleet }, log);
  const streams = createEventStreams(createEventFeed(ports.sagas.progress, log), redact);

  await app.register(rateLimit, { global: false });
  await app.register(helmet, {
    // With none at all, browsers hide the origin of our own forms from us too.
    referrerPolicy: { policy: 'same-origin' },
    contentSecurityPolicy: {
      useDefaults: false,
      directives: {
        defaultSrc: ["'none'"],
        scriptSrc: ["'self'"],
        styleSrc: ["'self'"],
        imgSrc: ["'self'", 'data:'],
        connectSrc: ["'self'"],
        baseUri: ["'none'"],
        formAction: ["'self'"],
        frameAncestors: ["'none'"],
      },
    },
  });
  addTracing(app);
  app.addHook('preValidation', async (request) => {
    const excess = excessOf(request.body);
    if (excess !== null) throw new Problem('invalid_request', `body: ${excess}`, { errors: [{ field: 'body', message: excess }] });
    await Promise.resolve();
  });
  app.addHook('onSend', forbidCaching);
  guard(app, options.auth, { log, countRefused: metrics.countRefusedCredentials });
  app.addHook('onResponse', async (request, reply) => {
    const route = request.routeOptions.url ?? 'none';
    metrics.countRequest({ method: request.method, route, status: String(reply.statusCode) });
    const level = request.method === 'GET' || request.method === 'HEAD' ? 'debug' : 'info';
    log[level]({ method: request.method, route, status: reply.statusCode, actor: actorOf(request.principal), tookMs: Math.round(reply.elapsedTime) }, 'request answered');
    await Promise.resolve();
  });
  await app.register(swagger, {
    openapi: {
      openapi: '3.1.0',
      info: {
        title: 'arcadia-cloud',
        version: '1',
        license: { name: 'MIT', identifier: 'MIT' },
        description: 'Sagas: durable, retried, rolled back when they fail. Errors are problem documents (RFC 9457); changes are idempotent by Idempotency-Key, or by what they ask for.',
      },
      servers: [{ url: options.basePath === '' ? '/' : options.basePath }],
      components: { securitySchemes: { token: { type: 'http', scheme: 'bearer' }, person: { type: 'http', scheme: 'basic' } } },
      security: [{ token: [] }, { person: [] }],
      tags: [
        { name: 'sagas', description: 'Start, find, follow, cancel and retry sagas' },
        { name: 'bulk', description: 'Cancel, retry and run again many sagas at once' },
        { name: 'audit', description: 'Who did what, and when' },
        { name: 'outcomes', description: 'Who is told how sagas end' },
        ...(ports.resources === undefined ? [] : [{ name: 'resources', description: 'Droplets that the inventory knows' }]),
        ...(ports.inventory === undefined ? [] : [{ name: 'inventory', description: 'Drift, orphans, leases and protection' }]),
      ],
    },
    ...describeRoutes({ hasDroplets: ports.inventory !== undefined }),
  });

  app.get('/healthz', { config: { needs: 'nothing' }, schema: { hide: true } }, () => ({ status: 'ok' }));
  app.get('/readyz', { config: { needs: 'nothing' }, schema: { hide: true } }, async (_request, reply) => {
    const checks = await checkReadiness(ports);
    const isReady = checks.every(({ ok }) => ok);
    return reply.code(isReady ? 200 : 503).send({ status: isReady ? 'ready' : 'not ready', checks });
  });
  // It is a report: it is answered 200 whatever it says, so that nobody takes a process out of use for the state of the fleet.
  app.get('/statusz', { config: { needs: 'nothing', tellsMore: true }, schema: { hide: true } }, async (request) => {
    const status = await fleet.read();
    return may(request.principal, 'read') ? statusBody(status) : publicStatusBody(status);
  });
  app.get('/metrics', { schema: { hide: true } }, async (_request, reply) => reply.type('text/plain; version=0.0.4; charset=utf-8').send(await metrics.expose()));
  app.get('/', { schema: { hide: true } }, async (_request, reply) => reply.redirect('/sagas'));

  addSagaRoutes(app, { sagas: ports.sagas, streams });
  addBulkRoutes(app, ports.sagas);
  if (ports.resources !== undefined) addResourceRoutes(app, ports.resources, redact);
  if (ports.inventory !== undefined) addInventoryRoutes(app, ports.inventory, redact);
  if (ports.inventory !== undefined) addReadyRoute(app, ports.inventory);
  if (ports.plans !== undefined) addPlanRoute(app, ports.plans, ports.sagas.definitions);
  addOutcomeRoutes(app, ports.outcomes);
  addAuditRoute(app, ports.audit, redact);
  addAssets(app);
  addApiPages(app);
  addSagaPages(app, ports);
  if (ports.plans !== undefined) addStartPage(app, { plans: ports.plans, sagas: ports.sagas });
  if (ports.inventory !== undefined) addDropletPages(app, { ...ports, inventory: ports.inventory }, { syncIntervalMs: options.fleet.inventorySyncIntervalMs });
  if (ports.inventory !== undefined) addLeasePages(app, ports.inventory);
  addFleetPage(app, ports);
  addAuditPage(app, ports);
  addBoard(app, ports);

  // Streams would hold the process for as long as their sagas last.
  app.addHook('preClose', async () => {
    fleet.close();
    streams.closeAll();
    await Promise.resolve();
  });
  await app.ready();
  return app;
}
