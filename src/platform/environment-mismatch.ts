// The error of a process that was pointed at a database of others.

/** Thrown when a database belongs to another environment, or to another account, than the ones this process works in. */
export class EnvironmentMismatchError extends Error {
  override readonly name = 'EnvironmentMismatchError';
  readonly code = 'environment_mismatch';
}
