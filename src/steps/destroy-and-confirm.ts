// Destroying a droplet for good: DELETE, then looks until a GET says 404. DigitalOcean answers a DELETE before the droplet
// is gone, refuses one while an action is running on the droplet, and may lose the one of a droplet that is still `new`.
import type { DigitalOceanClient } from '../do/client.ts';
import type { JsonObject } from '../platform/json.ts';
import type { Droplet } from '../do/schemas.ts';
import type { StepOutcome, StepRun } from '../saga/step.ts';
import { StepFailure, waiting } from '../saga/step.ts';
import type { StepDeps } from './deps.ts';
import { stampAgeMs } from '../saga/stamps.ts';

/** What became of a droplet; `waiting`: DigitalOcean accepted its deletion, and still shows it. */
export type DestroyResult = 'destroyed' | 'absent' | Waiting;

export type Waiting = Extract<StepOutcome, { kind: 'waiting' }>;

// After each DELETE that did not take, the next one comes that much later, up to so many times the first interval.
const LONGEST_INTERVALS = 5;

// A droplet is looked at again after a quarter of the time since its DELETE, at most so many poll intervals later.
const LONGEST_PAUSE_POLLS = 12;

/**
 * Destroys a droplet and makes sure that it is gone. After a DELETE that DigitalOcean accepted it only looks, for
 * `deleteAgainAfterMs` at least, before it sends another: DigitalOcean has blocked an account for repeated deletions.
 *
 * @param alongside what else is to be written with a deletion that was accepted
 * @param seen what a GET showed a moment ago, where the caller has looked
 * @returns `destroyed`; `absent` when neither DELETE nor GET found it; or a wait for the step to return
 * @throws {StepFailure} when it is still there after `maxDeletes` accepted deletions (not to be retried by itself), or when
 *   a DELETE says 404 of a droplet that a GET shows (to be retried); whatever the client throws
 */
export async function destroyAndConfirm(
  dropletId: number,
  run: StepRun,
  deps: Pick<StepDeps, 'digitalOcean' | 'settings'>,
  seen?: Droplet | null,
  alongside: JsonObject = {},
): Promise<DestroyResult> {
  const { settings } = deps;
  const accepted = acceptedDeletion(dropletId, run);
  if (accepted !== null) {
    const left = seen === undefined ? await deps.digitalOcean.getDroplet(dropletId) : seen;
    if (left === null) return 'destroyed';
    const againInMs = settings.deleteAgainAfterMs * Math.min(accepted.count, LONGEST_INTERVALS) - accepted.ageMs;
    if (againInMs > 0) return waitUntilGone(dropletId, accepted.ageMs, againInMs, settings.pollIntervalMs);
    if (accepted.count >= settings.maxDeletes) throw stillThere(left, accepted.count);
  }
  const { answer, left } = await deleteAndLook(dropletId, deps.digitalOcean);
  if (left === null) return answer === 'destroyed' || accepted !== null ? 'destroyed' : 'absent';
  if (answer === 'absent') {
    throw new StepFailure({
      code: 'droplet_still_there',
      message: `DigitalOcean answered the deletion of droplet ${dropletId} with 404, but still shows it (${left.status})`,
      retryable: true,
      patient: true,
    });
  }
  await run.record(`DigitalOcean accepted the deletion of droplet ${dropletId}`, { [countKey(dropletId)]: (accepted?.count ?? 0) + 1, ...alongside }, [timeKey(dropletId)]);
  return waitUntilGone(dropletId, 0, settings.deleteAgainAfterMs, settings.pollIntervalMs);
}

/** Sends one DELETE, and looks once. `left`: the droplet, where it is still shown; it may yet go. */
export async function deleteAndLook(dropletId: number, digitalOcean: DigitalOceanClient): Promise<{ answer: 'destroyed' | 'absent'; left: Droplet | null }> {
  const answer = await digitalOcean.destroyDroplet(dropletId);
  return { answer, left: await digitalOcean.getDroplet(dropletId) };
}

/** Whether DigitalOcean has accepted a deletion of this droplet from this saga. */
export function isDeletionAccepted(dropletId: number, run: Pick<StepRun, 'saga'>): boolean {
  return run.saga.context[timeKey(dropletId)] !== undefined;
}

/** The last deletion that DigitalOcean accepted, and how many it did; null: none. */
function acceptedDeletion(dropletId: number, run: Pick<StepRun, 'saga' | 'now'>): { ageMs: number; count: number } | null {
  const ageMs = stampAgeMs(run, timeKey(dropletId));
  if (ageMs === null) return null;
  const count = run.saga.context[countKey(dropletId)];
  return { ageMs: Math.max(0, ageMs), count: typeof count === 'number' ? count : 1 };
}

/** Of two waits, the one that ends sooner. */
export function soonerOf(one: Waiting | null, other: Waiting): Waiting {
  return one === null || other.delayMs < one.delayMs ? other : one;
}

function waitUntilGone(dropletId: number, ageMs: number, againInMs: number, pollIntervalMs: number): Waiting {
  const pauseMs = Math.min(Math.max(pollIntervalMs, ageMs / 4), LONGEST_PAUSE_POLLS * pollIntervalMs, againInMs);
  return waiting(Math.ceil(pauseMs), `DigitalOcean accepted the deletion of droplet ${dropletId}: waiting until it is gone`);
}

/** A retry by a person begins with another DELETE. */
function stillThere(left: Droplet, count: number): StepFailure {
  return new StepFailure(
    {
      code: 'droplet_still_there',
      message: `droplet ${left.id} still exists (${left.status}) although DigitalOcean accepted its deletion ${count} ${count === 1 ? 'time' : 'times'}`,
      retryable: false,
    },
    { [countKey(left.id)]: 0 },
  );
}

function timeKey(dropletId: number): string {
  return `deletion_accepted_at_${dropletId}`;
}

function countKey(dropletId: number): string {
  return `deletions_accepted_${dropletId}`;
}
