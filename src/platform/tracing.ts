// Traces, through OpenTelemetry's API alone: whoever wants them registers an SDK of their own (`node --import`), and
// without one all of this does nothing. Span names and attributes follow OpenTelemetry's semantic conventions
// (https://opentelemetry.io/docs/specs/semconv/); none holds an input, and of an error only its name.
import { createRequire } from 'node:module';
import type * as OpenTelemetry from '@opentelemetry/api';
import type { Attributes, Span, SpanKind } from '@opentelemetry/api';
import type { Io } from './io.ts';

// An SDK brings the API along. Where it is not installed, there is none, and nothing is traced.
const api = loadApi();

function loadApi(): typeof OpenTelemetry | null {
  try {
    // Not by `await import`: a module that awaits as it loads can't be loaded by `require`.
    const loaded: typeof OpenTelemetry = createRequire(import.meta.url)('@opentelemetry/api');
    return loaded;
  } catch {
    return null;
  }
}

/** What a span is told by the work under it. */
type Attributed = Readonly<{ setAttributes(attributes: Attributes): unknown }>;

const noSpan: Attributed = { setAttributes: () => undefined };

/** Does some work under a span of its own, which ends with it. */
export async function inSpan<T>(name: string, options: { kind?: SpanKind; attributes?: Attributes }, work: (span: Attributed) => Promise<T>): Promise<T> {
  if (api === null) return work(noSpan);
  const { SpanStatusCode, trace } = api;
  // Asked for each time: this may be loaded before the SDK is registered.
  return trace.getTracer('arcadia-cloud').startActiveSpan(name, options, async (span) => {
    try {
      return await work(span);
    } catch (error) {
      markFailed(span, SpanStatusCode.ERROR, error instanceof Error ? error.name : 'Error');
      throw error;
    } finally {
      span.end();
    }
  });
}

/** An Io whose SQL statements and HTTP requests are spans, where they belong to a trace. The queue's calls are BullMQ's to trace. */
export function tracedIo(io: Io): Io {
  return (kind, name, operation) => {
    if (api === null || kind === 'queue' || !isInTrace()) return io(kind, name, operation);
    const attributes = kind === 'sql' ? sqlAttributes(name) : httpAttributes(name);
    return inSpan(name, { kind: api.SpanKind.CLIENT, attributes }, () => io(kind, name, operation));
  };
}

/** Whether what is done now belongs to a trace. */
export function isInTrace(): boolean {
  return currentSpanContext() !== null;
}

/** Adds to the current span, if there is one. */
export function annotate(attributes: Attributes, failure: string | null = null): void {
  const span = api?.trace.getActiveSpan();
  if (api === null || span === undefined) return;
  span.setAttributes(attributes);
  if (failure !== null) markFailed(span, api.SpanStatusCode.ERROR, failure);
}

/** The place of the current span as W3C Trace Context writes it (https://www.w3.org/TR/trace-context/); null outside of a trace. */
export function currentTraceparent(): string | null {
  const origin = currentSpanContext();
  return origin === null ? null : `00-${origin.traceId}-${origin.spanId}-0${(origin.traceFlags & SAMPLED).toString(16)}`;
}

/** Does some work in the trace that a `traceparent` names; where it is null, or no such thing, in that of the moment. */
export function inTraceOf<T>(traceparent: string | null, work: () => T): T {
  if (api === null) return work();
  const { ROOT_CONTEXT, context, isSpanContextValid, trace } = api;
  const [, traceId = '', spanId = '', flags = '0'] = /^00-([0-9a-f]{32})-([0-9a-f]{16})-0([01])$/.exec(traceparent ?? '') ?? [];
  const origin = { traceId, spanId, traceFlags: Number(flags), isRemote: true };
  if (!isSpanContextValid(origin) || trace.getSpanContext(context.active())?.traceId === traceId) return work();
  return context.with(trace.setSpanContext(ROOT_CONTEXT, origin), work);
}

// The only flag that the W3C's version 00 has.
const SAMPLED = 1;

function currentSpanContext(): OpenTelemetry.SpanContext | null {
  if (api === null) return null;
  const origin = api.trace.getSpanContext(api.context.active());
  return origin !== undefined && api.isSpanContextValid(origin) ? origin : null;
}

function markFailed(span: Span, code: OpenTelemetry.SpanStatusCode, type: string): void {
  span.setAttribute('error.type', type);
  span.setStatus({ code });
}

function sqlAttributes(name: string): Attributes {
  return { 'db.system.name': 'postgresql', 'db.query.summary': name };
}

function httpAttributes(name: string): Attributes {
  const [method = '', template = ''] = name.split(' ', 2);
  return { 'http.request.method': method, 'url.template': template };
}
