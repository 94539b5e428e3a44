// Describes the events of a saga.
import { formatDuration } from '../platform/duration.ts';
import type { Json } from '../platform/json.ts';
import { shortTextOf } from '../platform/text.ts';
import type { SagaEvent } from './saga.ts';

/** Describes one event, such as `reserve completed: reserved 123`. */
export function describeEvent(event: Pick<SagaEvent, 'kind' | 'step' | 'attempt'> & { detail: Readonly<Record<string, Json | undefined>> }): string {
  const { detail } = event;
  const step = event.step ?? '';
  const attempt = event.attempt ?? 1;
  const why = typeof detail['message'] === 'string' ? `: ${shortTextOf(detail['message'])}` : '';
  const note = typeof detail['note'] === 'string' ? `: ${shortTextOf(detail['note'])}` : '';
  const inSeconds = typeof detail['delayMs'] === 'number' ? ` in ${formatDuration(detail['delayMs'])}` : '';
  const by = typeof detail['by'] === 'string' ? ` by ${shortTextOf(detail['by'])}` : '';
  switch (event.kind) {
    case 'saga_created':
      return typeof detail['rerunOf'] === 'string' ? `saga created, to run saga ${shortTextOf(detail['rerunOf'])} again` : 'saga created';
    case 'saga_started':
      return 'saga started';
    case 'saga_rejected':
      return `saga rejected${why}`;
    case 'step_recorded':
    case 'compensation_recorded':
      return `${step}${note}`;
    case 'step_postponed':
    case 'compensation_postponed':
      return `${step} waits, next attempt${inSeconds}: ${shortTextOf(detail['reason'])}`;
    case 'step_completed':
      return `${step} completed${note}`;
    case 'step_retried':
      return `${step} failed (attempt ${attempt}), retrying${inSeconds}${why}`;
    case 'step_failed':
      return `${step} failed (attempt ${attempt}), rolling back${why}`;
    case 'step_stuck':
      return `${step} failed for good (attempt ${attempt}), needs attention${why}`;
    case 'compensation_completed':
      return `${step} undone${note}`;
    case 'compensation_retried':
      return `undoing ${step} failed (attempt ${attempt}), retrying${inSeconds}${why}`;
    case 'compensation_stuck':
      return `undoing ${step} failed for good (attempt ${attempt}), needs attention${why}`;
    case 'cancel_requested':
      return `cancelled${by}`;
    case 'retry_requested':
      return `resumed${by}`;
    default:
      return event.kind satisfies never;
  }
}
