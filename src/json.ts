// The type of what goes into a jsonb column. A key that is undefined is left out, as JSON.stringify does.

export type Json = string | number | boolean | null | readonly Json[] | JsonObject;
export type JsonObject = { readonly [key: string]: Json | undefined };

/** A scalar as text; the fallback for what is absent or no scalar. */
export function textOf(value: Json | undefined, fallback = ''): string {
  return typeof value === 'string' || typeof value === 'number' || typeof value === 'boolean' ? String(value) : fallback;
}
