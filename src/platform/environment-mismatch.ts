// The errors of a process that was pointed at a database that is not its own, or not yet.

/** Thrown if a database belongs to another environment or another account than this process. */
export class EnvironmentMismatchError extends Error {
  override readonly name: string = 'EnvironmentMismatchError';
  readonly code: string = 'environment_mismatch';
}

/**
 * Thrown if `arcadia migrate` has not brought the database to this version. Unlike another environment, this passes: a
 * process that is started again soon finds the database migrated.
 */
export class NotMigratedError extends EnvironmentMismatchError {
  override readonly name = 'NotMigratedError';
  override readonly code = 'not_migrated';
}
