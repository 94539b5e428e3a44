// Traces through OpenTelemetry's API only. To get traces, register an SDK (`node --import`); without one, nothing here
// has an effect. Span names and attributes follow OpenTelemetry's semantic conventions
// (https://opentelemetry.io/docs/specs/semconv/). No span contains an input, and of an error only its name.
import { createRequire } from 'node:module';
import type * as OpenTelemetry from '@opentelemetry/api';
import type { Attributes, Span, SpanKind } from '@opentelemetry/api';
import type { Io } from './io.ts';

// Where the API keeps what an SDK registers with it.
const REGISTERED = Symbol.for('opentelemetry.js.api.1');

let loaded: typeof OpenTelemetry | null | undefined;

/**
 * The API; null as long as no SDK is registered, which may happen later than this module is loaded. Until then nothing is
 * traced, and the API's forty files are not loaded.
 */
function registeredApi(): typeof OpenTelemetry | null {
  if (loaded === undefined && REGISTERED in globalThis) loaded = loadApi();
  return loaded ?? null;
}

function loadApi(): typeof OpenTelemetry | null {
  try {
    // No `await import`: a module with top-level await cannot be loaded by `require`.
    const api: typeof OpenTelemetry = createRequire(import.meta.url)('@opentelemetry/api');
    return api;
  } catch {
    return null;
  }
}

/** The part of a span that the work under it may use. */
type Attributed = Readonly<{ setAttributes(attributes: Attributes): unknown }>;

const noSpan: Attributed = { setAttributes: () => undefined };

/** Runs work in a new span, which ends with it. */
export async function inSpan<T>(name: string, options: { kind?: SpanKind; attributes?: Attributes }, work: (span: Attributed) => Promise<T>): Promise<T> {
  const api = registeredApi();
  if (api === null) return work(noSpan);
  const { SpanStatusCode, trace } = api;
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

/** Wraps an Io so that SQL statements and HTTP requests inside a trace become spans. BullMQ traces the queue calls. */
export function tracedIo(io: Io): Io {
  return (kind, name, operation) => {
    const api = registeredApi();
    if (api === null || kind === 'queue' || !isInTrace()) return io(kind, name, operation);
    const attributes = kind === 'sql' ? sqlAttributes(name) : httpAttributes(name);
    return inSpan(name, { kind: api.SpanKind.CLIENT, attributes }, () => io(kind, name, operation));
  };
}

/** Whether the current code runs inside a trace. */
export function isInTrace(): boolean {
  return currentSpanContext() !== null;
}

/**
 * Adds attributes to the current span, if there is one.
 *
 * @param attributes called only if there is a span
 */
export function annotate(attributes: () => Attributes, failure: string | null = null): void {
  const api = registeredApi();
  const span = api?.trace.getActiveSpan();
  if (api === null || span === undefined) return;
  span.setAttributes(attributes());
  if (failure !== null) markFailed(span, api.SpanStatusCode.ERROR, failure);
}

/** Returns the current span in W3C Trace Context format (https://www.w3.org/TR/trace-context/); null outside a trace. */
export function currentTraceparent(): string | null {
  const origin = currentSpanContext();
  return origin === null ? null : `00-${origin.traceId}-${origin.spanId}-0${(origin.traceFlags & SAMPLED).toString(16)}`;
}

/** Runs work in the trace named by a `traceparent`. If that is null or invalid, uses the current trace. */
export function inTraceOf<T>(traceparent: string | null, work: () => T): T {
  const api = registeredApi();
  if (api === null || traceparent === null) return work();
  const { ROOT_CONTEXT, context, isSpanContextValid, trace } = api;
  const [, traceId = '', spanId = '', flags = '0'] = /^00-([0-9a-f]{32})-([0-9a-f]{16})-0([01])$/.exec(traceparent) ?? [];
  const origin = { traceId, spanId, traceFlags: Number(flags), isRemote: true };
  if (!isSpanContextValid(origin) || trace.getSpanContext(context.active())?.traceId === traceId) return work();
  return context.with(trace.setSpanContext(ROOT_CONTEXT, origin), work);
}

// The only flag in version 00 of the W3C format.
const SAMPLED = 1;

/** Returns the current trace and span ids under the names of OpenTelemetry's logs; empty outside a trace. */
export function traceFields(): Readonly<{ trace_id?: string; span_id?: string }> {
  const origin = currentSpanContext();
  return origin === null ? {} : { trace_id: origin.traceId, span_id: origin.spanId };
}

function currentSpanContext(): OpenTelemetry.SpanContext | null {
  const api = registeredApi();
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
