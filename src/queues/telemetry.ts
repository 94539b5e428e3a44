// BullMQ's part of a trace: adding a job and processing it. The job's options carry the trace from one to the other. It
// uses bullmq-otel, so that it understands producers in other programs that use it.
import { INVALID_SPAN_CONTEXT, ProxyTracerProvider, SpanKind, context, isSpanContextValid, trace } from '@opentelemetry/api';
import type { Context } from '@opentelemetry/api';
import type { Telemetry } from 'bullmq';
import { BullMQOTelSpan, BullMQOtel } from 'bullmq-otel';

const noSpan = new BullMQOTelSpan(trace.wrapSpanContext(INVALID_SPAN_CONTEXT));

/**
 * The option that makes BullMQ's queues and workers trace. Omitted if no OpenTelemetry SDK is registered, because every
 * job would pay for it.
 */
export function traced(): { telemetry?: Telemetry<Context> } {
  return isSdkRegistered() ? { telemetry: createTelemetry() } : {};
}

/** Once an SDK is registered, the API's provider delegates to it. */
function isSdkRegistered(): boolean {
  const provider = trace.getTracerProvider();
  return !(provider instanceof ProxyTracerProvider) || provider.getDelegateTracer('arcadia-cloud') !== undefined;
}

function createTelemetry(): Telemetry<Context> {
  const { tracer, contextManager } = new BullMQOtel({ tracerName: 'arcadia-cloud' });
  return {
    tracer: {
      // BullMQ also traces its idle loops, every few seconds, each iteration as a separate trace.
      startSpan: (name, options, parent) => (isWorthIt(options?.kind, parent) ? tracer.startSpan(name, options, parent) : noSpan),
    },
    contextManager: {
      with: (ctx, work) => contextManager.with(ctx, work),
      active: () => contextManager.active(),
      // Any producer may have written the metadata. An unreadable trace must not prevent a job from running.
      fromMetadata: (active, metadata) => {
        try {
          return contextManager.fromMetadata(active, metadata);
        } catch {
          return active;
        }
      },
      // Empty if there is no trace, so that nothing is added to the jobs.
      getMetadata: (ctx) => (hasTrace(ctx) ? contextManager.getMetadata(ctx) : ''),
    },
  };
}

function isWorthIt(kind: number | undefined, parent: Context | undefined): boolean {
  return kind === SpanKind.PRODUCER || kind === SpanKind.CONSUMER || hasTrace(parent ?? context.active());
}

function hasTrace(ctx: Context): boolean {
  const origin = trace.getSpanContext(ctx);
  return origin !== undefined && isSpanContextValid(origin);
}
