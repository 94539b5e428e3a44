// Opens a secret of a saga for the step that needs it: see secrets.ts.
import type { Database } from '../platform/db.ts';
import type { KeyRing } from '../platform/key-ring.ts';
import { BrokenSealError, MissingKeyError, open } from '../platform/key-ring.ts';
import { secretOwner, unpack } from './secrets.ts';
import type { Claim, StepOutcome, StepRun } from './step.ts';
import { StaleRevisionError, StepFailure, StepWait, waiting } from './step.ts';

/** Reads and opens a secret; undefined where the input has none under this name. */
export type OpenSecret = (claim: Claim, field: string) => Promise<string | undefined>;

/** The secrets that one run of a step opens, and what the step says without them: providers repeat them in their errors. */
export type OpenedSecrets = Readonly<{ open: OpenSecret | undefined; hide(text: string): string; hideIn(outcome: StepOutcome): StepOutcome }>;

// A shorter secret may be a part of any word.
const MIN_HIDDEN_LENGTH = 6;

/** How often a worker that lacks the key looks again. A key comes with a restart, or another worker has it. */
const MISSING_KEY_DELAY_MS = 15_000;

/**
 * Reads and opens a secret of a saga; undefined where its input has none under this name.
 *
 * @throws {StaleRevisionError} when the saga has moved on
 * @throws {MissingKeyError} when this process lacks the key
 * @throws {BrokenSealError} when the sealed value was changed, belongs to another saga or field, or is gone
 */
export async function openSecret(db: Pick<Database, 'run'>, keyRing: KeyRing, { sagaId, revision }: Claim, field: string): Promise<string | undefined> {
  const [row] = await db.run(
    // As it was called when this was the one secret: traces are searched by it.
    'user_data.read',
    (sql) => sql<{ sealed: string | null; fingerprint: string | null; shown: string | null }[]>`
      select sealed_user_data as sealed, user_data_fingerprint as fingerprint, input->>${field}::text as shown
      from arcadia.sagas where id = ${sagaId} and revision = ${revision}`,
  );
  if (row === undefined) throw new StaleRevisionError(`saga ${sagaId} has moved on from revision ${revision}`);
  const sealed = unpack(row.sealed)[field];
  if (sealed !== undefined) return open(keyRing, secretOwner(sagaId, field), sealed);
  if (unpack(row.fingerprint)[field] !== undefined) throw new BrokenSealError();
  // Started by a version that did not seal it.
  return row.shown ?? undefined;
}

/** Remembers the secrets that are opened, to hide them in the texts of the step. What it puts out is its own: that is left as it is. */
export function rememberSecrets(openOne: OpenSecret | undefined): OpenedSecrets {
  const opened = new Map<string, string>();
  const hide = (text: string): string => {
    let shown = text;
    for (const [form, field] of opened) shown = shown.replaceAll(form, `[${field}]`);
    return shown;
  };
  const hideIn = (outcome: StepOutcome): StepOutcome => {
    if (opened.size === 0) return outcome;
    if (outcome.kind === 'failed') return { ...outcome, error: { ...outcome.error, message: hide(outcome.error.message) } };
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
 * Opens a secret for a step. A lost key is the operator's to bring back, and rolls back nothing; a broken seal can't be mended.
 *
 * @throws {StepWait} while this worker lacks the key; {StepFailure} `<field>_unreadable`; {StaleRevisionError}
 */
export async function secretFor(run: Pick<StepRun, 'saga' | 'claim' | 'record'>, field: string, openOne: OpenSecret | undefined): Promise<string | undefined> {
  if ((run.saga.input[field] ?? null) === null) return undefined;
  if (openOne === undefined) throw new Error('no secrets can be opened here');
  const missed = run.saga.context['missing_encryption_key'] ?? null;
  let text: string | undefined;
  try {
    text = await openOne(run.claim, field);
  } catch (error) {
    if (error instanceof MissingKeyError) {
      const reason = `${field} is ${error.message}. Add the key to every worker; the saga goes on by itself`;
      // Said once in the timeline; each time in the log.
      const outputs = missed === error.keyId ? {} : { outputs: { missing_encryption_key: error.keyId } };
      throw new StepWait(waiting(MISSING_KEY_DELAY_MS, reason, { alarm: true, ...outputs }));
    }
    if (error instanceof BrokenSealError) {
      throw new StepFailure({ code: `${field}_unreadable`, message: `${field} cannot be opened: ${error.message}`, retryable: false });
    }
    throw error;
  }
  if (missed !== null) await run.record(`the key of ${field} is there again`, { missing_encryption_key: null });
  return text;
}
