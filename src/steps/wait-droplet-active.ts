// The step that waits for the droplet to become active. It looks once and, if it is too early, asks to be run again
// after the poll interval: nothing is held meanwhile. Waiting has no side effect, so there is nothing to undo.
import type { Droplet } from '../do/schemas.ts';
import { DigitalOceanError } from '../do/errors.ts';
import type { Look } from '../do/observer.ts';
import type { JsonObject } from '../json.ts';
import type { Saga } from '../saga/saga.ts';
import type { Memo, Step, StepOutcome, StepRun } from '../saga/step.ts';
import { StepFailure, done, waiting } from '../saga/step.ts';
import { msBetween } from '../time.ts';
import type { StepDeps, StepSettings } from './deps.ts';
import { recordedDropletId, recordedWave } from './intents.ts';
import { contradiction } from './ownership.ts';

// For this part of the poll interval, what one read has shown holds for everybody who waits.
const SHARED_FOR = 0.2;

// A droplet is not gone before a second look says so too.
const MISSES_UNTIL_GONE = 2;

export const waitDropletActive: Step<StepDeps> = {
  name: 'wait_droplet_active',

  async execute(run, deps) {
    const dropletId = recordedDropletId(run.saga);
    if (dropletId === null) throw new StepFailure({ code: 'no_droplet', message: 'no droplet is on record', retryable: false });
    let droplet: Droplet | null;
    let ageMs: number;
    try {
      ({ droplet, ageMs } = await look(dropletId, run, deps));
    } catch (error) {
      // A poll that could not observe doesn't count, and fails nothing.
      // Without budget, however soon there is some, no sooner than any poll: there are many, and one of them reads for all.
      if (error instanceof DigitalOceanError && (error.kind === 'later' || error.code === 'request_budget')) {
        const roomInMs = error.kind === 'throttled' ? (error.retryAfterMs ?? 0) : 0;
        return waiting(Math.max(deps.settings.pollIntervalMs, roomInMs), `could not look at droplet ${dropletId}: ${error.message}`, { memo: run.memo });
      }
      throw error;
    }
    if (droplet === null && (await isPlacementFailed(run, deps))) {
      throw new StepFailure({ code: 'droplet_placement_failed', message: `DigitalOcean accepted droplet ${dropletId}, and could not place it`, retryable: false });
    }
    return soonerBy(ageMs, judge(droplet, dropletId, run, deps.settings));
  },

  async compensate() {
    return done({}, 'waiting left nothing to undo');
  },
};

/**
 * One look; it may be one that somebody else had a moment ago, as long as nothing is concluded from it but "active" or
 * "not yet". For anything worse, the droplet is read again, by itself.
 */
async function look(dropletId: number, run: StepRun, deps: StepDeps): Promise<Look> {
  const maxAgeMs = Math.floor(deps.settings.pollIntervalMs * SHARED_FOR);
  const seen = await deps.droplets.look(dropletId, { wave: recordedWave(run.saga), maxAgeMs });
  if (seen.droplet === null || seen.ageMs <= 0) return seen;
  try {
    judge(seen.droplet, dropletId, run, deps.settings);
    return seen;
  } catch {
    return deps.droplets.look(dropletId, { wave: null, maxAgeMs: 0 });
  }
}

/** The next poll is due an interval after what was seen was so: polls that shared a read come due together. */
function soonerBy(ageMs: number, outcome: StepOutcome): StepOutcome {
  return outcome.kind === 'waiting' ? { ...outcome, delayMs: Math.max(0, Math.round(outcome.delayMs - ageMs)) } : outcome;
}

/** An `errored` create action is definitive, where a 404 is not. */
async function isPlacementFailed(run: StepRun, deps: StepDeps): Promise<boolean> {
  const actionId = run.saga.context['create_action_id'];
  if (typeof actionId !== 'number') return false;
  try {
    return (await deps.digitalOcean.getAction(actionId))?.status === 'errored';
  } catch (error) {
    if (error instanceof DigitalOceanError && error.kind !== 'throttled') return false;
    throw error;
  }
}

function judge(droplet: Droplet | null, dropletId: number, run: StepRun, settings: StepSettings): StepOutcome {
  if (droplet === null) return judgeAbsence(dropletId, run, settings);
  const contradicted = contradiction(droplet, run.saga);
  if (contradicted !== null) {
    throw new StepFailure({ code: 'droplet_not_ours', message: `droplet ${dropletId} is not this saga's: ${contradicted}`, retryable: false });
  }
  if (droplet.status === 'archive') {
    throw new StepFailure({ code: 'droplet_archived', message: `droplet ${dropletId} was archived`, retryable: false });
  }
  const polls = (run.memo['polls'] ?? 0) + 1;
  const addresses = addressesOf(droplet);
  if (droplet.status === 'active' && hasExpectedAddress(addresses, run.saga)) {
    return done(addresses, `droplet ${dropletId} is active after ${polls} ${polls === 1 ? 'poll' : 'polls'}`);
  }
  const lack = droplet.status === 'active' ? 'active, without the address that was asked for' : droplet.status;
  return judgeDelay(`droplet ${dropletId} is ${lack}`, { polls }, run, settings);
}

/** A 404 of a young droplet means that it is not visible yet; a lasting one, that it is gone. */
function judgeAbsence(dropletId: number, run: StepRun, settings: StepSettings): StepOutcome {
  const misses = (run.memo['misses'] ?? 0) + 1;
  const polls = (run.memo['polls'] ?? 0) + 1;
  const isYoung = elapsedMs(run) < settings.adoptionGraceMs;
  if (isYoung || misses < MISSES_UNTIL_GONE) {
    return waiting(settings.pollIntervalMs, `droplet ${dropletId} is not visible yet`, { memo: { polls, misses: isYoung ? 0 : misses } });
  }
  throw new StepFailure({
    code: 'droplet_gone',
    message: `DigitalOcean accepted droplet ${dropletId}, and has no such droplet now: its placement failed, or somebody destroyed it`,
    retryable: false,
  });
}

/**
 * The limit is the time of so many polls, by the database's clock, and so many looks: neither a pause of the queue nor
 * a poll promoted by hand brings it on.
 */
function judgeDelay(what: string, memo: Memo & { polls: number }, run: StepRun, settings: StepSettings): StepOutcome {
  const limitMs = settings.maxPolls * settings.pollIntervalMs;
  if (memo.polls < settings.maxPolls || elapsedMs(run) < limitMs) return waiting(settings.pollIntervalMs, what, { memo });
  throw new StepFailure({
    code: 'droplet_not_active',
    message: `${what} after ${memo.polls} polls in ${Math.round(elapsedMs(run) / 1000)} s`,
    retryable: false,
  });
}

function elapsedMs(run: StepRun): number {
  return msBetween(run.saga.stepStartedAt, run.now);
}

function addressesOf(droplet: Droplet): JsonObject {
  const { v4, v6 } = droplet.networks;
  return { public_ipv4: firstOf(v4, 'public'), private_ipv4: firstOf(v4, 'private'), public_ipv6: firstOf(v6, 'public') };
}

function firstOf(networks: Droplet['networks']['v4'], type: 'public' | 'private'): string | null {
  return networks.find((network) => network.type === type)?.ip_address ?? null;
}

function hasExpectedAddress(addresses: JsonObject, saga: Saga): boolean {
  const expected = saga.input['public_networking'] === false ? 'private_ipv4' : 'public_ipv4';
  return addresses[expected] !== null;
}
