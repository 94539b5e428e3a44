// Traces, through OpenTelemetry's API alone: whoever wants them registers an SDK of their own (`node --import`), and
// without one all of this does nothing. Span names and attributes follow OpenTelemetry's semantic conventions
// (https://opentelemetry.io/docs/specs/semconv/); none holds an input, and of an error only its name.
import type { Attributes, Span } from '@opentelemetry/api';
import { ROOT_CONTEXT, SpanKind, SpanStatusCode, TraceFlags, context, isSpanContextValid, trace } from '@opentelemetry/api';
import type { Io } from './io.ts';

// Asked for each time: this may be loaded before the SDK is registered.
const tracer = () => trace.getTracer('arcadia-cloud');

/** Does some work under a span of its own, which ends with it. */
export async function inSpan<T>(name: string, options: { kind?: SpanKind; attributes?: Attributes }, work: (span: Span) => Promise<T>): Promise<T> {
  return tracer().startActiveSpan(name, options, async (span) => {
    try {
      return await work(span);
    } catch (error) {
      markFailed(span, error instanceof Error ? error.name : 'Error');
      throw error;
    } finally {
      span.end();
    }
  });
}

/** An Io whose SQL statements and HTTP requests are spans, where they belong to a trace. The queue's calls are BullMQ's to trace. */
export function tracedIo(io: Io): Io {
  return (kind, name, operation) => {
    if (kind === 'queue' || !isInTrace()) return io(kind, name, operation);
    const attributes = kind === 'sql' ? sqlAttributes(name) : httpAttributes(name);
    return inSpan(name, { kind: SpanKind.CLIENT, attributes }, () => io(kind, name, operation));
  };
}

/** Whether what is done now belongs to a trace. */
export function isInTrace(): boolean {
  const origin = trace.getSpanContext(context.active());
  return origin !== undefined && isSpanContextValid(origin);
}

/** Adds to the current span, if there is one. */
export function annotate(attributes: Attributes, failure: string | null = null): void {
  const span = trace.getActiveSpan();
  if (span === undefined) return;
  span.setAttributes(attributes);
  if (failure !== null) markFailed(span, failure);
}

/** The place of the current span as W3C Trace Context writes it (https://www.w3.org/TR/trace-context/); null outside of a trace. */
export function currentTraceparent(): string | null {
  const origin = trace.getSpanContext(context.active());
  if (origin === undefined || !isSpanContextValid(origin)) return null;
  return `00-${origin.traceId}-${origin.spanId}-0${(origin.traceFlags & TraceFlags.SAMPLED).toString(16)}`;
}

/** Does some work in the trace that a `traceparent` names; where it is null, or no such thing, in that of the moment. */
export function inTraceOf<T>(traceparent: string | null, work: () => T): T {
  const [, traceId = '', spanId = '', flags = '0'] = /^00-([0-9a-f]{32})-([0-9a-f]{16})-0([01])$/.exec(traceparent ?? '') ?? [];
  const origin = { traceId, spanId, traceFlags: Number(flags), isRemote: true };
  if (!isSpanContextValid(origin) || trace.getSpanContext(context.active())?.traceId === traceId) return work();
  return context.with(trace.setSpanContext(ROOT_CONTEXT, origin), work);
}

function markFailed(span: Span, type: string): void {
  span.setAttribute('error.type', type);
  span.setStatus({ code: SpanStatusCode.ERROR });
}

function sqlAttributes(name: string): Attributes {
  return { 'db.system.name': 'postgresql', 'db.query.summary': name };
}

function httpAttributes(name: string): Attributes {
  const [method = '', template = ''] = name.split(' ', 2);
  return { 'http.request.method': method, 'url.template': template };
}
