// `outcomes`: who is told how sagas end, and the resumption of a subscription that was paused.
import { printable } from '../platform/text.ts';
import type { Subscription } from '../outcomes/subscriptions.ts';
import { listSubscriptions, resumeSubscription } from '../outcomes/subscriptions.ts';
import { outcomeSourcesOf } from '../processes/inventory.ts';
import type { App } from '../saga/app.ts';
import { complain, write } from './output.ts';
import { requester } from './requester.ts';
import { withDatabase } from './with-database.ts';

export async function listOutcomesCommand(app: App, options: { json?: boolean }): Promise<number> {
  return withDatabase(app, ['DATABASE_URL'], async (db) => {
    const subscriptions = await listSubscriptions(db, await outcomeSourcesOf(app));
    if (options.json === true) write(JSON.stringify({ subscriptions }));
    else write(subscriptions.length === 0 ? 'No subscriptions. A worker makes them when it starts.' : subscriptions.map(lineOf).join('\n'));
    return subscriptions.some(({ pausedAt }) => pausedAt !== null) ? 1 : 0;
  });
}

export async function resumeOutcomesCommand(app: App, name: string, options: { skip?: string; json?: boolean }): Promise<number> {
  return withDatabase(app, ['DATABASE_URL'], async (db) => {
    const resumed = await resumeSubscription(db, name, requester(), options.skip ?? null);
    if (resumed === null) {
      complain(`subscription ${printable(name)} not found; \`arcadia outcomes\` lists them`);
      return 1;
    }
    if (options.json === true) write(JSON.stringify({ subscription: name, ...resumed }));
    else write(`${printable(name)} ${resumed.wasPaused ? 'is resumed' : 'was not paused; its deliveries are due now'}${resumed.skipped ? `; ${printable(options.skip ?? '')} is not delivered` : ''}`);
    if (options.skip === undefined || resumed.skipped) return 0;
    complain(`${printable(options.skip)} is not waiting to be delivered, so it was not skipped`);
    return 1;
  });
}

function lineOf(subscription: Subscription): string {
  const { name, target, waiting, waitingIsExact, failingSince, lastError, pausedAt, pausedReason } = printable(subscription);
  const state =
    pausedAt !== null
      ? `paused since ${pausedAt.toISOString()}: ${pausedReason ?? ''}`
      : failingSince !== null
        ? `failing since ${failingSince.toISOString()}: ${lastError ?? ''}`
        : 'ok';
  return `${name}  ${target}  ${waiting}${waitingIsExact ? '' : '+'} waiting  ${state}`;
}
