// Opens a saga's secret for the step that needs it: see secrets.ts.
import type { Database } from '../platform/db.ts';
import type { KeyRing } from '../platform/key-ring.ts';
import { BrokenSealError, MissingKeyError, open } from '../platform/key-ring.ts';
import { MISSING_KEY, isSealedMark, secretOwner, unpack } from './secrets.ts';
import type { Claim, StepOutcome, StepRun } from './step.ts';
import { StaleRevisionError, StepFailure, StepWait, waiting } from './step.ts';

/** Reads and opens a secret; undefined if the input has none with this name. */
export type OpenSecret = (claim: Claim, field: string) => Promise<string | undefined>;

/**
 * The secrets that one run of a step opens. They are also removed from the step's texts, because providers repeat them in
 * their errors.
 */
export type OpenedSecrets = Readonly<{ open: OpenSecret | undefined; hide(text: string): string; hideIn(outcome: StepOutcome): StepOutcome }>;

// A shorter secret may be part of an ordinary word.
const MIN_HIDDEN_LENGTH = 6;

/** Retry interval of a worker that lacks the key. The key arrives with a restart, or another worker has it. */
const MISSING_KEY_DELAY_MS = 15_000;

/**
 * Reads and opens a secret of a saga; undefined if its input has none with this name.
 *
 * @throws {StaleRevisionError} if the saga has moved on
 * @throws {MissingKeyError} if this process lacks the key
 * @throws {BrokenSealError} if the sealed value was changed, belongs to another saga or field, or is missing
 */
export async function openSecret(db: Pick<Database, 'run'>, keyRing: KeyRing, { sagaId, revision }: Claim, field: string): Promise<string | undefined> {
  const [row] = await db.run(
    // The name from when this was the only secret. People search traces by it.
    'user_data.read',
    (sql) => sql<{ sealed: string | null; fingerprint: string | null; shown: string | null }[]>`
      select sealed_user_data as sealed, user_data_fingerprint as fingerprint, input->>${field}::text as shown
      from arcadia.sagas where id = ${sagaId} and revision = ${revision}`,
  );
  if (row === undefined) throw new StaleRevisionError(`saga ${sagaId} has moved on from revision ${revision}`);
  const sealed = unpack(row.sealed)[field];
  if (sealed !== undefined) return open(keyRing, secretOwner(sagaId, field), sealed);
  if (unpack(row.fingerprint)[field] !== undefined) throw new BrokenSealError();
  if (isSealedMark(row.shown)) throw new BrokenSealError();
  // A version without sealing started this saga.
  return row.shown ?? undefined;
}

/** Remembers opened secrets and hides them in the step's texts. The step's outputs are left unchanged. */
export function rememberSecrets(openOne: OpenSecret | undefined): OpenedSecrets {
  const opened = new Map<string, string>();
  const hide = (text: string): string => {
    let shown = text;
    for (const [form, field] of opened) shown = shown.replaceAll(form, `[${field}]`);
    return shown;
  };
  const hideIn = (outcome: StepOutcome): StepOutcome => {
    if (opened.size === 0) return outcome;
    if (outcome.kind === 'failed') return { ...outcome, error: { ...outcome.error, code: hide(outcome.error.code), message: hide(outcome.error.message) } };
    if (outcome.kind === 'waiting') return { ...outcome, reason: hide(outcome.reason) };
    return outcome.note === undefined ? outcome : { ...outcome, note: hide(outcome.note) };
  };
  if (openOne === undefined) return { open: openOne, hide, hideIn };
  const open: OpenSecret = async (claim, field) => {
    const text = await openOne(claim, field);
    if (text !== undefined && text.length >= MIN_HIDDEN_LENGTH) for (const form of [text, JSON.stringify(text).slice(1, -1), encodeURIComponent(text)]) opened.set(form, field);
    return text;
  };
  return { open, hide, hideIn };
}

/**
 * Opens a secret for a step. A missing key does not cause a rollback, because the operator can restore it. A broken seal
 * cannot be repaired.
 *
 * @throws {StepWait} while this worker lacks the key; {StepFailure} `<field>_unreadable`; {StaleRevisionError}
 */
export async function secretFor(run: Pick<StepRun, 'saga' | 'claim' | 'record'>, field: string, openOne: OpenSecret | undefined): Promise<string | undefined> {
  if ((run.saga.input[field] ?? null) === null) return undefined;
  if (openOne === undefined) throw new Error('no secrets can be opened here');
  const missed = run.saga.context[MISSING_KEY] ?? null;
  let text: string | undefined;
  try {
    text = await openOne(run.claim, field);
  } catch (error) {
    if (error instanceof MissingKeyError) {
      const reason = `${field} is ${error.message}. Add the key to every worker; the saga then resumes by itself`;
      // Appears once in the timeline, and every time in the log.
      const outputs = missed === error.keyId ? {} : { outputs: { [MISSING_KEY]: error.keyId } };
      throw new StepWait(waiting(MISSING_KEY_DELAY_MS, reason, { alarm: true, ...outputs }));
    }
    if (error instanceof BrokenSealError) {
      throw new StepFailure({ code: `${field}_unreadable`, message: `${field} cannot be opened: ${error.message}`, retryable: false });
    }
    throw error;
  }
  if (missed !== null) await run.record(`the key of ${field} is available again`, { [MISSING_KEY]: null });
  return text;
}
