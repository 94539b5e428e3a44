// What a droplet is booted with, opened for the request that needs it.
import { BrokenSealError, MissingKeyError } from '../platform/key-ring.ts';
import type { StepRun } from '../saga/step.ts';
import { StepFailure, StepWait, waiting } from '../saga/step.ts';
import type { StepDeps } from './deps.ts';

/** How often a worker that lacks the key looks again. A key comes with a restart, or another worker has it. */
const MISSING_KEY_DELAY_MS = 15_000;

/**
 * Opens a saga's user data; undefined where it has none. A lost key is the operator's to bring back, and rolls back nothing; a
 * broken seal can't be mended.
 *
 * @throws {StepWait} while this worker lacks the key; {StepFailure} `user_data_unreadable`; {StaleRevisionError}
 */
export async function openUserData(run: StepRun, deps: Pick<StepDeps, 'openUserData'>): Promise<string | undefined> {
  if (run.saga.input['user_data'] === undefined) return undefined;
  const missed = run.saga.context['missing_encryption_key'] ?? null;
  let text: string;
  try {
    text = await deps.openUserData(run.claim);
  } catch (error) {
    if (error instanceof MissingKeyError) {
      const reason = `user_data is ${error.message}. Add the key to every worker; the saga goes on by itself`;
      // Said once in the timeline; each time in the log.
      const outputs = missed === error.keyId ? {} : { outputs: { missing_encryption_key: error.keyId } };
      throw new StepWait(waiting(MISSING_KEY_DELAY_MS, reason, { alarm: true, ...outputs }));
    }
    if (error instanceof BrokenSealError) {
      throw new StepFailure({ code: 'user_data_unreadable', message: `user_data cannot be opened: ${error.message}`, retryable: false });
    }
    throw error;
  }
  if (missed !== null) await run.record('the key of user_data is there again', { missing_encryption_key: null });
  return text;
}
