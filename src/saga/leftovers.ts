// What the rollback of a saga left behind for a person to check. It comes from the saga's steps and from the engine, so that no
// saga with such a step says that nothing is left, whatever its own words are.
import type { Json, JsonObject } from '../platform/json.ts';
import { shortTextOf } from '../platform/text.ts';
import { isEnd } from './guarded-words.ts';
import type { SagaEnd, SagaFacts, StepWords } from './saga-words.ts';

/** The part of a step that says what its rollback may leave. */
export type LeavingStep = Readonly<{ name: string; remains?: Readonly<{ shape: object }>; words?: Pick<StepWords, 'remains'> }>;

/** `isUnworded`: only the names of the keys are known, so words of the saga itself say more. */
type Leftover = SagaEnd & Readonly<{ isUnworded?: true }>;

const LABEL = 'check what is left';

/** Returns how a rollback ended, given what the saga's own words say of it and the steps that this process knows of the saga. */
export function endWithLeftovers(own: string | SagaEnd, steps: readonly LeavingStep[], saga: SagaFacts): string | SagaEnd {
  const all = [...steps.flatMap((step) => leftBy(step, saga)), ...leftEffects(saga.context)];
  // The saga's own words say the same, and more exactly.
  const left = all.filter(({ label }) => typeof own !== 'object' || own.tone === 'attention' || label !== own.label);
  if (left.length === 0) return own;
  const asksToCheck = typeof own === 'object' && own.tone === 'attention';
  const ends = asksToCheck ? [own, ...left.filter(({ text, isUnworded }) => isUnworded !== true && !own.text.includes(text))] : left;
  return {
    text: [...new Set(ends.map(({ text }) => text))].map((text, index) => (index === 0 ? text : text.replace(/^Rolled back, but check/, 'Also check'))).join(' '),
    label: ends[0]?.label ?? LABEL,
    tone: 'attention',
    ...(ends.every(({ rerunIsSafe }) => rerunIsSafe === true) ? { rerunIsSafe: true } : {}),
  };
}

function leftBy({ name, remains, words }: LeavingStep, saga: SagaFacts): Leftover[] {
  const filled = Object.keys(remains?.shape ?? {}).filter((key) => isFilled(saga.context[key]));
  if (filled.length === 0) return [];
  const unworded: Leftover = { text: `Rolled back, but check what step ${name} left: ${filled.join(', ')}.`, label: LABEL, tone: 'attention', isUnworded: true };
  if (words?.remains === undefined) return [unworded];
  try {
    const said: unknown = words.remains(saga);
    if (said === null) return [];
    if (typeof said === 'string') return [{ text: said, label: LABEL, tone: 'attention' }];
    if (!isEnd(said)) return [unworded];
    return said.tone === 'attention' ? [said] : [];
  } catch {
    return [unworded];
  }
}

function isFilled(value: Json | undefined): boolean {
  if (typeof value === 'object' && value !== null) return Object.keys(value).length > 0;
  return value !== undefined && value !== null && value !== false && value !== '' && value !== 0;
}

/** The context key with the names of the effects that the compensation of a step left. */
export function leftEffectsKey(step: string): string {
  return `${step}${LEFT_EFFECTS}`;
}

const LEFT_EFFECTS = '.left_effects';

/** Whether a context key says which effects a compensation left. */
export function isLeftEffectsKey(key: string): boolean {
  return key.endsWith(LEFT_EFFECTS);
}

function leftEffects(context: JsonObject): Leftover[] {
  return Object.entries(context).flatMap(([key, names]) => {
    if (!isLeftEffectsKey(key) || !Array.isArray(names)) return [];
    const step = key.slice(0, -LEFT_EFFECTS.length);
    return names.map((name): Leftover => ({ text: `Rolled back, but check the effect ${shortTextOf(name)}${valueOf(context[`${step}.${shortTextOf(name)}.value`])} of step ${step}: its compensation did not ask for it, so it may still exist.`, label: LABEL, tone: 'attention' }));
  });
}

/** What identifies the effect, where that is short. */
function valueOf(value: Json | undefined): string {
  return typeof value === 'string' || typeof value === 'number' ? ` (${shortTextOf(value)})` : '';
}
