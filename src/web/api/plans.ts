// POST /v1/plans: whether a provision is possible now, what it costs and when it would start. It creates nothing.
import type { App } from '../app.ts';
import { actorOf } from '../auth.ts';
import type { PlansPort, SagaPort } from '../ports.ts';
import { answers } from './answers.ts';
import { planAnswer } from './shapes.ts';

/** Adds the route. */
export function addPlanRoute(app: App, plans: PlansPort, definitions: SagaPort['definitions']): void {
  const body = definitions[plans.sagaName]?.input;
  if (body === undefined) return;
  app.post(
    '/v1/plans',
    {
      config: { needs: 'read' },
      schema: {
        operationId: 'planProvision',
        summary: 'Plan a provision without starting it',
        description: `The body is the input of ${plans.sagaName}. The plan says whether the input is possible now, what the droplet costs, and when the saga would start. It creates nothing: DigitalOcean is only read, with the lowest priority of the request budget. What could not be read is \`unknown\`. 400: the input is invalid; \`errors\` names the fields.`,
        tags: ['sagas'],
        body,
        response: answers(200, planAnswer),
      },
    },
    async (request) => plans.plan(request.body, actorOf(request.principal)),
  );
}
