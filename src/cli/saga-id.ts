// Ids of sagas as people type them: the whole id, or its beginning, as in Git.
import type { Client } from '../client/client.ts';
import { isUuidPrefix, isUuid } from '../platform/uuid.ts';
import { printable } from '../platform/text.ts';
import { statusWords } from '../saga/words.ts';
import { UsageError } from './usage-error.ts';

// Fewer are typed by mistake, and fit several sagas even in a small database.
const LEAST_LENGTH = 4;

const MOST_CANDIDATES = 10;

/** @throws {UsageError} for what cannot be the id of a saga */
export function requireSagaId(text: string): void {
  if (text.length >= LEAST_LENGTH && isUuidPrefix(text)) return;
  throw new UsageError(`expected the id of a saga (a UUID, as \`arcadia sagas\` shows it, or at least its first ${LEAST_LENGTH} characters), found ${JSON.stringify(text)}`);
}

/**
 * Finds the whole id.
 *
 * @param text as {@link requireSagaId} takes it
 * @throws {UsageError} if the ids of several sagas begin so, naming them
 * @throws {Error} if no saga's id begins so
 */
export async function resolveSagaId(client: Pick<Client, 'list'>, text: string): Promise<string> {
  if (isUuid(text)) return text;
  const found = await client.list({ idPrefix: text, limit: MOST_CANDIDATES + 1 });
  const [only, ...others] = found;
  if (only === undefined) throw new Error(`saga ${text} not found`);
  if (others.length === 0) return only.id;
  const lines = printable(found.slice(0, MOST_CANDIDATES)).map(({ id, name, status, createdAt }) => `${id}  ${name}, ${statusWords[status]}, started at ${createdAt.toISOString()}`);
  throw new UsageError([`several sagas have an id that begins with ${text}; type more of it:`, ...lines, ...(found.length > MOST_CANDIDATES ? ['…'] : [])].join('\n'));
}
