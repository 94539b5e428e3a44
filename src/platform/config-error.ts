// The error of a configuration that cannot be used. In a file of its own, as readers of single variables throw it too.

/** Thrown for a configuration that cannot be used; the message names each variable, and never the value of a secret. */
export class ConfigError extends Error {
  override readonly name = 'ConfigError';
  readonly code = 'config_invalid';
}
