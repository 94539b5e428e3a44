// The context of a step: validated against the step's needs when the step reads it. Also checks, when a saga is defined,
// that earlier steps add what later steps need.
import { z } from 'zod';
import type { Json, JsonObject } from '../platform/json.ts';
import type { Saga } from './saga.ts';
import { directionOf } from './saga.ts';
import { StepFailure } from './step.ts';
import type { Step } from './step.ts';

/** The memo key of a saga that was left to a worker of another version because it lacks what a step needs. */
export const NEEDS_UNMET = 'needs_unmet';

type Declared = Pick<Step<never>, 'name' | 'needs' | 'adds' | 'onlyWith'>;

/**
 * Merges the input and the outputs so far; outputs override the input. In forward direction, the result is parsed by the
 * step's `needs`.
 *
 * @throws {StepFailure} `context_missing`, naming what is missing or invalid
 */
export function contextOf({ name, needs }: Declared, saga: Pick<Saga, 'status' | 'input' | 'context'>): JsonObject {
  const all = { ...saga.input, ...saga.context };
  if (needs === undefined || directionOf(saga) === 'backward') return all;
  const { data, error } = needs.safeParse(all);
  // oxlint-disable-next-line typescript/no-unsafe-type-assertion -- of JSON, a schema makes what its author types it as
  if (error === undefined) return data as JsonObject;
  throw new StepFailure({ code: 'context_missing', message: `${name} does not find what it needs: ${z.prettifyError(error).replaceAll(/\s+/g, ' ')}`, retryable: false });
}

/**
 * Whether a saga lacks what a step needs because another version started it: its definition promises the value, but the input, or
 * the step that adds it, came without it. Of a saga or a step that the definition does not have, that is presumed. What a
 * definition leaves open, such as an optional field, is the fault of its author instead.
 */
export function lacksByVersion({ name, needs }: Declared, saga: Pick<Saga, 'input' | 'context'>, definition: Readonly<{ input: z.ZodType; steps: readonly Declared[] }> | undefined): boolean {
  const place = definition?.steps.findIndex((step) => step.name === name) ?? -1;
  if (definition === undefined || place === -1) return true;
  const earlier = definition.steps.slice(0, place);
  const wrong = new Set(needs?.safeParse({ ...saga.input, ...saga.context }).error?.issues.map(({ path }) => String(path[0])));
  return [...wrong].some((key) => {
    const schemas = earlier.flatMap(({ adds, onlyWith }) => (onlyWith === undefined ? (adds?.shape[key] ?? []) : []));
    // This version of the step would have been refused the value.
    if (schemas.length > 0) return schemas.some((schema) => !mayPutOut(schema, saga.context[key]));
    return saga.input[key] === undefined && requiredOf(definition.input).has(key);
  });
}

/** Whether a step may leave this value in the context; a default takes the place of none. */
function mayPutOut(schema: z.core.$ZodType, value: Json | undefined): boolean {
  try {
    const { success, data } = z.safeParse(schema, value);
    return success && (value !== undefined || data === undefined);
  } catch {
    // It can only be asked asynchronously.
    return true;
  }
}

/** Returns the fields that an input always has; none if its schema does not say. */
function requiredOf(input: z.ZodType): ReadonlySet<string> {
  try {
    return new Set(z.toJSONSchema(input, { io: 'output', unrepresentable: 'any' }).required);
  } catch {
    return new Set();
  }
}

/**
 * Validates a step's outputs against its `adds`, and adds those that are left out and have a default there.
 *
 * @returns the outputs, or the problem
 */
export function addedOutputs({ name, adds }: Declared, outputs: JsonObject): Readonly<{ outputs: JsonObject; wrong: string | null }> {
  if (adds === undefined) return { outputs, wrong: null };
  const { data, error } = adds.safeParse(outputs);
  // oxlint-disable-next-line typescript/no-unsafe-type-assertion -- of JSON, a schema makes what its author types it as
  if (error === undefined) return { outputs: { ...(data as JsonObject), ...outputs }, wrong: null };
  return { outputs, wrong: `${name} does not put out what it says that it adds: ${z.prettifyError(error).replaceAll(/\s+/g, ' ')}` };
}

/**
 * Checks that the input or an earlier step provides what each step needs.
 *
 * @throws {TypeError} naming the saga, the step and the key
 */
export function checkNeeds(saga: Readonly<{ name: string; input: z.ZodType; steps: readonly Declared[] }>): void {
  const added = new Set<string>();
  // By key, the step whose outputs may lack it.
  const uncertain = new Map<string, string>();
  let ofInput: { has(key: string): boolean } | undefined;
  for (const { name, needs, adds, onlyWith } of saga.steps) {
    for (const key of Object.keys(needs?.shape ?? {})) {
      if (added.has(key) || needs?.shape[key]?.safeParse(undefined).success === true) continue;
      // Reading a schema is slow, so it happens only when needed.
      ofInput ??= keysOf(saga.input);
      if (ofInput.has(key)) continue;
      const by = uncertain.get(key);
      if (by !== undefined) throw new TypeError(`saga ${saga.name}: step ${name} needs ${key}, which step ${by} adds as optional; make it optional in needs too, or give it a default or no \`.optional()\` in adds`);
      throw new TypeError(`saga ${saga.name}: step ${name} needs ${key}, which is no field of the input, and no step before it adds it`);
    }
    // A saga whose input omits this step gets none of its outputs.
    if (onlyWith !== undefined) continue;
    for (const [key, schema] of Object.entries(adds?.shape ?? {})) {
      // oxlint-disable-next-line no-underscore-dangle -- where zod has it for libraries; `any` also accepts nothing, but promises a value
      if (schema._zod.optout === 'optional') uncertain.set(key, name);
      else added.add(key);
    }
  }
}

/** Returns the keys that an input may have; all keys if its schema does not say. */
function keysOf(input: z.ZodType): { has(key: string): boolean } {
  const { properties, additionalProperties } = z.toJSONSchema(input, { io: 'output', unrepresentable: 'any' });
  if (properties === undefined || typeof additionalProperties === 'object') return { has: () => true };
  return new Set(Object.keys(properties));
}
