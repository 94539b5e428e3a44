// How a benchmark says what it measured.

/** Prints tables; or with `json` one JSON document on stdout, and the tables on stderr for who watches. */
export function report(figures: object, tables: readonly string[], { json }: { readonly json: boolean }): void {
  if (json) process.stdout.write(`${JSON.stringify(figures)}\n`);
  (json ? process.stderr : process.stdout).write(tables.map((table) => `${table}\n`).join(''));
}

/** The one in the middle; of an even number, the upper one of the two. */
export function median(numbers: readonly number[]): number {
  return numbers.toSorted((one, other) => one - other)[Math.floor(numbers.length / 2)] ?? Number.NaN;
}
