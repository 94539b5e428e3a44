// Names of sagas, steps and effects: what they may be, whether one stands twice, and which steps a saga has.
import type { JsonObject } from '../platform/json.ts';

// Names appear in job names, routes, columns and context keys.
const namePattern = /^[a-z][a-z0-9_]{0,62}$/;

/**
 * @param what the owner of the name, to start the error message
 */
export function requireName(what: string, name: unknown): void {
  if (typeof name === 'string' && namePattern.test(name)) return;
  throw new TypeError(`${what}: expected a name of lower-case letters, digits and _, beginning with a letter, of at most 63 characters`);
}

/**
 * Checks a list of steps.
 *
 * @throws {TypeError} naming the saga and the step that is listed twice, or that is first although it is optional
 */
export function requireSteps(saga: string, steps: readonly Readonly<{ name: string; onlyWith?: string }>[]): void {
  const [first] = steps;
  if (first === undefined) throw new TypeError(`saga ${saga}: expected at least one step`);
  if (first.onlyWith !== undefined) throw new TypeError(`saga ${saga}: its first step ${first.name} has \`onlyWith\`; a saga needs a first step whatever its input`);
  const twice = nameTwice(steps);
  if (twice !== undefined) throw new TypeError(`saga ${saga}: step ${twice} is listed twice`);
}

/**
 * Names of the steps that a saga with this input has: all but those for whose field (`onlyWith`) it has nothing. SQL leaves out the
 * same ones: see `arcadia.leave_out_steps`.
 */
export function stepsFor({ steps }: Readonly<{ steps: readonly Readonly<{ name: string; onlyWith?: string }>[] }>, input: JsonObject): string[] {
  return steps.filter(({ onlyWith }) => onlyWith === undefined || (input[onlyWith] ?? null) !== null).map(({ name }) => name);
}

/** The first name that stands twice; undefined where none does. */
export function nameTwice(named: readonly Readonly<{ name: string }>[]): string | undefined {
  const names = named.map(({ name }) => name);
  return names.find((name, index) => names.indexOf(name) !== index);
}
