// The conditions that Postgres knows of: of workers, sagas, DigitalOcean, the inventory, leases and outcomes.
import type { Condition, Limits, QueueFacts } from './condition.ts';
import { counted } from '../platform/text.ts';
import type { QueuePlace } from '../queues/queue-store.ts';
import { condition, inWords, withStop } from './condition.ts';
import type { PostgresFacts, RefusedFact, UntoldFact } from './facts.ts';

// Every request that comes a moment too early is postponed. That is the normal budget, not a used-up one.
const SHORT_WAIT_MS = 10_000;

/** What Postgres knows of. */
export function conditionsOfPostgres(facts: PostgresFacts, queues: QueueFacts | null, limits: Limits): Condition[] {
  const conditions: Condition[] = [];
  const isAlive = facts.workers.some((worker) => worker.isAlive);
  if (facts.isReadOnly) {
    conditions.push(condition({
      name: 'postgres_read_only',
      title: 'Postgres takes no writes',
      detail: 'No saga can make progress, none can be started, and workers cannot show that they live.',
      action: 'End its read-only mode (a provider switches it on when a disk is full), or name the primary in DATABASE_URL. Sagas then resume by themselves.',
    }));
  }
  // In a read-only database, nobody knows who lives.
  if (!isAlive && !facts.isReadOnly) conditions.push(noWorker(facts));
  conditions.push(...queuesThatDiffer(facts, limits));
  // Without a worker, nothing probes again.
  for (const refused of facts.refused) conditions.push({ ...refusal(refused, facts.now), ...(isAlive ? {} : { until: null }) });
  const isProviderAway = facts.providerFailingSince !== null && facts.now.getTime() - facts.providerFailingSince.getTime() > PROVIDER_FAILING_FOR_MS;
  if (isProviderAway) {
    conditions.push(condition({
      name: 'provider_away', since: facts.providerFailingSince,
      title: 'DigitalOcean does not answer',
      detail: `No request since then was answered, or only with an error of its servers.${facts.unfinished === 0 ? '' : ` ${counted(facts.unfinished, 'saga')} ${facts.unfinished === 1 ? 'is' : 'are'} unfinished.`}`,
      action: 'Look at status.digitalocean.com, and at what lies between (DIGITALOCEAN_API_URL, proxy, DNS). Sagas resume by themselves.',
    }));
  }
  if (facts.stuck > 0) {
    conditions.push(condition({
      name: 'sagas_stuck', count: facts.stuck,
      title: `${counted(facts.stuck, 'saga')} ${facts.stuck === 1 ? 'needs' : 'need'} attention`,
      detail: `What ${facts.stuck === 1 ? 'its' : 'their'} steps have done may still exist and cost money.`,
      action: `${facts.stuck === 1 ? 'Open it' : 'Open each one'}, fix the cause that its last error names, then retry it.`,
    }));
  }
  // Without a worker, no reconciler runs; another condition reports that.
  if (isAlive && facts.overdueSeconds > overdueLimitSeconds(limits)) {
    conditions.push(condition({
      name: 'sagas_overdue', count: Math.round(facts.overdueSeconds),
      title: `A saga is overdue by ${inWords(facts.overdueSeconds)}`,
      detail: "No worker has picked it up.",
      action: 'Check the logs of the workers and restart them.',
    }));
  }
  if (facts.reconcilerFailingSince !== null && facts.now.getTime() - facts.reconcilerFailingSince.getTime() > RECONCILER_FAILING_FOR_MS) {
    conditions.push(condition({
      name: 'reconciler_fails', since: facts.reconcilerFailingSince,
      title: 'No worker can enqueue sagas that have no job',
      detail: 'Each pass of the reconciler fails, so that new and lost jobs stay away.',
      action: 'Read in the log of a worker why ("reconciler pass failed"), such as a queue store that is full.',
    }));
  }
  if (facts.unknownSteps !== null && facts.unknownSteps.sagas > 0) conditions.push(unknownSteps(facts.unknownSteps));
  if (facts.unknownSagas !== null && facts.unknownSagas.sagas > 0) conditions.push(unknownSagas(facts.unknownSagas));
  if (facts.unmetNeeds.sagas > 0) conditions.push(unmetNeeds(facts.unmetNeeds));
  if (facts.missingKeys.sagas > 0) conditions.push(missingKeys(facts.missingKeys));
  // Where nothing is answered, that is what to look at.
  if (facts.unanswered.sagas > 0 && !isProviderAway) conditions.push(unanswered(facts.unanswered));
  if (facts.longRuns.sagas > 0) conditions.push(longRuns(facts.longRuns, facts.now));
  if (isAlive && isSyncOverdue(facts, queues, limits)) {
    const age = inWords(facts.syncAgeSeconds ?? 0);
    conditions.push(condition({
      name: 'sync_overdue', count: Math.round(facts.syncAgeSeconds ?? 0),
      title: `The inventory was last synced ${age} ago`,
      detail: 'Later changes at DigitalOcean are missing from it.',
      action: 'Run `arcadia sync` to see why it fails.',
    }));
  }
  conditions.push(...ofLeases(facts.leases));
  if (facts.orphansHeld > 0) {
    conditions.push(condition({
      name: 'surplus_held', count: facts.orphansHeld,
      title: `${facts.orphansHeld} surplus ${facts.orphansHeld === 1 ? 'droplet waits' : 'droplets wait'} for approval`,
      detail: 'So many at once are not destroyed until someone approves: Postgres may have been restored from a backup. They cost money.',
      action: 'Run `arcadia orphans`. If they are not needed, run `arcadia orphans --destroy`.',
    }));
  }
  if (facts.sweepsFailing.droplets > 0) conditions.push(notDestroyed(facts.sweepsFailing, facts.orphansHeld === 0 && queues?.paused.includes('inventory') !== true));
  // An app without an inventory knows nothing of them.
  if (facts.orphansUnknown > 0 && limits.inventorySyncIntervalMs !== null) conditions.push(unknownOrphans(facts.orphansUnknown));
  conditions.push(...facts.untold.flatMap((one) => notTold(one, facts.now)));
  const throttledForMs = (facts.throttledUntil?.getTime() ?? 0) - facts.now.getTime();
  if (throttledForMs > SHORT_WAIT_MS) {
    conditions.push(condition({
      name: 'budget_used_up', until: facts.throttledUntil,
      title: 'The request budget is used up',
      detail: 'Sagas wait for their turn. Deletions go first.',
      action: 'None, unless it lasts. Then start fewer sagas at once, or ask DigitalOcean for a higher limit.',
    }));
  }
  return conditions;
}

// Single requests fail now and then.
const PROVIDER_FAILING_FOR_MS = 60_000;

// A pass fails now and then, and a store that restarts takes a while.
const RECONCILER_FAILING_FOR_MS = 60_000;

const MOST_NAMED = 3;

function unknownSteps({ sagas: count, steps }: NonNullable<PostgresFacts['unknownSteps']>): Condition {
  return condition({
    name: 'steps_unknown', count,
    title: `${counted(count, 'saga')} ${count === 1 ? 'waits' : 'wait'} for a worker that knows ${steps.length === 1 ? 'the step' : 'the steps'} ${namesOf(steps)}`,
    detail: 'No live worker does, so it is neither run nor undone.',
    action: 'Start workers of the version or with the app that has it (ARCADIA_APP, --app), and remove a step only when no saga is at it any more.',
  });
}

function unknownSagas({ sagas: count, names }: NonNullable<PostgresFacts['unknownSagas']>): Condition {
  return condition({
    name: 'sagas_unknown', count,
    title: `${counted(count, 'saga')} ${count === 1 ? 'waits' : 'wait'} for a worker that knows the ${names.length === 1 ? 'saga' : 'sagas'} ${namesOf(names)}`,
    detail: `${count === 1 ? 'It was' : 'They were'} started by SQL. No live worker has the schema that checks the input, so ${count === 1 ? 'it' : 'none'} can start.`,
    action: `Start workers of the version or with the app that has ${names.length === 1 ? 'this saga' : 'these sagas'} (ARCADIA_APP, --app), or cancel ${count === 1 ? 'it' : 'them'}.`,
  });
}

function unmetNeeds({ sagas: count, ids, steps }: PostgresFacts['unmetNeeds']): Condition {
  const isOne = count === 1;
  return condition({
    name: 'needs_unmet', count,
    title: `${counted(count, 'saga')} ${isOne ? 'lacks' : 'lack'} what the live version of ${steps.length === 1 ? 'the step' : 'the steps'} ${namesOf(steps)} needs`,
    detail: `Another version started ${isOne ? 'it' : 'them'}. ${isOne ? 'It waits' : 'They wait'} for a worker of that version, and ${isOne ? 'is' : 'are'} not rolled back.`,
    action: `Read in the log of a worker what is missing. Start workers of the other version, deploy a step that makes do without it, or cancel: ${ids.map((id) => `\`arcadia cancel ${id}\``).join(', ')}${count > ids.length ? ' and others' : ''}.`,
  });
}

function missingKeys({ sagas: count, keys }: PostgresFacts['missingKeys']): Condition {
  return condition({
    name: 'key_missing', count,
    title: `${counted(count, 'saga')} ${count === 1 ? 'waits' : 'wait'} for the encryption ${keys.length === 1 ? 'key' : 'keys'} ${namesOf(keys)}`,
    detail: `A worker lacks ${keys.length === 1 ? 'it' : 'them'}, so it cannot read secrets that were sealed with ${keys.length === 1 ? 'it' : 'them'}.`,
    action: 'Add it to ARCADIA_ENCRYPTION_KEYS of every worker. Sagas then resume by themselves. If it is lost for good, cancel them and start new ones.',
  });
}

function unanswered({ sagas: count, ids }: PostgresFacts['unanswered']): Condition {
  const isOne = count === 1;
  return condition({
    name: 'sagas_unanswered', count,
    title: `${counted(count, 'saga')} ${isOne ? 'has' : 'have'} stood still for 10 minutes or more: ${isOne ? 'its' : 'their'} requests are not answered, or with server errors`,
    detail: `Other requests are answered. ${isOne ? 'The saga tries' : 'The sagas try'} again by ${isOne ? 'itself' : 'themselves'}; a rollback that stands still may leave something that costs money.`,
    action: `Read why: ${ids.map((id) => `\`arcadia saga ${id}\``).join(', ')}${count > ids.length ? ' and others' : ''}. If it does not end, ask the support of the provider.`,
  });
}

function longRuns({ sagas: count, standing, ids, steps, workers, since }: PostgresFacts['longRuns'], now: Date): Condition {
  const isOne = count === 1;
  return condition({
    name: 'steps_hang', count, since,
    title: isOne ? `The step ${namesOf(steps)} has been running for ${inWords((now.getTime() - (since ?? now).getTime()) / 1_000)}` : `${count} steps (${namesOf(steps)}) have been running for 10 minutes or more`,
    detail: `${isOne ? 'It takes' : 'Each takes'} a place of its worker: ${namesOf(workers)}. ${standing === 0 ? `${isOne ? 'Its saga' : 'Their sagas'} went on without ${isOne ? 'it' : 'them'}.` : isOne ? 'Its saga stands still.' : `${counted(standing, 'saga')} ${standing === 1 ? 'stands' : 'stand'} still.`}`,
    action: `Look at ${ids.map((id) => `\`arcadia saga ${id}\``).join(', ')}${count > ids.length ? ' and others' : ''}, and at the log of the worker. Restart the worker${standing === 0 ? '.' : `: ${isOne ? 'the step runs' : 'the steps run'} again.`}`,
  });
}

function unknownOrphans(count: number): Condition {
  const isOne = count === 1;
  return condition({
    name: 'orphans_unknown', count,
    title: `${counted(count, 'droplet')} ${isOne ? 'carries' : 'carry'} our tags, and no record here accounts for ${isOne ? 'it' : 'them'}`,
    detail: `Nothing destroys ${isOne ? 'it' : 'them'}. Postgres may have been restored from a backup, another environment may share the account, or a saga did not enter its droplet into the inventory.`,
    action: 'Run `arcadia orphans` to see why. Destroy by hand what nobody needs. For what is known, run `arcadia orphans acknowledge <id>`.',
  });
}

function notDestroyed({ droplets: count, since, error }: PostgresFacts['sweepsFailing'], isRetried: boolean): Condition {
  const isOne = count === 1;
  return condition({
    name: 'surplus_not_destroyed', count, since,
    title: `${counted(count, 'surplus droplet')} cannot be destroyed`,
    detail: `${isOne ? 'It exists' : 'They exist'} and ${isOne ? 'costs' : 'cost'} money. ${withStop(error ?? '')}${isRetried ? ' Each sync tries again.' : ''}`,
    action: `Run \`arcadia orphans\`. Remove the cause that the error names, or destroy ${isOne ? 'it' : 'them'} by hand.`,
  });
}

function namesOf(all: readonly string[]): string {
  return `${all.slice(0, MOST_NAMED).join(', ')}${all.length > MOST_NAMED ? ' and others' : ''}`;
}

function ofLeases({ ended, leased, isHeld, endedProtected }: PostgresFacts['leases']): Condition[] {
  const held = condition({
    name: 'leases_held', count: ended,
    title: `${ended} of ${leased} leases ended at once`,
    detail: 'None of their droplets is destroyed until someone approves: Postgres may have been restored from a backup, or its clock may be wrong.',
    action: 'Run `arcadia leases --ended`. Renew what you want to keep, then run `arcadia leases --destroy`.',
  });
  const kept = condition({
    name: 'lease_ended_protected', count: endedProtected,
    title: `The lease of ${endedProtected} protected ${endedProtected === 1 ? 'droplet' : 'droplets'} ended`,
    detail: endedProtected === 1 ? 'It is not destroyed, because it is protected.' : 'They are not destroyed, because they are protected.',
    action: 'Run `arcadia leases --ended`. Renew the lease, or lift the protection: then the droplet is destroyed.',
  });
  return [...(isHeld ? [held] : []), ...(endedProtected > 0 ? [kept] : [])];
}

function noWorker({ workers, now, unfinished }: PostgresFacts): Condition {
  const lastSeenMs = Math.max(...workers.map(({ lastSeenAt }) => lastSeenAt.getTime()));
  const isKnown = workers.length > 0;
  const waiting = unfinished === 0 ? 'No saga is waiting.' : `${counted(unfinished, 'saga')} ${unfinished === 1 ? 'waits' : 'wait'}.`;
  return condition({
    name: 'no_worker', count: unfinished, since: isKnown ? new Date(lastSeenMs) : null,
    title: isKnown ? `No worker has been seen for ${inWords((now.getTime() - lastSeenMs) / 1_000)}` : 'No worker is running',
    detail: waiting,
    action: 'Start a worker, or check the logs of the workers that ended. Sagas then resume by themselves.',
  });
}

function queuesThatDiffer({ queuePlaces }: PostgresFacts, { queuePlace: own }: Limits): Condition[] {
  const theirs = queuePlaces.map(describePlace).toSorted();
  const places = new Set([...theirs, ...(own === undefined ? [] : [describePlace(own)])]);
  if (theirs.length === 0 || places.size < 2) return [];
  return [condition({
    name: 'queues_differ', count: places.size,
    title: 'Not all processes have the same queues',
    detail: `Live workers have theirs in ${theirs.join(' and in ')}${own === undefined ? '' : `; this process has its own in ${describePlace(own)}`}. Jobs and pauses in one place are not seen in another.`,
    action: 'Set REDIS_URL and QUEUE_PREFIX alike for all processes, and restart them. While you move the queues on purpose, this ends with the last restart.',
  })];
}

function describePlace({ kind, prefix }: QueuePlace): string {
  return kind === 'postgres' ? 'Postgres' : `Redis under QUEUE_PREFIX ${prefix}`;
}

function refusal({ kind, request, fields, subject, openedAt, nextProbeAt, message, scopes, held }: RefusedFact, now: Date): Condition {
  const waiting = held === 0 ? '' : ` ${counted(held, 'saga')} ${held === 1 ? 'waits' : 'wait'}.`;
  const common = { since: openedAt, until: nextProbeAt > now ? nextProbeAt : null, count: held } as const;
  if (kind === 'token_refused') {
    return condition({
      ...common, name: 'token_refused',
      title: 'DigitalOcean refuses the token',
      detail: `${withStop(message)}${waiting}`.trim(),
      action: 'Set a valid DIGITALOCEAN_TOKEN and restart the workers. Sagas then resume by themselves.',
    });
  }
  if (kind === 'account_full') {
    return condition({
      ...common, name: 'account_full',
      title: 'The DigitalOcean account is full',
      detail: `${withStop(message)}${waiting}`.trim(),
      action: 'Destroy droplets that nobody needs, or ask DigitalOcean for a higher droplet limit. Sagas then resume by themselves, in their order.',
    });
  }
  const what = `${request ?? 'requests'}${fields.length === 0 ? '' : ` with ${fields.join(', ')}`}`;
  const lack = scopes.length === 0 ? '' : `The token probably lacks the scope ${scopes.join(' or ')}. `;
  return condition({
    ...common, name: 'scope_missing',
    title: `DigitalOcean refuses ${what}${subject === null ? '' : `, so far only for ${subject}`}`,
    detail: `${lack}${withStop(message)}${waiting}`.trim(),
    action: 'Add the scope to the token, or set another token and restart the workers. Sagas then resume by themselves.',
  });
}

// A receiver that is deployed anew refuses a few.
const FAILING_FOR_MS = 60_000;

function notTold({ name, target, pausedAt, pausedReason, failingSince, lastError }: UntoldFact, now: Date): Condition[] {
  if (pausedAt !== null) {
    return [condition({
      name: 'outcomes_paused', since: pausedAt,
      title: `Outcomes to ${target} are paused`,
      detail: withStop(pausedReason ?? ''),
      action: `Check the receiver, then run \`arcadia outcomes resume ${name}\`. Ends of sagas are kept meanwhile, unless the database was restored.`,
    })];
  }
  if (failingSince === null || now.getTime() - failingSince.getTime() < FAILING_FOR_MS) return [];
  return [condition({
    name: 'outcomes_failing', since: failingSince,
    title: `Outcomes do not reach ${target}`,
    detail: withStop(lastError ?? ''),
    action: 'Check the receiver. Deliveries are retried by themselves; those to a webhook are paused after a day without success.',
  })];
}

/** How long a saga may be overdue while a reconciler runs, in seconds: one pass, its jitter, and a failed pass. */
export function overdueLimitSeconds({ reconcileIntervalMs }: Pick<Limits, 'reconcileIntervalMs'>): number {
  return Math.max(30, (3 * reconcileIntervalMs) / 1_000);
}

function isSyncOverdue({ syncAgeSeconds }: PostgresFacts, queues: QueueFacts | null, { inventorySyncIntervalMs }: Limits): boolean {
  // If the queue is paused, another condition reports that.
  if (inventorySyncIntervalMs === null || syncAgeSeconds === null || queues?.paused.includes('inventory') === true) return false;
  return syncAgeSeconds > syncLimitSeconds(inventorySyncIntervalMs);
}

/** How old the inventory may be before it counts as out of date, in seconds. */
export function syncLimitSeconds(inventorySyncIntervalMs: number): number {
  return Math.max(300, (3 * inventorySyncIntervalMs) / 1_000);
}
