// The command line was used wrongly: exit code 2.

export class UsageError extends Error {
  override readonly name = 'UsageError';
}

const UUID = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/i;

/** @throws {UsageError} for what can't be the id of a saga */
export function requireSagaId(text: string): void {
  if (UUID.test(text)) return;
  throw new UsageError(`expected the id of a saga (a UUID, as \`arcadia sagas\` shows it), found ${JSON.stringify(text)}`);
}
