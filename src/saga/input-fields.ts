// The fields that an input has after its schema was applied: definitions are checked against them.

type Parts = Readonly<Record<string, unknown>>;

/**
 * Returns the names of all fields that an input may have; null if its schema also allows others, or does not show them:
 * `z.looseObject`, a record, a transform of the whole object, a lazy schema.
 */
export function fieldsOf(schema: unknown): ReadonlySet<string> | null {
  const { type, innerType, catchall, options, left, right, out } = defOf(schema);
  if (type === 'object') return catchall === undefined || defOf(catchall)['type'] === 'never' ? declaredFields(schema) : null;
  if (type === 'union' && Array.isArray(options)) return joined(options.map(fieldsOf));
  if (type === 'intersection') return joined([fieldsOf(left), fieldsOf(right)]);
  // The end of a pipe: a transform there may make any object.
  if (type === 'pipe') return fieldsOf(out);
  return innerType === undefined ? null : fieldsOf(innerType);
}

/** Returns the schemas of a field, as far as the schema of the input shows them. */
export function schemasOf(schema: unknown, field: string): readonly unknown[] {
  const { innerType, options, left, right, out } = defOf(schema);
  if (isObject(schema) && isObject(schema['shape'])) return schema['shape'][field] === undefined ? [] : [schema['shape'][field]];
  const parts = Array.isArray(options) ? options : [left, right, out, innerType];
  return parts.flatMap((part: unknown) => (part === undefined ? [] : schemasOf(part, field)));
}

// Zod's names of schemas that no text satisfies.
const neverText: ReadonlySet<unknown> = new Set(['number', 'boolean', 'bigint', 'symbol', 'undefined', 'null', 'void', 'never', 'date', 'nan', 'array', 'tuple', 'object', 'record', 'set', 'map', 'file', 'function', 'promise']);

/** Whether what a schema makes may be text. Of schemas that do not show what they make, it cannot tell. */
export function mayBeText(schema: unknown): boolean {
  const { type, innerType, options, out, values, entries } = defOf(schema);
  if (Array.isArray(options)) return options.some(mayBeText);
  if (type === 'literal' && Array.isArray(values)) return values.some((value) => typeof value === 'string');
  if (type === 'enum' && isObject(entries)) return Object.values(entries).some((value) => typeof value === 'string');
  if (type === 'pipe') return mayBeText(out);
  return innerType === undefined ? !neverText.has(type) : mayBeText(innerType);
}

/** Returns the fields that an object schema declares, even if it allows others; null for a schema of another kind. */
export function declaredFields(schema: unknown): ReadonlySet<string> | null {
  return isObject(schema) && isObject(schema['shape']) ? new Set(Object.keys(schema['shape'])) : null;
}

// By its form, not by its class: an app may bring its own copy of zod.
function defOf(schema: unknown): Parts {
  return isObject(schema) && isObject(schema['def']) ? schema['def'] : {};
}

function isObject(given: unknown): given is Parts {
  return typeof given === 'object' && given !== null;
}

function joined(parts: readonly (ReadonlySet<string> | null)[]): ReadonlySet<string> | null {
  const all = new Set<string>();
  for (const part of parts) {
    if (part === null) return null;
    for (const field of part) all.add(field);
  }
  return all;
}
