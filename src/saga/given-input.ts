// The input of a saga as it was given, kept where its schema changes it: a repeated request is compared with it, and a
// rerun parses it again. Secrets are replaced by their marks. It is shown nowhere.
import { isDeepStrictEqual } from 'node:util';
import type { z } from 'zod';
import { isJsonObject, jsonText, parseJson } from '../platform/json.ts';
import type { JsonObject } from '../platform/json.ts';
import { filledSecrets, markSecrets, secretsOf } from './secrets.ts';

/** Returns an input as JSON would carry it; null if it is no JSON object. */
export function plainInput(given: unknown): JsonObject | null {
  try {
    const plain = parseJson(jsonText(given));
    return isJsonObject(plain) ? plain : null;
  } catch {
    // A client can give its schema more than JSON, such as a bigint.
    return null;
  }
}

/**
 * Returns what to keep of an input as it was given; null if the schema changed nothing.
 *
 * @param given a JSON object
 * @param input what the schema made of it, its secrets unsealed
 */
export function givenInput(definition: Readonly<{ input: z.ZodType; secrets?: readonly string[] }>, given: JsonObject, input: JsonObject): JsonObject | null {
  const secrets = secretsOf(definition);
  if (!showsFields(definition.input) && filledSecrets(secrets, input).length > 0) return null;
  const marked = markSecrets(given, secrets);
  return isSameJson(marked, markSecrets(input, secrets)) ? null : marked;
}

/** Whether a schema shows its fields. Any other may take a secret from a field of another name, which would be kept in plain text. */
export function showsFields(schema: z.ZodType): boolean {
  return 'shape' in schema;
}

/** Whether Postgres takes both for the same: the order of keys does not count. */
export function isSameJson(one: JsonObject, other: JsonObject): boolean {
  const [text, otherText] = [jsonText(one), jsonText(other)];
  return text === otherText || isDeepStrictEqual(parseJson(text), parseJson(otherText));
}
