// `provision --dry-run`: shows the plan of a provision. It starts nothing.
import { endsWithin, CLOSING_MS, unlessAborted } from '../platform/deadline.ts';
import { formatDuration } from '../platform/duration.ts';
import { printable } from '../platform/text.ts';
import type { Plan } from '../droplets/plans/plan.ts';
import { openPlansOf } from '../processes/inventory.ts';
import { openQueueConnection, queueStoreOf } from '../queues/connection.ts';
import { queueNames } from '../queues/jobs.ts';
import type { App } from '../saga/app.ts';
import type { ProvisionDropletInput } from '../steps/inputs.ts';
import { write } from './output.ts';
import { requester } from './requester.ts';
import { UsageError } from './usage-error.ts';
import { withInventoryDatabase } from './with-database.ts';

/**
 * @returns the exit code: 0 if the provision is possible; 1 if it is not, or if a check could not be made
 */
export async function planCommand(app: App, input: ProvisionDropletInput, { json, detach, idempotencyKey, priority }: { json?: boolean | undefined; detach?: boolean | undefined; idempotencyKey?: string | undefined; priority?: string | undefined }, stop: AbortSignal): Promise<number> {
  if (detach === true || idempotencyKey !== undefined || priority !== undefined) throw new UsageError('--dry-run: starts nothing, so it takes no --detach, --idempotency-key or --priority');
  return withInventoryDatabase(app, ['DATABASE_URL'], async (db, config, log) => {
    const connection = openQueueConnection(queueStoreOf(config), log);
    const queue = connection.queue(queueNames.steps);
    try {
      const plans = await openPlansOf(app, { config, db, runScript: connection.runScript, isPaused: () => queue.isPaused(), log });
      if (plans === null) throw new UsageError('--dry-run: needs an app that provisions droplets');
      const plan = await unlessAborted(stop, plans.plan(input, requester()));
      write(json === true ? JSON.stringify(plan) : formatPlan(plan));
      return plan.possible === 'yes' ? 0 : 1;
    } finally {
      await endsWithin(CLOSING_MS, queue.close().then(() => connection.close()));
    }
  }, stop);
}

const verdicts: Readonly<Record<Plan['possible'], string>> = {
  yes: 'Possible. Nothing was started.',
  no: 'Not possible at the moment. Nothing was started.',
  unknown: 'Not known whether it is possible: not everything could be checked. Nothing was started.',
};

const signs = { ok: 'OK     ', problem: 'PROBLEM', unknown: 'UNKNOWN' } as const;

function formatPlan(plan: Plan): string {
  const { possible, checks, price, start, listsAgeSeconds } = printable(plan);
  const age = listsAgeSeconds === null || listsAgeSeconds < 1 ? '' : ` (lists of DigitalOcean as of ${formatDuration(listsAgeSeconds * 1_000)} ago)`;
  return [...checks.map(({ name, result, message }) => `${signs[result]} ${name}: ${message}`), `Price: ${price.message}${age}`, `Start: ${start.message}`, verdicts[possible]].join('\n');
}
