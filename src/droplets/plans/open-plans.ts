// Opens the planning of provisions in a process: the client with the lowest priority of the fleet's request budget, the cached
// lists, and what the database and the queues know.
import { budgetId, createRequestBudget, forecastCreateMs } from '../../do/budget.ts';
import type { BudgetForecast } from '../../do/budget-store.ts';
import { createDigitalOceanClient } from '../../do/client.ts';
import { createDirectory } from '../../do/directory.ts';
import { createOffers } from '../../do/offers.ts';
import { readFleetFacts } from '../../fleet/facts.ts';
import type { Config } from '../../platform/config.ts';
import type { Database } from '../../platform/db.ts';
import { directIo } from '../../platform/io.ts';
import type { Log } from '../../platform/log.ts';
import type { RunRedisScript } from '../../platform/redis-script.ts';
import { problemsOf } from '../../platform/request-problems.ts';
import { InvalidRequestError } from '../../saga/start-errors.ts';
import { provisionContract } from '../../steps/contract.ts';
import type { ProvisionDropletInput } from '../../steps/inputs.ts';
import { sharedStores } from '../shared-stores.ts';
import type { KnownFacts } from './checks.ts';
import type { FormLists } from './form-lists.ts';
import { readFormLists } from './form-lists.ts';
import type { Plan, PlanCloud, PlanDeps } from './plan.ts';
import { planProvision } from './plan.ts';

export type Plans = Readonly<{
  /** The name of the saga that is planned. */
  sagaName: string;
  /**
   * @param input of the saga, as its schema accepts it
   * @param requester who would request it: requesters take turns in the request budget
   * @throws {InvalidRequestError} for another input
   */
  plan(input: unknown, requester: string): Promise<Plan>;
  /** The lists of a form: regions, sizes and so on. */
  lists(): Promise<FormLists>;
}>;

export type PlansOf = Readonly<{
  config: Config;
  db: Database;
  runScript: RunRedisScript | null;
  /** Whether somebody paused the queue of steps. Rejects if the queue store does not answer. */
  isPaused: () => Promise<boolean>;
  log: Log;
}>;

/** Opens the plans. Without DIGITALOCEAN_TOKEN they say what they cannot know. */
export function openPlans({ config, db, runScript, isPaused, log }: PlansOf): Plans {
  const { token, apiUrl, timeoutMs, requestsPerMinute: perMinute, requestsPerHour: perHour, requesterWeights: weights } = config.digitalOcean;
  const opened = token === null ? null : openCloud(token);
  const cloud = opened?.cloud ?? null;
  const orNull = async <T>(read: Promise<T>): Promise<T | null> => {
    try {
      return await read;
    } catch (error) {
      log.warn({ err: error }, 'a plan could not read everything');
      return null;
    }
  };

  function openCloud(secret: string): { cloud: PlanCloud; store: BudgetForecast } {
    const { budget: store } = sharedStores(config, { db, runScript }, budgetId(secret, apiUrl));
    const budget = createRequestBudget({ store, perMinute, perHour, io: directIo, log });
    // Without circuits: a refused read of a plan must hold no saga.
    const client = createDigitalOceanClient({ apiUrl, token: secret, timeoutMs, budget, userAgent: 'arcadia-plan' }).at('sync');
    return { cloud: { client, offers: createOffers(client), directory: createDirectory(client) }, store };
  }

  const depsFor = (requester: string): PlanDeps => ({
    cloud,
    policy: { lease: config.lease, canSeal: config.keyRing.keys.length > 0, publicUrl: config.publicUrl },
    fleet: async () => {
      const [known, facts, budgetMs, paused] = await Promise.all([
        readKnownFacts(db),
        readFleetFacts(db),
        opened === null ? null : orNull(forecastCreateMs(opened.store, { perMinute, perHour, weights, requester })),
        orNull(isPaused()),
      ]);
      return { ...known, facts, budgetMs, isPaused: paused };
    },
  });
  return { sagaName: provisionContract.name, plan: async (input, requester) => planProvision(requireInput(input), depsFor(requester)), lists: () => readFormLists(cloud) };
}

function requireInput(input: unknown): ProvisionDropletInput {
  const parsed = provisionContract.input.safeParse(input);
  if (parsed.success) return parsed.data;
  throw new InvalidRequestError(problemsOf(parsed.error.issues));
}

async function readKnownFacts(db: Pick<Database, 'run'>): Promise<KnownFacts> {
  const [row] = await db.run(
    'plans.known',
    (sql) => sql<KnownFacts[]>`
      select
        (select count(*)::int from arcadia.sagas
         where wake_at is not null and status in ('pending', 'running') and name = ${provisionContract.name} and not context ? 'droplet_id') as creating,
        (select account from arcadia.environment) as account`,
  );
  if (row === undefined) throw new Error('plans.known: no answer');
  return row;
}
