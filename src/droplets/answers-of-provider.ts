// Remembers whether DigitalOcean answers this worker at all, so that an outage is told of. What it refuses counts as an answer.
import type { ObservedAnswer } from '../do/observed-answer.ts';
import type { ProviderAnswers } from '../saga/extension.ts';

/** Starts remembering. */
export function rememberAnswers(nowMs: () => number = () => performance.now()) {
  let failingSince: number | null = null;
  let answeredAt: number | null = null;
  return {
    onAnswer: ({ status }: Pick<ObservedAnswer, 'status'>): void => {
      if (status === null || status >= 500) {
        failingSince ??= nowMs();
        return;
      }
      failingSince = null;
      answeredAt = nowMs();
    },
    answers: (): ProviderAnswers => ({ failingForMs: failingSince === null ? null : nowMs() - failingSince, answeredMsAgo: answeredAt === null ? null : nowMs() - answeredAt }),
  };
}
