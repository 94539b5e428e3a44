// BullMQ's part of a trace: adding a job and processing it, with the trace carried in the job's options from one to the
// other. By bullmq-otel, so that producers of other programs that use it are understood.
import { INVALID_SPAN_CONTEXT, ProxyTracerProvider, SpanKind, context, isSpanContextValid, trace } from '@opentelemetry/api';
import type { Context } from '@opentelemetry/api';
import type { Telemetry } from 'bullmq';
import { BullMQOTelSpan, BullMQOtel } from 'bullmq-otel';

const noSpan = new BullMQOTelSpan(trace.wrapSpanContext(INVALID_SPAN_CONTEXT));

/** The option with which BullMQ's queues and workers trace; none where no OpenTelemetry SDK is registered: every job would pay for it. */
export function traced(): { telemetry?: Telemetry<Context> } {
  return isSdkRegistered() ? { telemetry: createTelemetry() } : {};
}

/** An SDK stands behind the provider that the API hands out, once it is registered. */
function isSdkRegistered(): boolean {
  const provider = trace.getTracerProvider();
  return !(provider instanceof ProxyTracerProvider) || provider.getDelegateTracer('arcadia-cloud') !== undefined;
}

function createTelemetry(): Telemetry<Context> {
  const { tracer, contextManager } = new BullMQOtel({ tracerName: 'arcadia-cloud' });
  return {
    tracer: {
      // BullMQ traces its idle loops too, every few seconds, each look as a trace of its own.
      startSpan: (name, options, parent) => (isWorthIt(options?.kind, parent) ? tracer.startSpan(name, options, parent) : noSpan),
    },
    contextManager: {
      with: (ctx, work) => contextManager.with(ctx, work),
      active: () => contextManager.active(),
      // What stands there may be anybody's: a trace that can't be read must not keep a job from being run.
      fromMetadata: (active, metadata) => {
        try {
          return contextManager.fromMetadata(active, metadata);
        } catch {
          return active;
        }
      },
      // Empty, so that nothing is put into the jobs, where there is nothing to carry.
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
