// A span for each request about sagas, in the caller's trace if it sends one (`traceparent`). If an SDK's own HTTP
// instrumentation has already created a span, that one is used.
import { ROOT_CONTEXT, SpanKind, SpanStatusCode, context, propagation, trace } from '@opentelemetry/api';
import type { Context } from '@opentelemetry/api';
import type { FastifyRequest } from 'fastify';
import type { App } from './app.ts';

/** Adds the spans. */
export function addTracing(app: App): void {
  const traced = new WeakMap<FastifyRequest, Context>();
  app.addHook('onRequest', async (request) => {
    await Promise.resolve();
    const { url: route = '' } = request.routeOptions;
    if (!isWorthIt(request.method, route) || trace.getActiveSpan() !== undefined) return;
    const parent = propagation.extract(ROOT_CONTEXT, request.headers);
    const attributes = { 'http.request.method': request.method, 'http.route': route };
    const span = trace.getTracer('arcadia-cloud').startSpan(`${request.method} ${route}`, { kind: SpanKind.SERVER, attributes }, parent);
    traced.set(request, trace.setSpan(parent, span));
  });
  // Only at this point: reading the body resumes from socket events, which lose the request's context.
  app.addHook('preValidation', (request, _reply, done) => context.with(traced.get(request) ?? context.active(), done));
  app.addHook('onResponse', async (request, reply) => {
    await Promise.resolve();
    const span = trace.getSpan(traced.get(request) ?? ROOT_CONTEXT);
    if (span === undefined) return;
    span.setAttribute('http.response.status_code', reply.statusCode);
    if (reply.statusCode >= 500) span.setStatus({ code: SpanStatusCode.ERROR });
    span.end();
  });
}

function isWorthIt(method: string, route: string): boolean {
  return route.startsWith('/v1/') || (method !== 'GET' && method !== 'HEAD' && route !== '');
}
