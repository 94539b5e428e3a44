// POST /v1/plans: whether a provision is possible now, what it costs and when it would start. It creates nothing.
import { z } from 'zod';
import type { PlanCheck } from '../../droplets/plans/checks.ts';
import type { App } from '../app.ts';
import { actorOf } from '../auth.ts';
import type { PlansPort, SagaPort } from '../ports.ts';
import { answers } from './answers.ts';

const checkNames = ['account', 'room', 'region', 'size', 'image', 'ssh_keys', 'project', 'vpc_uuid', 'volumes', 'user_data', 'ready', 'lease'] as const satisfies readonly PlanCheck['name'][];

/** Answer of `POST /v1/plans`. */
export const planAnswer = z.object({
  possible: z.enum(['yes', 'no', 'unknown']).describe('no: a check found a problem; unknown: none did, but one could not be made'),
  checks: z.array(
    z.object({
      name: z.enum(checkNames).describe('the field of the input; account; or room: for one more droplet in the account'),
      result: z.enum(['ok', 'problem', 'unknown']),
      message: z.string().describe('the finding in a sentence, for people'),
    }),
  ),
  price: z.object({
    usdPerHour: z.number().nullable().describe('by the price list of DigitalOcean; null: not known'),
    usdPerMonth: z.number().nullable().describe('the most that a month costs; null: not known'),
    message: z.string(),
  }),
  start: z.object({
    inSeconds: z.int().nullable().describe('when the create would be sent, by the request budget; 0: now; null: not known, and the message says why'),
    message: z.string(),
  }),
  listsAgeSeconds: z.int().nullable().describe('age of the oldest list of regions, sizes and images that was used; null: none was read'),
});

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
