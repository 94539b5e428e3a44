// Prints the results of a benchmark.

/** Prints tables. With `json`, prints one JSON document on stdout and the tables on stderr. */
export function report(figures: object, tables: readonly string[], { json }: { readonly json: boolean }): void {
  if (json) process.stdout.write(`${JSON.stringify(figures)}\n`);
  (json ? process.stderr : process.stdout).write(tables.map((table) => `${table}\n`).join(''));
}

/** The median; for an even number of values, the upper of the two in the middle. */
export function median(numbers: readonly number[]): number {
  return numbers.toSorted((one, other) => one - other)[Math.floor(numbers.length / 2)] ?? Number.NaN;
}
