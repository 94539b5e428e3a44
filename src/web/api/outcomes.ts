// /v1/outcomes: who is told how sagas end, and the resumption of a subscription that was paused.
import { z } from 'zod';
import type { App } from '../app.ts';
import { actorOf } from '../auth.ts';
import type { OutcomesPort } from '../ports.ts';
import { Problem } from '../problems.ts';
import { answers } from './answers.ts';
import { answerTime } from './fields.ts';

/** Path of one subscription of outcomes. */
export const subscriptionParams = z.object({ subscription: z.string().regex(/^[a-z]{1,50}$/, 'expected the name of a subscription, such as webhook').meta({ examples: ['webhook'] }) });

const subscriptionAnswer = z.object({
  name: z.string(),
  target: z.string().describe('where outcomes go'),
  waiting: z.int().describe('outcomes that are not delivered yet'),
  waitingIsExact: z.boolean().describe('false: at least that many wait'),
  failingSince: answerTime.nullable(),
  lastError: z.string().nullable(),
  pausedAt: answerTime.nullable(),
  pausedReason: z.string().nullable(),
});

export const subscriptionsAnswer = z.object({ subscriptions: z.array(subscriptionAnswer) });
export const resumedAnswer = z.object({ subscription: z.string(), wasPaused: z.boolean() });

/** Adds the routes. */
export function addOutcomeRoutes(app: App, outcomes: OutcomesPort): void {
  app.get('/v1/outcomes', { schema: { operationId: 'listOutcomeSubscriptions', summary: 'List who is told of outcomes', tags: ['outcomes'], response: answers(200, subscriptionsAnswer) } }, async () => ({
    subscriptions: await outcomes.list(),
  }));

  app.post(
    '/v1/outcomes/:subscription/resume',
    {
      config: { needs: 'operate' },
      schema: {
        operationId: 'resumeOutcomes',
        summary: 'Resume a paused subscription',
        description: 'What waits is due now, with all its attempts again.',
        tags: ['outcomes'],
        params: subscriptionParams,
        response: answers(200, resumedAnswer),
      },
    },
    async (request) => {
      const { subscription } = request.params;
      const resumed = await outcomes.resume(subscription, actorOf(request.principal));
      if (resumed === null) throw new Problem('not_found', `subscription ${subscription} not found`);
      return { subscription, wasPaused: resumed.wasPaused };
    },
  );
}
