// `cancel` and `retry`: what a person asks of a saga.
import type { Client } from '../client/client.ts';
import type { App } from '../saga/app.ts';
import type { ActionResult } from '../saga/cancel-and-retry.ts';
import { requester } from './requester.ts';
import { complain, write } from './output.ts';
import { withClient } from './start-and-follow.ts';
import { requireSagaId, resolveSagaId } from './saga-id.ts';

export async function cancelCommand(app: App, sagaId: string, options: { reason?: string; json?: boolean }): Promise<number> {
  return act(app, sagaId, options, (client, id) => client.cancel(id, requester(), options.reason), 'is being rolled back');
}

export async function retryCommand(app: App, sagaId: string, options: { json?: boolean }): Promise<number> {
  return act(app, sagaId, options, (client, id) => client.retry(id, requester()), 'resumes');
}

async function act(
  app: App,
  given: string,
  options: { json?: boolean },
  ask: (client: Client, sagaId: string) => Promise<ActionResult>,
  whatHappens: string,
): Promise<number> {
  requireSagaId(given);
  return withClient(app, async (client, { surface }) => {
    const sagaId = await resolveSagaId(client, given);
    const answered = await ask(client, sagaId);
    if (options.json === true) write(JSON.stringify(answered.kind === 'not_found' ? answered : { ...answered, saga: surface.redact.saga(answered.saga) }));
    switch (answered.kind) {
      case 'accepted':
      case 'already':
        if (options.json !== true) write(`saga ${sagaId} ${answered.saga.status === 'compensated' ? 'is rolled back' : whatHappens}`);
        return 0;
      case 'refused':
        complain(answered.why);
        return 1;
      case 'not_found':
        complain(`saga ${sagaId} not found`);
        return 1;
      default:
        return answered satisfies never;
    }
  });
}
