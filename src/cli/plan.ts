// `provision --dry-run`: shows the plan of a provision. It starts nothing.
import { readFleetFacts } from '../fleet/facts.ts';
import { ConfigError } from '../platform/config-error.ts';
import type { Database } from '../platform/db.ts';
import { endsWithin, CLOSING_MS, unlessAborted } from '../platform/deadline.ts';
import { formatDuration } from '../platform/duration.ts';
import { printable } from '../platform/text.ts';
import type { PlansOf } from '../droplets/plans/open-plans.ts';
import type { Plan } from '../droplets/plans/plan.ts';
import type { Environment } from '../processes/environment.ts';
import { openPlansOf } from '../processes/inventory.ts';
import type { QueueConnection } from '../queues/connection.ts';
import { QueueStoreError, openQueueConnection, queueStoreOf } from '../queues/connection.ts';
import { queueNames } from '../queues/jobs.ts';
import { withTimeLimit } from '../queues/time-limit.ts';
import type { App } from '../saga/app.ts';
import type { ProvisionDropletInput } from '../steps/inputs.ts';
import type { ForeignQueues } from './foreign-queues.ts';
import { findForeignQueues } from './foreign-queues.ts';
import { complain, write } from './output.ts';
import { requester } from './requester.ts';
import { UsageError } from './usage-error.ts';
import { withInventoryDatabase } from './with-database.ts';

/**
 * @returns the exit code: 0 if the provision is possible; 1 if it is not, or if a check could not be made
 */
export async function planCommand(app: App, input: ProvisionDropletInput, { json, detach, idempotencyKey, priority }: { json?: boolean | undefined; detach?: boolean | undefined; idempotencyKey?: string | undefined; priority?: string | undefined }, stop: AbortSignal): Promise<number> {
  if (detach === true || idempotencyKey !== undefined || priority !== undefined) throw new UsageError('--dry-run: starts nothing, so it takes no --detach, --idempotency-key or --priority');
  return withInventoryDatabase(app, ['DATABASE_URL'], async (db, config, log, environment) => {
    const connection = openQueueConnection(queueStoreOf(config), log);
    try {
      const why = await unlessAborted(stop, whyUnread(connection, db, environment));
      if (why !== null) complain(`the queues and the request budget are left out of the plan: ${why}`);
      const plans = await openPlansOf(app, { config, db, ...(why === null ? readable(connection) : unreadable(connection, why)), log });
      if (plans === null) throw new UsageError('--dry-run: needs an app that provisions droplets');
      const plan = await unlessAborted(stop, plans.plan(input, requester()));
      write(json === true ? JSON.stringify(plan) : formatPlan(plan));
      return plan.possible === 'yes' ? 0 : 1;
    } finally {
      await endsWithin(CLOSING_MS, connection.close());
    }
  }, stop);
}

/**
 * The queues and the request budget of another fleet say nothing about this one. Before the first worker starts, they are
 * nobody's.
 *
 * @returns why the queue store cannot be used; null: it can
 * @throws {ConfigError} if the queues are another database's
 */
async function whyUnread(connection: QueueConnection, db: Database, environment: Environment): Promise<string | null> {
  let foreign: ForeignQueues | null;
  try {
    await connection.requireWrites();
    foreign = await findForeignQueues(connection, environment, db);
  } catch (error) {
    return error instanceof Error ? error.message : String(error);
  }
  if (foreign === null || (!foreign.isClaimed && !(await hasWorker(db)))) return null;
  throw new ConfigError(`${foreign.problem}. ${foreign.remedy}`);
}

type Readings = Pick<PlansOf, 'runScript' | 'isPaused'>;

function readable(connection: QueueConnection): Readings {
  return { runScript: connection.runScript, isPaused: () => withTimeLimit(`is ${queueNames.steps} paused`, () => isPaused(connection)) };
}

/** Each command to a store that is silent takes seconds, and a plan sends many. */
function unreadable({ runScript }: QueueConnection, why: string): Readings {
  const refuse = () => Promise.reject(new QueueStoreError(why));
  return { runScript: runScript === null ? null : refuse, isPaused: refuse };
}

async function isPaused(connection: QueueConnection): Promise<boolean> {
  const queue = connection.queue(queueNames.steps);
  try {
    return await queue.isPaused();
  } finally {
    await endsWithin(CLOSING_MS, queue.close());
  }
}

async function hasWorker(db: Database): Promise<boolean> {
  return (await readFleetFacts(db)).workers.some(({ isAlive }) => isAlive);
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
