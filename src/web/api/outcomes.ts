// /v1/outcomes: who is told how sagas end, and the resumption of a subscription that was paused.
import type { App } from '../app.ts';
import { actorOf } from '../auth.ts';
import type { OutcomesPort } from '../ports.ts';
import { Problem } from '../problems.ts';
import { answers } from './answers.ts';
import { resumedAnswer, subscriptionParams, subscriptionsAnswer } from './shapes.ts';

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
