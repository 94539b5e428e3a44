// `cancel` and `retry`: what a person asks of a saga.
import type { Client } from '../client/client.ts';
import type { App } from '../saga/app.ts';
import type { Steered } from '../saga/steer.ts';
import { requester } from './requester.ts';
import { complain, write } from './output.ts';
import { withClient } from './start-and-follow.ts';
import { requireSagaId } from './usage-error.ts';

export async function cancelCommand(app: App, sagaId: string, options: { reason?: string; json?: boolean }): Promise<number> {
  return steerCommand(app, sagaId, options, (client) => client.cancel(sagaId, requester(), options.reason), 'is being rolled back');
}

export async function retryCommand(app: App, sagaId: string, options: { json?: boolean }): Promise<number> {
  return steerCommand(app, sagaId, options, (client) => client.retry(sagaId, requester()), 'goes on with its rollback');
}

async function steerCommand(
  app: App,
  sagaId: string,
  options: { json?: boolean },
  ask: (client: Client) => Promise<Steered>,
  whatHappens: string,
): Promise<number> {
  requireSagaId(sagaId);
  return withClient(app, async (client, { surface }) => {
    const steered = await ask(client);
    if (options.json === true) write(JSON.stringify(steered.kind === 'not_found' ? steered : { ...steered, saga: surface.redact.saga(steered.saga) }));
    switch (steered.kind) {
      case 'accepted':
      case 'already':
        if (options.json !== true) write(`saga ${sagaId} ${steered.saga.status === 'compensated' ? 'is rolled back' : whatHappens}`);
        return 0;
      case 'refused':
        complain(steered.why);
        return 1;
      case 'not_found':
        complain(`there is no saga ${sagaId}`);
        return 1;
      default:
        return steered satisfies never;
    }
  });
}
