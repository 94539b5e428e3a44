// Fields of the input that one step takes and another carries out. A saga that has the first step but not the other would
// ignore the field without a word.
import type { JsonObject } from '../platform/json.ts';
import type { FieldProblem } from '../platform/request-problems.ts';

type TakingStep = Readonly<{ name: string; carriedOutBy?: Readonly<Record<string, string>> }>;

/** Returns the fields of an input that no step of the saga carries out. */
export function fieldsWithoutStep(steps: readonly TakingStep[], input: JsonObject): FieldProblem[] {
  return missingSteps(steps)
    .filter(({ field }) => isAsked(input[field]))
    .map(({ field, by }) => ({ field, message: `this saga has no step ${by}, which carries it out` }));
}

/**
 * Refuses a saga whose input always has such a field.
 *
 * @throws {TypeError} naming the saga, the field and the step
 */
export function requireCarriedOut(saga: Readonly<{ name: string; input: unknown; steps: readonly TakingStep[] }>): void {
  const always = missingSteps(saga.steps).find(({ field }) => isAlwaysAsked(saga.input, field));
  if (always !== undefined) throw new TypeError(`saga ${saga.name}: its input always has ${always.field}, which step ${always.by} carries out; add that step, or take the field out of the input`);
}

function missingSteps(steps: readonly TakingStep[]): { field: string; by: string }[] {
  const names = new Set(steps.map(({ name }) => name));
  return steps.flatMap(({ carriedOutBy = {} }) => Object.entries(carriedOutBy).flatMap(([field, by]) => (names.has(by) ? [] : [{ field, by }])));
}

function isAsked(value: unknown): boolean {
  return value !== undefined && value !== null && value !== false;
}

function isAlwaysAsked(input: unknown, field: string): boolean {
  const { shape }: Partial<Record<string, unknown>> = isObject(input) ? input : {};
  const schema = isObject(shape) ? shape[field] : undefined;
  if (!isObject(schema) || typeof schema['safeParse'] !== 'function') return false;
  const { safeParse } = schema;
  try {
    return [undefined, null, false].every((given) => {
      const parsed: unknown = Reflect.apply(safeParse, schema, [given]);
      return isObject(parsed) && (parsed['success'] !== true || isAsked(parsed['data']));
    });
  } catch {
    // A schema that fails, or waits: each start is checked again.
    return false;
  }
}

function isObject(given: unknown): given is Readonly<Record<string, unknown>> {
  return typeof given === 'object' && given !== null;
}
