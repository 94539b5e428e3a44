// What a saga keeps of an input that its schema refused. Fields that the schema knows keep their values, so that people see
// what was wrong. Of all others only the names and types are kept: they may hold user data under a wrong name.
import { isDeepStrictEqual } from 'node:util';
import { z } from 'zod';
import type { JsonObject } from '../platform/json.ts';
import { isMark, markOf, namesIn } from '../platform/value-marks.ts';
import { excessOf } from './input-limits.ts';
import { secretsOf } from './secrets.ts';

type Issue = z.core.$ZodIssue;

/** An object or a list by its path in the input, and which of its fields the schema does not know. `others`: all but these. */
type Unknown = Readonly<{ path: readonly PropertyKey[]; keys: readonly PropertyKey[] } | { path: readonly PropertyKey[]; others: readonly PropertyKey[] }>;

// Its fields one by one, and no deeper.
const FIELDS = 1;

/**
 * Replaces the values of fields that the schema does not know by marks, such as `[a string]`; the input itself if there are
 * none. Leaves secrets to the statement that writes the input. If the schema cannot be asked, it knows no field.
 */
export function withoutUnknownFields(definition: Readonly<{ input: z.ZodType; secrets?: readonly string[] }>, given: JsonObject): JsonObject {
  const secrets = Object.fromEntries(Object.entries(given).filter(([field]) => secretsOf(definition).includes(field)));
  const unknown = unknownFieldsOf(definition.input, given);
  const kept = structuredClone(given);
  // A schema that changes its input before it checks it names fields that were not given.
  const isEachMarked = unknown?.map((fields) => markFields(kept, fields)).every(Boolean) ?? false;
  const shown = isEachMarked ? kept : namesIn(given, FIELDS);
  const input = { ...(isObject(shown) ? shown : {}), ...secrets } as JsonObject; // oxlint-disable-line typescript/no-unsafe-type-assertion -- JSON, with marks in it
  return isDeepStrictEqual(input, given) ? given : input;
}

/** Whether values were removed from an input. */
export function hasMarks(value: unknown): boolean {
  if (typeof value !== 'object' || value === null) return isMark(value);
  return Object.values(value).some(hasMarks);
}

/** @returns null if the schema cannot be asked */
function unknownFieldsOf(schema: z.ZodType, given: JsonObject): readonly Unknown[] | null {
  if (excessOf(given) !== null) return null;
  try {
    return [...dropped(schema, given), ...unknownIn(schema.safeParse(given).error?.issues ?? [], [])];
  } catch {
    return null;
  }
}

/** The fields that an object schema which is not strict would leave out. */
function dropped(schema: z.ZodType, given: JsonObject): Unknown[] {
  if (!(schema instanceof z.ZodObject) || schema.def.catchall !== undefined) return [];
  const keys = Object.keys(given).filter((key) => !Object.hasOwn(schema.shape, key));
  return keys.length === 0 ? [] : [{ path: [], keys }];
}

function unknownIn(issues: readonly Issue[], within: readonly PropertyKey[]): Unknown[] {
  return issues.flatMap((issue): Unknown[] => {
    const path = [...within, ...issue.path];
    if (issue.code === 'unrecognized_keys') return [{ path, keys: issue.keys }];
    if (issue.code === 'invalid_union') return unknownInUnion(issue, path);
    if (issue.code === 'invalid_key') return [{ path: path.slice(0, -1), keys: path.slice(-1) }];
    // An object in the place of another value: the schema knows none of its fields.
    return isOfOtherType(issue) && path.length > 0 ? [{ path, others: [] }] : [];
  });
}

function isOfOtherType({ code }: Issue): boolean {
  return code === 'invalid_type' || code === 'invalid_value';
}

/** A field is known if one of the variants knows it. */
function unknownInUnion(issue: Extract<Issue, { code: 'invalid_union' }>, path: readonly PropertyKey[]): Unknown[] {
  if (issue.errors.length === 0) return 'discriminator' in issue ? [{ path: path.slice(0, -1), others: path.slice(-1) }] : [];
  const objects = issue.errors.filter((issues) => !issues.some((one) => one.path.length === 0 && isOfOtherType(one)));
  const [first, ...rest] = objects.map((issues) => unknownIn(issues, path).flatMap(oneByOne));
  if (first === undefined) return [{ path, others: [] }];
  const others = rest.map((fields) => new Set(fields.map(nameOf)));
  return first.filter((field) => others.every((names) => names.has(nameOf(field))));
}

function oneByOne(fields: Unknown): Unknown[] {
  return 'others' in fields ? [fields] : fields.keys.map((key) => ({ path: fields.path, keys: [key] }));
}

function nameOf(field: Unknown): string {
  return JSON.stringify('others' in field ? [field.path] : [...field.path, ...field.keys]);
}

/** @returns false if the input has no such fields */
function markFields(input: unknown, fields: Unknown): boolean {
  let found = input;
  for (const key of fields.path) {
    if (!isObject(found) || !Object.hasOwn(found, key)) return 'others' in fields;
    found = found[key];
  }
  if (!isObject(found)) return 'others' in fields;
  // A list has no fields that could be unknown.
  if (Array.isArray(found)) return 'others' in fields;
  const keys = 'others' in fields ? Object.keys(found).filter((key) => !fields.others.includes(key)) : fields.keys;
  for (const key of keys) {
    if (!Object.hasOwn(found, key)) return false;
    found[key] = markOf(found[key]);
  }
  return true;
}

function isObject(value: unknown): value is Record<PropertyKey, unknown> {
  return typeof value === 'object' && value !== null;
}
