// The error of a process that was pointed at another environment's database.

/** Thrown if a database belongs to another environment or another account than this process. */
export class EnvironmentMismatchError extends Error {
  override readonly name = 'EnvironmentMismatchError';
  readonly code = 'environment_mismatch';
}
