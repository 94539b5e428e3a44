// The error for an invalid configuration. It has its own file because readers of single variables throw it too.

/** Thrown for an invalid configuration. The message names each variable and never contains a secret. */
export class ConfigError extends Error {
  override readonly name = 'ConfigError';
  readonly code = 'config_invalid';
}

const HEADING = 'Invalid configuration:';

/** One error that lists all problems, a line each. */
export function refusal(problems: readonly string[]): ConfigError {
  return new ConfigError(`${HEADING}\n${problems.map((problem) => `  ${problem}`).join('\n')}`);
}

const MOST_PROBLEMS = 3;

/** Its problems in one line, the first few of many. */
export function inOneLine({ message }: ConfigError): string {
  const problems = message.split('\n').map((line) => line.trim()).filter((line) => line !== HEADING);
  const more = problems.length - MOST_PROBLEMS;
  return [...problems.slice(0, MOST_PROBLEMS), ...(more > 0 ? [`and ${more} more`] : [])].join('; ');
}
