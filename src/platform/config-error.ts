// The error for an invalid configuration. It has its own file because readers of single variables throw it too.

/** Thrown for an invalid configuration. The message names each variable and never contains a secret. */
export class ConfigError extends Error {
  override readonly name = 'ConfigError';
  readonly code = 'config_invalid';
}

/** One error that lists all problems, a line each. */
export function refusal(problems: readonly string[]): ConfigError {
  return new ConfigError(`Invalid configuration:\n${problems.map((problem) => `  ${problem}`).join('\n')}`);
}
