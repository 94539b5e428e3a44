// What a droplet is booted with, opened for the request that needs it.
import type { JsonObject } from '../platform/json.ts';
import { BrokenSealError, MissingKeyError } from '../platform/key-ring.ts';
import type { StepOutcome, StepRun } from '../saga/step.ts';
import { waiting } from '../saga/step.ts';
import type { StepDeps } from './deps.ts';

/** How often a worker that lacks the key looks again. A key comes with a restart, or another worker has it. */
const MISSING_KEY_DELAY_MS = 15_000;

/** `outputs` are to be written with what comes next. */
type Opened = Readonly<{ kind: 'opened'; text: string | undefined; outputs: JsonObject }>;

/**
 * Opens a saga's user data; or says what came of trying. A lost key is the operator's to bring back, and rolls back
 * nothing; a broken seal can't be mended.
 */
export async function openUserData(run: StepRun, deps: Pick<StepDeps, 'openUserData'>): Promise<Opened | StepOutcome> {
  if (run.saga.input['user_data'] === undefined) return { kind: 'opened', text: undefined, outputs: {} };
  const missed = run.saga.context['missing_encryption_key'] ?? null;
  try {
    const text = await deps.openUserData(run.claim);
    return { kind: 'opened', text, outputs: missed === null ? {} : { missing_encryption_key: null } };
  } catch (error) {
    if (error instanceof MissingKeyError) {
      const reason = `user_data is ${error.message}. Add the key to every worker; the saga goes on by itself`;
      // Said once in the timeline; each time in the log.
      const outputs = missed === error.keyId ? {} : { outputs: { missing_encryption_key: error.keyId } };
      return waiting(MISSING_KEY_DELAY_MS, reason, { alarm: true, ...outputs });
    }
    if (error instanceof BrokenSealError) {
      return { kind: 'failed', error: { code: 'user_data_unreadable', message: `user_data cannot be opened: ${error.message}`, retryable: false } };
    }
    throw error;
  }
}
