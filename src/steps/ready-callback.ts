// The callback by which a droplet reports that it is ready. Its URL is added to the user data before the create.
import { MissingKeyError } from '../platform/key-ring.ts';
import type { StepRun } from '../saga/step.ts';
import { StepFailure, StepWait, waiting } from '../saga/step.ts';
import type { Readiness, StepDeps } from './deps.ts';
import { readyOf } from './inputs.ts';
import { withCallback } from '../platform/cloud-init.ts';

// The worker gets the key with a restart, or another worker has it.
const MISSING_KEY_DELAY_MS = 15_000;

/**
 * Adds the callback to a saga's user data if the input requests it. All creates of the saga share one URL.
 *
 * @param secret the caller's user data
 * @throws {StepFailure} `ready_callback_unavailable`: nothing was created; {StepWait} while this worker lacks the key of the token
 */
export async function prepareUserData(run: StepRun, { readiness }: Pick<StepDeps, 'readiness'>, secret: string | undefined): Promise<string | undefined> {
  if (readyOf(run.saga)?.callback !== true) return secret;
  const publicUrl = requireCallbacks(readiness);
  try {
    const token = await readiness.callbacks.issue(run.saga.id);
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
