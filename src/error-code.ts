// What errors call themselves for programs.

/** The code of an error, such as `ECONNREFUSED` or Postgres's SQLSTATE; null: it has none, or is no error. */
export function errorCodeOf(error: unknown): string | null {
  return error instanceof Error && 'code' in error && typeof error.code === 'string' ? error.code : null;
}
