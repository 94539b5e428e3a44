// Parses arguments and options of the command line. Each throws what the parser of the command line reports as wrong usage.
import { InvalidArgumentError } from 'commander';

/** Collects an option that may be given several times. */
export function collect(value: string, before: string[] = []): string[] {
  return [...before, value];
}

/** @throws {InvalidArgumentError} */
export function wholeNumber(min: number, max: number): (value: string) => number {
  return (value) => {
    const number = Number(value);
    if (/^\d+$/.test(value) && number >= min && number <= max) return number;
    throw new InvalidArgumentError(`Expected a whole number from ${min} to ${max}.`);
  };
}

const id = wholeNumber(1, Number.MAX_SAFE_INTEGER);

/**
 * Collects an argument of several ids.
 *
 * @throws {InvalidArgumentError}
 */
export function ids(value: string, before: number[] = []): number[] {
  return [...before, id(value)];
}

/** @throws {InvalidArgumentError} */
export function amount(value: string): number {
  if (/^\d+(\.\d+)?$/.test(value)) return Number(value);
  throw new InvalidArgumentError('Expected an amount in USD, such as 0.05.');
}

/** @throws {InvalidArgumentError} */
export function json(value: string): unknown {
  try {
    return JSON.parse(value);
  } catch {
    throw new InvalidArgumentError('Expected JSON.');
  }
}
