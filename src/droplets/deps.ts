// The dependencies of the droplet steps for one worker, and what they add to that worker: the account check, the
// circuits, the inventory syncs, metrics and retention.
import { setTimeout as delay } from 'node:timers/promises';
import type { AppContext } from '../saga/app.ts';
import type { WorkerExtension, WorkerHost } from '../saga/extension.ts';
import { createHolds, holdSaga, watchHolds } from '../saga/holds.ts';
import { claimFragment } from '../saga/store.ts';
import { createWakeup, startSpreadMs } from '../saga/wakeup.ts';
import type { RequestBudget } from '../do/budget.ts';
import { budgetId, createRequestBudget } from '../do/budget.ts';
import { countRequests } from '../do/count-requests.ts';
import { createCircuits, endingOf } from '../do/circuits.ts';
import { createCircuitStore } from '../do/circuit-store.ts';
import { createDigitalOceanClient } from '../do/client.ts';
import { DigitalOceanError } from '../do/errors.ts';
import type { DigitalOceanClient } from '../do/client.ts';
import { createDirectory } from '../do/directory.ts';
import { createObservationStore, observationKey } from '../do/observation-store.ts';
import { createObserver } from '../do/observer.ts';
import { rememberAnswers } from './answers-of-provider.ts';
import { harmlessProbe } from '../do/probe-harmlessly.ts';
import { watchThrottle } from '../do/throttle.ts';
import { hasResource, leaseEventExpiry, resourceExpiry } from '../inventory/expire.ts';
import { createReadyCallbacks } from '../inventory/ready-callbacks.ts';
import { createInventory } from '../inventory/resources.ts';
import { describeSync, scheduleSyncs } from '../inventory/sync/schedule.ts';
import { inventoryOutcomes } from '../inventory/outcomes.ts';
import { furtherPasses } from '../inventory/sync/delete-tags.ts';
import { syncInventory, syncSettings } from '../inventory/sync/sync-inventory.ts';
import type { Config } from '../platform/config.ts';
import { ConfigError } from '../platform/config-error.ts';
import { rangesOf } from '../platform/address-ranges.ts';
import { withoutIo } from '../platform/db.ts';
import type { Log } from '../platform/log.ts';
import { onceInAWhile } from '../platform/once-in-a-while.ts';
import { annotate } from '../platform/tracing.ts';
import type { StepDeps, StepSettings } from '../steps/deps.ts';
import { toStepOutcome } from '../steps/failures.ts';
import { dropletFamily } from '../steps/family.ts';
import { probe } from '../steps/probe.ts';
import { limitProbes, probePlaces } from '../steps/probe-places.ts';
import { checkAccount, watchAccount } from './account.ts';
import { createLeaseWork } from './lease-work.ts';
import { createDropletMetrics } from './metrics.ts';
import { reportRequests } from './request-report.ts';
import { sharedStores } from './shared-stores.ts';
import { syncWork } from './sync-work.ts';

// A deletion that DigitalOcean accepted is not repeated for this many times ADOPTION_GRACE_MS: three minutes by default.
const DELETE_AGAIN_GRACES = 3;

// Deadline of one readiness probe. TCP retries a handshake after a second.
const READY_PROBE_MS = 3_000;

// Held sagas are woken. In case that fails, each retries by itself after this time. Its retry may cost requests, such as
// the read before a deletion.
const UNWOKEN_MS = 3_600_000;

// Margin of a probe's lease, for the work before the request.
const PROBE_MARGIN_MS = 5_000;

/**
 * Opens the dependencies of the droplet steps, for the `deps` of an app that uses them. The worker then also checks the
 * account, syncs the inventory and exposes their metrics.
 *
 * @throws {ConfigError} without DIGITALOCEAN_TOKEN
 * @throws {TypeError} if called twice for one worker
 */
export function dropletDeps({ worker, log }: Pick<AppContext, 'worker' | 'log'>): StepDeps {
  const { config, db, io, runScript } = worker;
  const { token, apiUrl, timeoutMs, requestsPerMinute: perMinute, requestsPerHour: perHour, requesterWeights: weights, probes, whenFull } = config.digitalOcean;
  if (token === null) throw new ConfigError('DIGITALOCEAN_TOKEN: not set; the droplet steps need it');
  const scope = budgetId(token, apiUrl);
  const shared = sharedStores(config, { db, runScript }, scope);
  const throttle = watchThrottle(createRequestBudget({ store: shared.budget, perMinute, perHour, weights, io, log }));
  const counter = countRequests(throttle.budget);
  const { budget } = counter;
  const metrics = createDropletMetrics(() => budget.left());
  const provider = rememberAnswers();
  const quietDb = withoutIo(db);
  const wakeup = createWakeup();
  const circuitStore = createCircuitStore(quietDb, scope, probes);
  // After the lease is taken, the create is announced and may then take as long as a request.
  const circuits = createCircuits({ store: circuitStore, leaseMs: 2 * timeoutMs + PROBE_MARGIN_MS, holdMs: UNWOKEN_MS, waitsForRoom: whenFull === 'wait', log, onChanged: wakeup.wake });
  const digitalOcean = createDigitalOceanClient({
    apiUrl,
    token,
    timeoutMs,
    io,
    budget,
    circuits,
    onAnswer: (request) => {
      metrics.onRequest(request);
      provider.onAnswer(request);
      const { status } = request;
      if (status !== null) annotate(() => ({ 'http.response.status_code': status }));
    },
  });
  const holds = createHolds(quietDb, { scope, reconcileGraceMs: config.reconcileIntervalMs });
  const watchCircuits = async (signal: AbortSignal): Promise<null> => {
    await delay(startSpreadMs(), undefined, { signal }).catch(() => undefined);
    // A person who starts workers may have fixed the cause, so they probe at once.
    await circuitStore.hurry().catch(() => undefined);
    const probe = () => circuits.probeToken(() => endingOf(() => digitalOcean.at('now').getAccount()));
    const harmless = harmlessProbe(digitalOcean);
    const maySagaProbe = (circuit: string) => circuits.maySagaProbe(circuit, harmless);
    await watchHolds({ holds, circuits: { ...circuits, probe, maySagaProbe, prune: circuitStore.prune }, wake: worker.wake, wakeup, signal, log });
    return null;
  };
  const account = accountOf(worker, digitalOcean, { scope, timeoutMs }, log);
  const leases = createLeaseWork(worker, log);
  worker.extend({
    name: dropletFamily.name,
    scope,
    requestTimeoutMs: timeoutMs,
    // The worker interprets all other errors: database errors come from its own copy of the driver.
    toOutcome: (error, direction, memo) => (error instanceof DigitalOceanError ? toStepOutcome(error, direction, memo) : null),
    hold: (held) => holdSaga(held, { holds, refresh: circuits.refresh, log }),
    throttledForMs: () => throttle.throttledForMs(),
    provider: provider.answers,
    metrics: metrics.expose,
    outcomes: inventoryOutcomes,
    check: async () => {
      await account.check();
      // Before the worker takes jobs, so that droplets that expired while no worker ran are destroyed first.
      await leases.pass();
    },
    run: (signal) => [account.watch(signal), watchCircuits(signal), leases.run(signal), reportRequests({ db: quietDb, counter, signal, log })],
    periodic: syncsOf(worker, digitalOcean, { left: budget.left, log }),
    retention: { isNeeded: hasResource(config.sagaRetentionDays), expiries: [resourceExpiry(db, config.sagaRetentionDays), leaseEventExpiry(db, config.sagaRetentionDays)] },
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
    directory: createDirectory(digitalOcean),
    readiness: {
      probe: limitProbes((target) => io('probe', target.http === null ? 'check tcp' : 'check http', () => probe(target, READY_PROBE_MS)), {
        places: probePlaces(config.worker.concurrency),
        // The checks in progress have ended by then.
        aboutMs: Math.min(config.wait.pollIntervalMs, READY_PROBE_MS),
      }),
      allowed: rangesOf(config.readyProbeAllow),
      callbacks: createReadyCallbacks(db, config.keyRing),
      publicUrl: config.publicUrl,
      canIssue: config.keyRing.keys.length > 0,
    },
    settings: settingsOf(config),
  };
}

function settingsOf({ wait, retry, adoptionGraceMs, lease }: Config): StepSettings {
  return {
    pollIntervalMs: wait.pollIntervalMs,
    maxPolls: wait.maxPolls,
    adoptionGraceMs,
    maxCreates: retry.stepAttempts,
    deleteAgainAfterMs: DELETE_AGAIN_GRACES * adoptionGraceMs,
    maxDeletes: retry.compensationAttempts,
    lease,
  };
}

/** Checks the account of the token at startup, and later again if DigitalOcean did not answer. */
function accountOf({ db, config }: WorkerHost, digitalOcean: DigitalOceanClient, shared: { scope: string; timeoutMs: number }, log: Log) {
  let isSettled = false;
  return {
    check: async (): Promise<void> => {
      // The first check does not wait for the request budget.
      isSettled = await checkAccount({ db, digitalOcean: digitalOcean.at('now'), shared, log });
    },
    watch: async (signal: AbortSignal): Promise<string | null> => (isSettled ? null : watchAccount({ db, digitalOcean, shared, log, everyMs: config.reconcileIntervalMs, signal })),
  };
}

function syncsOf({ name, config, db }: WorkerHost, digitalOcean: DigitalOceanClient, { left, log }: { left: RequestBudget['left']; log: Log }): WorkerExtension['periodic'] {
  // Once per process, because it may be intended.
  const onTagsRefused = onceInAWhile(Number.POSITIVE_INFINITY, (why: string) => log.warn({ reason: why }, 'tags of destroyed droplets are left in the account: the token may not read or delete tags (scopes tag:read, tag:delete)'));
  const due = { intervalMs: config.inventorySyncIntervalMs, requestedBy: null };
  const { requestsPerMinute: perMinute, requestsPerHour: perHour } = config.digitalOcean;
  const furtherTags = furtherPasses({ intervalMs: due.intervalMs, perMinute, perHour }, left);
  return {
    ...syncWork,
    run: async (how) => describeSync(await syncInventory({ ...how, db, digitalOcean: digitalOcean.at('sync'), worker: name, settings: syncSettings(config), furtherTags, onTagsRefused, log }, due)),
    schedule: (how) => scheduleSyncs({ ...how, db, intervalMs: due.intervalMs, log }),
  };
}
