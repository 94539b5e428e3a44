// Cursors of lists: where a page ends, as text that is opaque to callers.
import type { z } from 'zod';

/** Thrown for a cursor that this program did not create. */
export class CursorError extends Error {
  override readonly name = 'CursorError';
  readonly code = 'invalid_cursor';

  constructor() {
    super('expected the nextCursor of an earlier page');
  }
}

/** Encodes a cursor: the position of a page's last row, opaque to callers. */
export function encodeCursor(place: readonly string[]): string {
  return Buffer.from(JSON.stringify(place)).toString('base64url');
}

/** @throws {CursorError} */
export function decodeCursor<Schema extends z.ZodType>(cursor: string, schema: Schema): z.infer<Schema> {
  let place: unknown;
  try {
    place = JSON.parse(Buffer.from(cursor, 'base64url').toString());
  } catch {
    throw new CursorError();
  }
  const parsed = schema.safeParse(place);
  if (!parsed.success) throw new CursorError();
  return parsed.data;
}
