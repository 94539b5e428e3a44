// The step that waits until the droplet is active. Each run polls once and, if it is too early, requests another run after the
// poll interval. It holds no worker meanwhile. Waiting has no side effect, so there is nothing to compensate.
import type { z } from 'zod';
import { dropletTextOf, recordedDropletId } from '../inventory/droplet-of-saga.ts';
import type { Action, Droplet } from '../do/schemas.ts';
import { actionSchema } from '../do/schemas.ts';
import { DigitalOceanError } from '../do/errors.ts';
import type { Observation } from '../do/observation-store.ts';
import { isLocalTrouble } from '../platform/error-code.ts';
import type { JsonObject } from '../platform/json.ts';
import type { Step, StepOutcome, StepRun } from '../saga/step.ts';
import { StepFailure, done, waiting } from '../saga/step.ts';
import { addressesOf, missingAddresses } from './addresses.ts';
import { waitLimitMs } from './inputs.ts';
import type { StepDeps, StepSettings } from './deps.ts';
import { dropletFamily } from './family.ts';
import { recordedWave } from './intents.ts';
import { provisionDropletOutputs } from './outputs.ts';
import { recordContradiction } from './ownership.ts';
import { stepAgeMs } from '../saga/stamps.ts';

// For this fraction of the poll interval, all waiting sagas share the result of one read.
const SHARED_FOR = 0.2;

// A droplet counts as gone only after a second read confirms it.
const MISSES_UNTIL_GONE = 2;

const SOONEST_LOOK_MS = 250;

// A create takes about half a minute. After an eighth of all polls (a minute by default), the step reads the create action to
// see whether it failed. The intervals then grow by half: six reads in a wait that lasts to its limit.
const FIRST_ASKED_AFTER = 1 / 8;
const ASKED_AGAIN_AFTER = 1.5;

const adds = provisionDropletOutputs.pick({ public_ipv4: true, private_ipv4: true, public_ipv6: true });
type Outcome = StepOutcome<z.infer<typeof adds>>;

export const waitDropletActive: Step<StepDeps, JsonObject, z.infer<typeof adds>> = {
  name: 'wait_droplet_active',
  family: dropletFamily,
  needs: provisionDropletOutputs.pick({ droplet_id: true }),
  adds,
  words: {
    doing: 'waiting for the droplet to become active',
    provider: 'DigitalOcean',
    notYet: (saga) => `droplet ${dropletTextOf(saga)} is not active yet`,
    limitMs: waitLimitMs,
    milestone: 'active',
  },

  async execute(run, deps) {
    const dropletId = recordedDropletId(run.saga);
    if (dropletId === null) throw new StepFailure({ code: 'no_droplet', message: 'no droplet is on record', retryable: false });
    let droplet: Droplet | null;
    let ageMs: number;
    try {
      ({ droplet, ageMs } = await observe(dropletId, run, deps));
    } catch (error) {
      const known = error instanceof DigitalOceanError && error.kind === 'throttled' ? await recallActive(dropletId, run, deps) : null;
      if (known !== null) return known;
      // A poll without an observation neither counts nor fails the step.
      // Without request budget, poll again no sooner than usual: many sagas wait, and one of them reads for all.
      if (error instanceof DigitalOceanError && (error.kind === 'later' || error.code === 'request_budget')) {
        const roomInMs = error.kind === 'throttled' ? (error.retryAfterMs ?? 0) : 0;
        return waiting(Math.max(deps.settings.pollIntervalMs, roomInMs), `could not read droplet ${dropletId}: ${error.message}`, { memo: run.memo, alarm: isLocalTrouble(error) });
      }
      throw error;
    }
    if (droplet === null || mayHaveFailed(droplet, run, deps.settings)) {
      const action = await findErroredCreate(dropletId, droplet, run, deps);
      if (action !== null) throw placementFailed(dropletId, action);
    }
    return soonerBy(ageMs, judge(droplet, dropletId, run, deps.settings));
  },

  async compensate() {
    return done({}, 'waiting left nothing to undo');
  },
};

/**
 * Observes the droplet once. It may share a read of a moment ago as long as that shows "active" or "not yet". For anything
 * worse, it reads the droplet by itself.
 */
async function observe(dropletId: number, run: StepRun, deps: StepDeps): Promise<Observation> {
  const maxAgeMs = Math.floor(deps.settings.pollIntervalMs * SHARED_FOR);
  const seen = await deps.droplets.observe(dropletId, { wave: recordedWave(run.saga), maxAgeMs });
  if (seen.droplet === null || seen.ageMs <= 0) return seen;
  try {
    judge(seen.droplet, dropletId, run, deps.settings);
    return seen;
  } catch {
    return deps.droplets.observe(dropletId, { wave: null, maxAgeMs: 0 });
  }
}

/**
 * Concludes from what a list showed of the droplet up to two minutes ago, if that suffices; null: it does not. While creates
 * use the budget up, a list is read every few seconds at most, and nearly no saga polls just then.
 */
async function recallActive(dropletId: number, run: StepRun, deps: StepDeps): Promise<Outcome | null> {
  const known = await deps.droplets.recall(dropletId);
  if (known?.droplet?.status !== 'active') return null;
  try {
    const outcome = judge(known.droplet, dropletId, run, deps.settings);
    return outcome.kind === 'done' ? outcome : null;
  } catch {
    return null;
  }
}

/** The next poll is due one interval after the observation, so that polls that shared a read are due together. */
function soonerBy(ageMs: number, outcome: Outcome): Outcome {
  return outcome.kind === 'waiting' ? { ...outcome, delayMs: Math.max(0, Math.round(outcome.delayMs - ageMs)) } : outcome;
}

/** Whether to read the create action now: rarely, and only for slow creates. */
function mayHaveFailed(droplet: Droplet, run: StepRun, settings: StepSettings): boolean {
  if (droplet.status === 'active' || droplet.status === 'off') return false;
  const polls = pollsWithThis(run);
  let due = Math.max(2, Math.ceil(settings.maxPolls * FIRST_ASKED_AFTER));
  while (due < polls) due = Math.ceil(due * ASKED_AGAIN_AFTER);
  return due === polls || isOver(polls, run, settings);
}

/**
 * Returns the create action of the droplet if it is `errored`. That is definitive; a 404 or `new` is not. Null: not errored, or
 * unknown.
 */
async function findErroredCreate(dropletId: number, droplet: Droplet | null, run: StepRun, { digitalOcean }: StepDeps): Promise<Action | null> {
  try {
    const actionId = run.saga.context['create_action_id'];
    // A droplet found by its tag came without the answer that names its action.
    const list = async () => (droplet === null ? [] : digitalOcean.listPaginated(`/v2/droplets/${dropletId}/actions`, 'actions', { itemSchema: actionSchema }));
    const actions = typeof actionId === 'number' ? [await digitalOcean.getAction(actionId)] : (await list()).filter(({ type }) => type === 'create');
    return actions.find((action) => action?.status === 'errored' && (action.resource_id ?? dropletId) === dropletId) ?? null;
  } catch (error) {
    if (!(error instanceof DigitalOceanError)) throw error;
    // The droplet itself was observed: this poll counts, and the action is read again later.
    if (droplet !== null || error.kind !== 'throttled') return null;
    throw error;
  }
}

function placementFailed(dropletId: number, action: Action): StepFailure {
  const ended = action.completed_at === null ? '' : ` at ${action.completed_at}`;
  return new StepFailure({
    code: 'droplet_placement_failed',
    message: `DigitalOcean accepted droplet ${dropletId} but could not place it: its create action ${action.id} failed${ended}`,
    retryable: false,
  });
}

function judge(droplet: Droplet | null, dropletId: number, run: StepRun, settings: StepSettings): Outcome {
  if (droplet === null) return judgeAbsence(dropletId, run, settings);
  const contradicted = recordContradiction(droplet, run.saga);
  if (contradicted !== null) {
    throw new StepFailure({ code: 'droplet_not_ours', message: `droplet ${dropletId} is not this saga's: ${contradicted}`, retryable: false });
  }
  if (droplet.status === 'archive') {
    throw new StepFailure({ code: 'droplet_archived', message: `droplet ${dropletId} was archived`, retryable: false });
  }
  const polls = pollsWithThis(run);
  const missing = missingAddresses(droplet, run.saga);
  if (droplet.status === 'active' && missing.length === 0) {
    return done(addressesOf(droplet), `droplet ${dropletId} is active after ${polls} ${polls === 1 ? 'poll' : 'polls'}`);
  }
  const isActive = droplet.status === 'active';
  const lack = isActive ? `is active, but has no ${missing.join(' and no ')}` : `is ${droplet.status}`;
  // The limit is both a duration, by the database's clock, and a number of polls. So neither a paused queue nor a poll promoted
  // by hand ends the wait early.
  if (!isOver(polls, run, settings)) return waiting(untilNextLook(run, settings), `droplet ${dropletId} ${lack}`, { memo: { polls } });
  throw new StepFailure({
    code: isActive ? 'droplet_without_address' : 'droplet_not_active',
    message: `droplet ${dropletId} ${isActive ? lack : `was still \`${droplet.status}\``} after ${polls} polls (${Math.round(stepAgeMs(run) / 1000)} s)`,
    retryable: false,
  });
}

/** A 404 for a young droplet means that it is not visible yet; a lasting 404 means that it is gone. */
function judgeAbsence(dropletId: number, run: StepRun, settings: StepSettings): Outcome {
  const isYoung = stepAgeMs(run) < settings.adoptionGraceMs;
  const misses = isYoung ? 0 : (run.memo['misses'] ?? 0) + 1;
  if (misses < MISSES_UNTIL_GONE) {
    return waiting(settings.pollIntervalMs, `droplet ${dropletId} is not visible yet`, { memo: { polls: pollsWithThis(run), misses } });
  }
  throw new StepFailure({
    code: 'droplet_gone',
    message: `DigitalOcean accepted droplet ${dropletId} but no longer has it: its placement failed, or somebody destroyed it`,
    retryable: false,
  });
}

function isOver(polls: number, run: StepRun, { maxPolls, pollIntervalMs }: StepSettings): boolean {
  const limitMs = waitLimitMs(run.saga);
  if (limitMs === null) return polls >= maxPolls && stepAgeMs(run) >= maxPolls * pollIntervalMs;
  // The limit in the input is a duration. It takes two polls, so that the first poll after a paused queue does not end the wait.
  return polls >= 2 && stepAgeMs(run) >= limitMs;
}

/** The limit in the input is exact to the second: the last poll is due when it ends. */
function untilNextLook(run: StepRun, { pollIntervalMs }: StepSettings): number {
  const limitMs = waitLimitMs(run.saga);
  return limitMs === null ? pollIntervalMs : Math.min(pollIntervalMs, Math.max(SOONEST_LOOK_MS, limitMs - stepAgeMs(run)));
}

function pollsWithThis(run: StepRun): number {
  return (run.memo['polls'] ?? 0) + 1;
}
