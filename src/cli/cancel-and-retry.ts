// `cancel` and `retry`: what a person asks of a saga.
import type { Client } from '../client/client.ts';
import type { App } from '../saga/app.ts';
import type { ActionResult } from '../saga/cancel-and-retry.ts';
import { requester } from './requester.ts';
import { complain, write } from './output.ts';
import { withClient } from './start-and-follow.ts';
import { requireSagaId } from './usage-error.ts';

export async function cancelCommand(app: App, sagaId: string, options: { reason?: string; json?: boolean }): Promise<number> {
  return act(app, sagaId, options, (client) => client.cancel(sagaId, requester(), options.reason), 'is being rolled back');
}

export async function retryCommand(app: App, sagaId: string, options: { json?: boolean }): Promise<number> {
  return act(app, sagaId, options, (client) => client.retry(sagaId, requester()), 'goes on with its rollback');
}

async function act(
  app: App,
  sagaId: string,
  options: { json?: boolean },
  ask: (client: Client) => Promise<ActionResult>,
  whatHappens: string,
): Promise<number> {
  requireSagaId(sagaId);
  return withClient(app, async (client, { surface }) => {
    const answered = await ask(client);
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
        complain(`there is no saga ${sagaId}`);
        return 1;
      default:
        return answered satisfies never;
    }
  });
}
