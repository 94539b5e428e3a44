// The type of what goes into a jsonb column. A key that is undefined is left out, as JSON.stringify does.

export type Json = string | number | boolean | null | readonly Json[] | JsonObject;
export type JsonObject = { readonly [key: string]: Json | undefined };

/** A scalar as text; the fallback for what is absent or no scalar. */
export function textOf(value: Json | undefined, fallback = ''): string {
  return typeof value === 'string' || typeof value === 'number' || typeof value === 'boolean' ? String(value) : fallback;
}

/** JSON that Postgres can store: it takes neither NUL nor half a surrogate pair, and what an API answers may hold either. */
export function jsonText(value: unknown): string {
  const text = JSON.stringify(value);
  // Both are escaped in JSON. Where neither is there, nothing need be replaced, and that is far quicker to find out.
  if (!/\\u(?:0000|d[89a-f])/.test(text)) return text;
  return JSON.stringify(value, (_key, part: unknown) => (typeof part === 'string' ? part.toWellFormed().replaceAll('\0', '\uFFFD') : part));
}

/** What comes back of an object that Postgres stores: without what is undefined, and without what it can't store. */
export function asStored(value: JsonObject): JsonObject {
  return JSON.parse(jsonText(value)) as JsonObject; // oxlint-disable-line typescript/no-unsafe-type-assertion -- an object went in
}

/** Whether what a JSON text says is an object. */
export function isJsonObject(value: unknown): value is JsonObject {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

/** What a JSON text says; undefined where it is none. */
export function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}
