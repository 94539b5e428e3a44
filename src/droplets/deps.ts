// What the droplet steps work with, opened for one worker; and what it brings to that worker beside the steps: the check of
// the account, the circuits, the inventory syncs, metrics, retention.
import type { AppContext } from '../saga/app.ts';
import type { WorkerExtension, WorkerHost } from '../saga/extension.ts';
import { createHolds, holdSaga, watchHolds } from '../saga/holds.ts';
import { claimFragment } from '../saga/store.ts';
import { createWakeup } from '../saga/wakeup.ts';
import { budgetId, createRequestBudget } from '../do/budget.ts';
import { createCircuits, endingOf } from '../do/circuits.ts';
import { createCircuitStore } from '../do/circuit-store.ts';
import { createDigitalOceanClient } from '../do/client.ts';
import { DigitalOceanError } from '../do/errors.ts';
import type { DigitalOceanClient } from '../do/client.ts';
import { createObservationStore, observationKey } from '../do/observation-store.ts';
import { createObserver } from '../do/observer.ts';
import { watchThrottle } from '../do/throttle.ts';
import { hasResource, resourceExpiry } from '../inventory/expire.ts';
import { createInventory } from '../inventory/resources.ts';
import { describeSync, scheduleSyncs } from '../inventory/sync/schedule.ts';
import { syncInventory, syncSettings } from '../inventory/sync/sync-inventory.ts';
import type { Config } from '../platform/config.ts';
import { ConfigError } from '../platform/config.ts';
import { withoutIo } from '../platform/db.ts';
import type { Log } from '../platform/log.ts';
import { annotate } from '../platform/tracing.ts';
import type { StepDeps, StepSettings } from '../steps/deps.ts';
import { toStepOutcome } from '../steps/failures.ts';
import { dropletFamily } from '../steps/family.ts';
import { checkAccount, watchAccount } from './account.ts';
import { createDropletMetrics } from './metrics.ts';
import { sharedStores } from './shared-stores.ts';
import { syncWork } from './sync-work.ts';

// A deletion that DigitalOcean accepted is not repeated for so many times ADOPTION_GRACE_MS: three minutes by default.
const DELETE_AGAIN_GRACES = 3;

// Of a probe's lease: for what comes before the request.
const PROBE_MARGIN_MS = 5_000;

/**
 * Opens what the droplet steps work with, for the `deps` of an app that has them. The worker then checks the account, syncs
 * the inventory, and tells its metrics.
 *
 * @throws {ConfigError} without DIGITALOCEAN_TOKEN
 * @throws {TypeError} when it is called twice for one worker
 */
export function dropletDeps({ worker, log }: Pick<AppContext, 'worker' | 'log'>): StepDeps {
  const { config, db, io, runScript } = worker;
  const { token, apiUrl, timeoutMs, requestsPerMinute: perMinute, requestsPerHour: perHour, probes } = config.digitalOcean;
  if (token === null) throw new ConfigError('DIGITALOCEAN_TOKEN: not set; the droplet steps need it');
  const scope = budgetId(token, apiUrl);
  const shared = sharedStores(config, { db, runScript }, scope);
  const throttle = watchThrottle(createRequestBudget({ store: shared.budget, perMinute, perHour, io, log }));
  const { budget } = throttle;
  const metrics = createDropletMetrics(() => budget.left());
  const quietDb = withoutIo(db);
  const wakeup = createWakeup();
  const circuitStore = createCircuitStore(quietDb, scope, probes);
  // From the lease on, the create is announced, and may take as long as a request may.
  const circuits = createCircuits({ store: circuitStore, leaseMs: 2 * timeoutMs + PROBE_MARGIN_MS, holdMs: probes.maxMs, log, onChanged: wakeup.wake });
  const digitalOcean = createDigitalOceanClient({
    apiUrl,
    token,
    timeoutMs,
    io,
    budget,
    circuits,
    onAnswer: (request) => {
      metrics.onRequest(request);
      if (request.status !== null) annotate({ 'http.response.status_code': request.status });
    },
  });
  const holds = createHolds(quietDb, { scope, reconcileGraceMs: config.reconcileIntervalMs });
  const watchCircuits = async (signal: AbortSignal): Promise<null> => {
    // A person who starts workers may have put things right: they ask at once.
    await circuitStore.hurry().catch(() => undefined);
    const probe = () => circuits.probeToken(() => endingOf(() => digitalOcean.at('now').getAccount()));
    await watchHolds({ holds, circuits: { ...circuits, probe, prune: circuitStore.prune }, wake: worker.wake, wakeup, signal, log });
    return null;
  };
  const account = accountOf(worker, digitalOcean, log);
  worker.extend({
    name: dropletFamily.name,
    scope,
    requestTimeoutMs: timeoutMs,
    // What is not DigitalOcean's, the worker judges: errors of its database are of its own copy of the driver.
    toOutcome: (error, direction, memo) => (error instanceof DigitalOceanError ? toStepOutcome(error, direction, memo) : null),
    hold: (held) => holdSaga(held, { holds, refresh: circuits.refresh, log }),
    throttledForMs: () => throttle.throttledForMs(),
    metrics: metrics.expose,
    check: account.check,
    run: (signal) => [account.watch(signal), watchCircuits(signal)],
    periodic: syncsOf(worker, digitalOcean, log),
    retention: { isNeeded: hasResource(config.sagaRetentionDays), expiries: [resourceExpiry(db, config.sagaRetentionDays)] },
  });
  return {
    inventory: createInventory(db, claimFragment),
    digitalOcean,
    droplets: createObserver({
      client: digitalOcean,
      store: createObservationStore(shared.observations, { io, log, key: observationKey(token) }),
      intervalMs: config.wait.pollIntervalMs,
      leaseMs: timeoutMs,
    }),
    settings: settingsOf(config),
  };
}

function settingsOf({ wait, retry, adoptionGraceMs }: Config): StepSettings {
  return {
    pollIntervalMs: wait.pollIntervalMs,
    maxPolls: wait.maxPolls,
    adoptionGraceMs,
    maxCreates: retry.stepAttempts,
    deleteAgainAfterMs: DELETE_AGAIN_GRACES * adoptionGraceMs,
    maxDeletes: retry.compensationAttempts,
  };
}

/** The account of the token is checked at the start, and afterwards where DigitalOcean did not answer then. */
function accountOf({ db, config }: WorkerHost, digitalOcean: DigitalOceanClient, log: Log) {
  let isSettled = false;
  return {
    check: async (): Promise<void> => {
      // The first one does not wait for its turn.
      isSettled = await checkAccount({ db, digitalOcean: digitalOcean.at('now'), log });
    },
    watch: async (signal: AbortSignal): Promise<string | null> => (isSettled ? null : watchAccount({ db, digitalOcean, log, everyMs: config.reconcileIntervalMs, signal })),
  };
}

function syncsOf({ name, config, db }: WorkerHost, digitalOcean: DigitalOceanClient, log: Log): WorkerExtension['periodic'] {
  const due = { intervalMs: config.inventorySyncIntervalMs, requestedBy: null };
  return {
    ...syncWork,
    run: async (how) => describeSync(await syncInventory({ ...how, db, digitalOcean: digitalOcean.at('sync'), worker: name, settings: syncSettings(config), log }, due)),
    schedule: (how) => scheduleSyncs({ ...how, db, intervalMs: due.intervalMs, log }),
  };
}
