// Reads unvalidated JSON.

/** Whether a value is a JSON object. */
export function isObject(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

/** Returns the text in a field of a body; empty if there is none. */
export function textIn(body: unknown, field: string): string {
  const value = isObject(body) ? body[field] : undefined;
  return typeof value === 'string' ? value : '';
}

/** Returns the value if it is a list, else an empty list. */
export function listOf(value: unknown): readonly unknown[] {
  return Array.isArray(value) ? value : [];
}
