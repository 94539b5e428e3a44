// Ids of sagas as people type them: the whole id, or its first 8 characters, which no two sagas share.
import type { Client } from '../client/client.ts';
import { isUuid } from '../platform/uuid.ts';
import { UsageError } from './usage-error.ts';

/** @throws {UsageError} for what cannot be the id of a saga */
export function requireSagaId(text: string): void {
  if (isUuid(text) || isShort(text)) return;
  throw new UsageError(`expected the id of a saga (a UUID, as \`arcadia sagas\` shows it, or its first 8 characters), found ${JSON.stringify(text)}`);
}

/**
 * Finds the whole id.
 *
 * @param text as {@link requireSagaId} takes it
 * @throws {Error} when no saga's id begins so
 */
export async function resolveSagaId(client: Pick<Client, 'list'>, text: string): Promise<string> {
  if (!isShort(text)) return text;
  const short = text.toLowerCase();
  // Names of droplets may contain the same characters.
  const found = (await client.list({ query: short, limit: 1_000 })).find(({ id }) => id.startsWith(short));
  if (found === undefined) throw new Error(`saga ${text} not found`);
  return found.id;
}

function isShort(text: string): boolean {
  return /^[0-9a-f]{8}$/i.test(text);
}
