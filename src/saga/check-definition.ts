// Checks the parts of a step, a saga and an app when they are defined. Authors may write plain JavaScript, where nothing
// else does. Whether the parts fit together is checked in names.ts, context.ts and definition.ts.
import { requireKnownParts } from './known-parts.ts';
import { requireName } from './names.ts';

type Parts = Readonly<Record<string, unknown>>;

const stepParts = ['name', 'needs', 'adds', 'remains', 'recordsFirst', 'forwardOnly', 'onlyWith', 'carriedOutBy', 'words', 'family', 'execute', 'compensate', 'superseded'];
const stepWords = { functions: ['notYet', 'waitsFor', 'limitMs', 'remains'], texts: ['doing', 'provider', 'milestone'] };
// `outputs` and `startSufficed` are parts of a saga that was defined before.
const sagaParts = ['name', 'input', 'steps', 'subject', 'words', 'isDestructive', 'labels', 'secrets', 'resource', 'refusal', 'outputs', 'startSufficed'];
const sagaWords = { functions: ['subject', 'outputs', 'cancelDestroys', 'completed', 'cancelled', 'rolledBack', 'stuck'], texts: ['causes'] };
// The last three are parts of an app that was defined before.
const appParts = ['sagas', 'deps', 'kind', 'catalog', 'openDeps'];

/**
 * Checks the parts of a step.
 *
 * @throws {TypeError} naming the step and the part
 */
export function checkStep(given: unknown): void {
  const step = partsOf('step', given);
  requireName(`step ${JSON.stringify(step['name'])}`, step['name']);
  const what = `step ${String(step['name'])}`;
  requireKnownParts(what, step, stepParts);
  for (const part of ['execute', 'compensate']) {
    if (typeof step[part] !== 'function') throw new TypeError(`${what}: ${part} is missing; expected a function (a step that leaves nothing behind returns done() from it)`);
  }
  for (const part of ['needs', 'adds', 'remains']) {
    requireZod4(`${what}: ${part}`, step[part]);
    if (step[part] !== undefined && !isObjectSchema(step[part])) throw new TypeError(`${what}: ${part}: expected a zod object, such as z.object({ name: z.string() })`);
  }
  const unstorable = isSchema(step['adds']) ? unstorableIn(step['adds'], '') : null;
  if (unstorable !== null) throw new TypeError(`${what}: adds: ${unstorable.at} is a ${unstorable.type}, which JSON cannot hold; put out text or a number in its place`);
  if (step['onlyWith'] !== undefined && typeof step['onlyWith'] !== 'string') throw new TypeError(`${what}: onlyWith: expected the name of a field of the input`);
  requireFunctions(what, step, ['superseded']);
  requireBooleans(what, step, ['recordsFirst', 'forwardOnly']);
  requireWords(what, step['words'], stepWords);
  if (step['carriedOutBy'] !== undefined) requireTexts(`${what}: carriedOutBy`, partsOf(`${what}: carriedOutBy`, step['carriedOutBy']));
}

/**
 * Checks the parts of a saga, and its steps.
 *
 * @throws {TypeError} naming the saga and the part
 */
export function checkSaga(given: unknown): void {
  const saga = partsOf('saga', given);
  requireName(`saga ${JSON.stringify(saga['name'])}`, saga['name']);
  const what = `saga ${String(saga['name'])}`;
  requireKnownParts(what, saga, sagaParts);
  requireZod4(`${what}: input`, saga['input']);
  if (!isSchema(saga['input']) || !canBeObject(saga['input'])) throw new TypeError(`${what}: input: expected a zod schema of an object, such as z.strictObject({ name: z.string() })`);
  for (const [index, step] of listOf(what, 'steps', saga['steps']).entries()) {
    if (typeof step !== 'object' || step === null) throw new TypeError(`${what}: step ${index + 1}: expected a step, as defineStep returns it; found ${String(step)}`);
    checkStep(step);
  }
  requireFunctions(what, saga, ['subject', 'resource', 'labels', 'refusal']);
  requireBooleans(what, saga, ['isDestructive', 'startSufficed']);
  requireWords(what, saga['words'], sagaWords);
  if (saga['secrets'] !== undefined) listOf(what, 'secrets', saga['secrets']);
}

/**
 * Checks the parts of an app, and its sagas: they may come without defineSaga.
 *
 * @throws {TypeError} naming the part
 */
export function checkApp(given: unknown): void {
  const app = partsOf('app', given);
  requireKnownParts('app', app, appParts);
  for (const [index, saga] of listOf('app', 'sagas', app['sagas']).entries()) {
    if (typeof saga !== 'object' || saga === null) throw new TypeError(`app: saga ${index + 1}: expected a saga, as defineSaga returns it; found ${String(saga)}`);
    checkSaga(saga);
  }
  if (typeof app['deps'] !== 'function') throw new TypeError('app: deps: expected a function (an app whose steps depend on nothing has deps: () => ({}))');
}

function partsOf(what: string, given: unknown): Parts {
  if (typeof given !== 'object' || given === null) throw new TypeError(`${what}: expected an object; found ${String(given)}`);
  // oxlint-disable-next-line typescript/no-unsafe-type-assertion -- any object has parts of unknown kinds
  return given as Parts;
}

function listOf(what: string, part: string, given: unknown): readonly unknown[] {
  if (!Array.isArray(given)) throw new TypeError(`${what}: ${part}: expected an array`);
  return given;
}

function requireFunctions(what: string, parts: Parts, names: readonly string[]): void {
  const wrong = names.find((name) => parts[name] !== undefined && typeof parts[name] !== 'function');
  if (wrong !== undefined) throw new TypeError(`${what}: ${wrong}: expected a function`);
}

function requireBooleans(what: string, parts: Parts, names: readonly string[]): void {
  const wrong = names.find((name) => parts[name] !== undefined && typeof parts[name] !== 'boolean');
  if (wrong !== undefined) throw new TypeError(`${what}: ${wrong}: expected true or false`);
}

function requireTexts(what: string, parts: Parts, names: readonly string[] = Object.keys(parts)): void {
  const wrong = names.find((name) => parts[name] !== undefined && typeof parts[name] !== 'string');
  if (wrong !== undefined) throw new TypeError(`${what}: ${wrong}: expected text`);
}

function requireWords(what: string, given: unknown, { functions, texts }: Readonly<{ functions: readonly string[]; texts: readonly string[] }>): void {
  if (given === undefined) return;
  const words = partsOf(`${what}: words`, given);
  requireKnownParts(`${what}: words`, words, [...texts, ...functions]);
  requireFunctions(`${what}: words`, words, functions);
  requireTexts(`${what}: words`, words, texts);
}

/** A schema of zod 3 has the same methods, but shows nothing of its fields. */
function requireZod4(what: string, schema: unknown): void {
  if (isZod3(schema)) throw new TypeError(`${what}: this is a schema of zod 3; expected one of zod 4`);
  const shape = isSchema(schema) ? schema['shape'] : null;
  if (typeof shape !== 'object' || shape === null) return;
  const old = Object.entries(shape).find(([, field]) => isZod3(field));
  if (old !== undefined) throw new TypeError(`${what}: ${old[0]} is a schema of zod 3; expected one of zod 4`);
}

function isZod3(schema: unknown): boolean {
  if (!isSchema(schema) || typeof schema['_def'] !== 'object' || schema['_def'] === null) return false;
  return 'typeName' in schema['_def'] && typeof schema['_def'].typeName === 'string';
}

// By their form, not by their class: an app may bring its own copy of zod.
function isSchema(given: unknown): given is Parts {
  return typeof given === 'object' && given !== null && 'safeParse' in given && typeof given.safeParse === 'function';
}

function isObjectSchema(given: unknown): boolean {
  return isSchema(given) && typeof given['shape'] === 'object' && given['shape'] !== null;
}

// Zod's names of schemas that no JSON object satisfies.
const neverObjects: ReadonlySet<unknown> = new Set(['string', 'number', 'boolean', 'bigint', 'symbol', 'undefined', 'null', 'void', 'never', 'date', 'nan', 'array', 'tuple', 'set', 'map', 'enum', 'literal', 'template_literal', 'file']);

/** Whether a schema may accept an object. It looks into wrappers such as `optional`; of other schemas it cannot tell. */
function canBeObject({ def }: Parts): boolean {
  if (typeof def !== 'object' || def === null) return true;
  if ('innerType' in def && isSchema(def.innerType)) return canBeObject(def.innerType);
  return !('type' in def && neverObjects.has(def.type));
}

// Zod's names of schemas that nothing satisfies that was stored as JSON.
const neverStored: ReadonlySet<unknown> = new Set(['bigint', 'symbol', 'date', 'nan', 'map', 'set', 'function', 'promise', 'file']);
const MOST_LEVELS = 20;

/** The first part of a schema that no stored output meets, though the one that a step returns may; null if none is known. */
function unstorableIn(schema: unknown, at: string, levels = MOST_LEVELS): Readonly<{ at: string; type: string }> | null {
  if (levels === 0 || !isSchema(schema) || typeof schema['def'] !== 'object' || schema['def'] === null) return null;
  const { type, coerce, innerType, element, shape }: Partial<Record<string, unknown>> = schema['def'];
  if (neverStored.has(type) && coerce !== true) return { at, type: String(type) };
  const fields = typeof shape === 'object' && shape !== null ? Object.entries(shape).map(([key, part]) => [at === '' ? key : `${at}.${key}`, part] as const) : [];
  for (const [place, part] of [...fields, [at, innerType] as const, [`${at}[]`, element] as const]) {
    const found = unstorableIn(part, place, levels - 1);
    if (found !== null) return found;
  }
  return null;
}
