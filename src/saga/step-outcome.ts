// Checks what a step returned, or threw as a failure or a wait, before anything is decided about it. Types bind nobody in plain
// JavaScript, and providers put anything into their errors. What could be neither stored nor decided would be repeated for ever.
import type { JsonObject } from '../platform/json.ts';
import { isEmpty, isJsonObject, jsonText, parseJson } from '../platform/json.ts';
import { shorten, withoutUnstorable } from '../platform/text.ts';
import { textOfThrown } from '../platform/thrown.ts';
import type { Failure } from './failure.ts';
import type { Direction } from './saga.ts';
import type { Memo, StepOutcome } from './step.ts';

const MAX_CODE_LENGTH = 100;
// Postgres recurses, and its stack is limited.
const MAX_DEPTH = 200;
const MAX_MEMO_KEY_LENGTH = 50;
// The queue in Redis cannot tell delays apart whose ends are far in the future.
const MAX_DELAY_MS = 30 * 24 * 3_600_000;

/**
 * Returns the outcome with its texts made storable. If it is none, or cannot be stored, returns a permanent failure
 * `outcome_wrong` that says why: the step would return the same again.
 */
export function checkedOutcome(returned: unknown, { step, direction }: { step: string; direction: Direction }): StepOutcome {
  if (isPlainDone(returned)) return returned;
  try {
    return outcomeFrom(returned);
  } catch (error) {
    const message = `${direction === 'forward' ? 'execute' : 'compensate'} of step ${step} ${error instanceof WrongOutcomeError ? error.message : `returned what cannot be read: ${textOfThrown(error)}`}`;
    return { kind: 'failed', error: { code: 'outcome_wrong', message: storableText(message), retryable: false } };
  }
}

class WrongOutcomeError extends Error {
  override readonly name = 'WrongOutcomeError';
}

/** Most steps return `done()`. A Date has no keys either. */
function isPlainDone(returned: unknown): returned is Extract<StepOutcome, { kind: 'done' }> {
  return isJsonObject(returned) && returned['kind'] === 'done' && returned['note'] === undefined && isJsonObject(returned['outputs']) && isEmpty(returned['outputs']) && returned['outputs'].constructor === Object;
}

function outcomeFrom(returned: unknown): StepOutcome {
  if (typeof returned !== 'object' || returned === null || !('kind' in returned)) throw notAnOutcome(returned);
  const { kind, outputs, note, delayMs, reason, memo, alarm, heldBy, error }: Partial<Record<string, unknown>> = returned;
  switch (kind) {
    case 'done':
      return { kind, outputs: outputsFrom(outputs ?? {}), ...(note === undefined ? {} : { note: storableText(note) }) };
    case 'waiting':
      return {
        kind,
        delayMs: delayFrom(delayMs),
        reason: storableText(reason),
        ...(memo === undefined ? {} : { memo: memoFrom(memo) }),
        ...(outputs === undefined ? {} : { outputs: outputsFrom(outputs) }),
        ...(alarm === true ? { alarm } : {}),
        ...(typeof heldBy === 'string' ? { heldBy } : {}),
      };
    case 'failed':
      return { kind, error: failureFrom(error), ...(outputs === undefined ? {} : { outputs: outputsFrom(outputs) }) };
    default:
      throw notAnOutcome(returned);
  }
}

function notAnOutcome(returned: unknown): WrongOutcomeError {
  return new WrongOutcomeError(`returned ${shorten(textOfThrown(returned), MAX_CODE_LENGTH)}; expected done(…), waiting(…) or failed(…)`);
}

function outputsFrom(outputs: unknown): JsonObject {
  if (!isJsonObject(outputs)) throw new WrongOutcomeError(`returned outputs that are ${Array.isArray(outputs) ? 'a list' : shorten(textOfThrown(outputs), MAX_CODE_LENGTH)}; expected an object whose keys name them`);
  const stored = storedOf(outputs);
  if (!isJsonObject(stored)) throw new WrongOutcomeError('returned outputs that are no object any more as JSON');
  if (isDeeper(stored, MAX_DEPTH)) throw new WrongOutcomeError(`returned outputs that are nested deeper than ${MAX_DEPTH} levels`);
  return stored;
}

function storedOf(outputs: JsonObject): unknown {
  try {
    return parseJson(jsonText(outputs));
  } catch (error) {
    const key = Object.keys(outputs).find((one) => !hasJson(outputs[one]));
    throw new WrongOutcomeError(`returned outputs that cannot be stored as JSON${key === undefined ? '' : `, at ${shorten(key, MAX_CODE_LENGTH)}`}: ${textOfThrown(error)}`);
  }
}

function hasJson(value: unknown): boolean {
  try {
    JSON.stringify(value);
    return true;
  } catch {
    return false;
  }
}

function isDeeper(value: unknown, levels: number): boolean {
  if (typeof value !== 'object' || value === null) return false;
  return levels === 0 || Object.values(value).some((part) => isDeeper(part, levels - 1));
}

function delayFrom(delayMs: unknown): number {
  if (typeof delayMs !== 'number' || !Number.isFinite(delayMs)) throw new WrongOutcomeError(`waits for ${shorten(textOfThrown(delayMs), MAX_CODE_LENGTH)}; expected the delay as a number of milliseconds`);
  return Math.min(Math.max(delayMs, 0), MAX_DELAY_MS);
}

function memoFrom(memo: unknown): Memo {
  const entries = isJsonObject(memo) ? Object.entries(memo) : [['memo', null] as const];
  const counters = entries.flatMap(([key, value]) => (typeof value === 'number' && Number.isFinite(value) && key.length <= MAX_MEMO_KEY_LENGTH ? [[key, value] as const] : []));
  if (counters.length === entries.length) return Object.fromEntries(counters);
  throw new WrongOutcomeError(`waits with a memo that is not made of finite numbers under keys of at most ${MAX_MEMO_KEY_LENGTH} characters`);
}

/** A failure stays the failure that it is, whatever its parts. */
function failureFrom(error: unknown): Failure {
  if (typeof error !== 'object' || error === null || error instanceof Error) return { code: 'unexpected', message: storableText(error), retryable: true };
  const { code, message, retryable, patient, nothingDone, sent }: Partial<Record<keyof Failure, unknown>> = error;
  return {
    code: typeof code === 'string' ? shorten(storableText(code), MAX_CODE_LENGTH) : 'unexpected',
    message: storableText(message),
    retryable: typeof retryable === 'boolean' ? retryable : true,
    ...(patient === true ? { patient } : {}),
    ...(nothingDone === true ? { nothingDone } : {}),
    ...(sent === false ? { sent } : {}),
  };
}

function storableText(text: unknown): string {
  return withoutUnstorable(textOfThrown(text));
}
