// The content of a jsonb column. Undefined keys are omitted, as by JSON.stringify.

export type Json = string | number | boolean | null | readonly Json[] | JsonObject;
export type JsonObject = { readonly [key: string]: Json | undefined };

/** Converts a scalar to text. Returns the fallback for anything else. */
export function textOf(value: Json | undefined, fallback = ''): string {
  return typeof value === 'string' || typeof value === 'number' || typeof value === 'boolean' ? String(value) : fallback;
}

/** Serializes JSON for Postgres, which stores neither NUL nor a lone surrogate. An API's response may contain either. */
export function jsonText(value: unknown): string {
  const text = JSON.stringify(value);
  // JSON escapes both. Checking for the escapes first is much faster than replacing.
  if (!/\\u(?:0000|d[89a-f])/.test(text)) return text;
  return JSON.stringify(withStorableTexts(JSON.parse(text)));
}

function withStorableTexts(value: unknown): unknown {
  if (typeof value === 'string') return value.toWellFormed().replaceAll('\0', '\uFFFD');
  if (Array.isArray(value)) return value.map(withStorableTexts);
  if (typeof value !== 'object' || value === null) return value;
  return Object.fromEntries(Object.entries(value).map(([key, part]) => [withStorableTexts(key), withStorableTexts(part)]));
}

/** Returns an object as Postgres would store and return it: without undefined keys and without characters it cannot store. */
export function asStored(value: JsonObject): JsonObject {
  return JSON.parse(jsonText(value)) as JsonObject; // oxlint-disable-line typescript/no-unsafe-type-assertion -- an object went in
}

/** Whether an object has no keys. */
export function isEmpty(value: JsonObject): boolean {
  return Object.keys(value).length === 0;
}

/** Whether a parsed JSON value is an object. */
export function isJsonObject(value: unknown): value is JsonObject {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

/** Parses JSON text; undefined if it is invalid. */
export function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}
