// Holds the effects that a step recorded against those that its compensation asked for. An effect under a name that the
// compensation no longer knows, or whose undo was forgotten, may still exist. That is no failure: a step may undo its work without
// `undo`, or leave what needs no undoing. A person is asked to check.
import type { JsonObject } from '../platform/json.ts';
import { isEmpty } from '../platform/json.ts';
import { leftEffectsKey } from './leftovers.ts';
import type { StepOutcome } from './step.ts';

/** The effects of one run of a step, by name. `asked`: with `undo` or `effects`. `undone`: `undo` has ended. */
export type EffectsOfRun = Readonly<{ asked: Set<string>; undone: Set<string> }>;

/** Returns the names of the effects of a step that may exist, and that its compensation asked for neither in this run nor in an earlier one. */
export function effectsLeft(step: string, context: JsonObject, { asked }: EffectsOfRun): string[] {
  const before = context[undoneKey(step)];
  const undone = new Set([...asked, ...(Array.isArray(before) ? before : [])]);
  const prefix = `${step}.`;
  return Object.keys(context).flatMap((key) => {
    if (!key.startsWith(prefix) || !key.endsWith(SENDS)) return [];
    const name = key.slice(prefix.length, -SENDS.length);
    const mayExist = countOf(context[key]) > countOf(context[`${prefix}${name}.refusals`]);
    return mayExist && !undone.has(name) ? [name] : [];
  });
}

/** Adds to a finished compensation which effects it left. */
export function withEffectsLeft(outcome: Extract<StepOutcome, { kind: 'done' }>, step: string, left: readonly string[]): StepOutcome {
  if (left.length === 0) return outcome;
  const note = `did not ask for ${left.join(', ')}, which may still exist: check that`;
  return { ...outcome, outputs: { ...outcome.outputs, [leftEffectsKey(step)]: left }, note: outcome.note === undefined ? note : `${outcome.note}; ${note}` };
}

/**
 * Adds to what a compensation writes which effects it has undone: its next run may see from the same write that it has nothing to
 * undo any more.
 */
export function withEffectsUndone(outputs: JsonObject, step: string, context: JsonObject, { undone }: EffectsOfRun): JsonObject {
  if (undone.size === 0 || isEmpty(outputs)) return outputs;
  const before = context[undoneKey(step)];
  return { ...outputs, [undoneKey(step)]: [...new Set([...(Array.isArray(before) ? before : []), ...undone])] };
}

const SENDS = '.sends';

function undoneKey(step: string): string {
  return `${step}.undone_effects`;
}

function countOf(value: unknown): number {
  return typeof value === 'number' ? value : 0;
}
