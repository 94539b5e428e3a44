// The type of what goes into a jsonb column. A key that is undefined is left out, as JSON.stringify does.

export type Json = string | number | boolean | null | readonly Json[] | JsonObject;
export type JsonObject = { readonly [key: string]: Json | undefined };
