// The callback by which a droplet reports that it is ready. Its URL is added to the user data before the create. A saga whose create
// got no answer may end up with two droplets, so each of these creates has a callback of its own. The droplet's wave tag tells which
// create made it.
import type { JsonObject } from '../platform/json.ts';
import { MissingKeyError } from '../platform/key-ring.ts';
import type { Saga } from '../saga/saga.ts';
import type { StepRun } from '../saga/step.ts';
import { StepFailure, StepWait, waiting } from '../saga/step.ts';
import type { Readiness, StepDeps } from './deps.ts';
import { readyOf } from './inputs.ts';
import { creates, recordedWave } from './intents.ts';
import { waveTag } from './ownership.ts';
import { withCallback } from '../platform/cloud-init.ts';

// The worker gets the key with a restart, or another worker has it.
const MISSING_KEY_DELAY_MS = 15_000;

/** The waves of the creates that may have made a droplet, by the number of their callback. */
const WAVES_FIELD = 'create_waves';

/**
 * Chooses the wave of the next create.
 *
 * @returns `announces`: what to record with the announcement, so that the droplet's callback is known by its wave
 */
export function planCreate(run: Pick<StepRun, 'saga' | 'now'>): Readonly<{ wave: string; number: number; announces: JsonObject }> {
  // A refused create made nothing, so the next one may have its number.
  const number = creates(run).unanswered;
  if (readyOf(run.saga)?.callback !== true) return { wave: waveTag(run.now), number, announces: {} };
  const known = wavesOf(run.saga);
  // An older version announced its creates without a wave.
  const earlier = Array.from({ length: number }, (_, index) => known[index] ?? '');
  let back = 0;
  while (earlier.includes(waveTag(run.now, back))) back += 1;
  const wave = waveTag(run.now, back);
  return { wave, number, announces: { [WAVES_FIELD]: [...earlier, wave] } };
}

/** Returns the number of the callback of the saga's droplet; null: it could be one of several. */
export function callbackOfDroplet(saga: Pick<Saga, 'context'>): number | null {
  const waves = wavesOf(saga);
  if (waves.length <= 1) return 0;
  const wave = recordedWave(saga)?.toLowerCase();
  // A droplet of no announced wave is an older version's, which knows one callback.
  return wave === undefined ? null : Math.max(0, waves.indexOf(wave));
}

function wavesOf({ context }: Pick<Saga, 'context'>): readonly string[] {
  const waves = context[WAVES_FIELD];
  return Array.isArray(waves) ? waves.filter((wave) => typeof wave === 'string') : [];
}

/**
 * Adds the callback to a saga's user data if the input requests it.
 *
 * @param create the caller's user data, and the number of the callback
 * @throws {StepFailure} `ready_callback_unavailable`: nothing was created; {StepWait} while this worker lacks the key of the token
 */
export async function prepareUserData(run: StepRun, { readiness }: Pick<StepDeps, 'readiness'>, { secret, number }: { secret: string | undefined; number: number }): Promise<string | undefined> {
  if (readyOf(run.saga)?.callback !== true) return secret;
  const publicUrl = requireCallbacks(readiness);
  try {
    const token = await readiness.callbacks.issue(run.saga.id, number);
    return withCallback(secret ?? null, `${publicUrl}/v1/ready/${token}`);
  } catch (error) {
    if (!(error instanceof MissingKeyError)) throw error;
    throw new StepWait(waiting(MISSING_KEY_DELAY_MS, `the token of the callback was ${error.message.replace('sealed', 'made')}. Add the key to every worker; the saga then resumes by itself`, { alarm: true }));
  }
}

function requireCallbacks({ publicUrl, canIssue }: Readiness): string {
  if (publicUrl === null) throw unavailable('PUBLIC_URL is not set for the workers: set it to the address by which droplets reach the web, such as https://arcadia.example.com');
  if (!canIssue) throw unavailable('ARCADIA_ENCRYPTION_KEYS is not set for the workers: its token is made from a key');
  return publicUrl;
}

function unavailable(why: string): StepFailure {
  return new StepFailure({ code: 'ready_callback_unavailable', message: `the droplet cannot call back, so nothing was created. ${why}`, retryable: false });
}
