// A span for each request that asks something of a saga, in the caller's trace where it names one (`traceparent`).
// Where an SDK's own instrumentation of HTTP has made one already, that is left to it.
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
  // Only here, as what reads the body comes back by events of the socket, which know nothing of the request's context.
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
