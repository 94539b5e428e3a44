// The parts that a definition may have. A misspelled one would be ignored: its secret would be stored in plain text, its step would
// run for every saga.

/**
 * Refuses parts of other names.
 *
 * @param what the owner of the parts, to start the error message
 * @throws {TypeError} naming the first one, and the part that was probably meant
 */
export function requireKnownParts(what: string, parts: Readonly<Record<string, unknown>>, known: readonly string[]): void {
  const unknown = Object.keys(parts).find((name) => parts[name] !== undefined && !known.includes(name));
  if (unknown === undefined) return;
  const meant = closestTo(unknown, known);
  throw new TypeError(`${what}: there is no part ${JSON.stringify(unknown)}; ${meant === null ? `expected ${known.join(', ')}` : `did you mean ${meant}?`}`);
}

/** The name that differs in the fewest letters, whatever their case; null if all differ in more than a third of them. */
function closestTo(name: string, known: readonly string[]): string | null {
  const measured = known.map((one) => ({ one, distance: distanceBetween(name.toLowerCase(), one.toLowerCase()) })).toSorted((a, b) => a.distance - b.distance);
  const [closest] = measured;
  return closest === undefined || closest.distance > Math.max(1, Math.floor(closest.one.length / 3)) ? null : closest.one;
}

/** How many letters must be changed, added or taken away (Levenshtein). */
function distanceBetween(a: string, b: string): number {
  let row = Array.from({ length: b.length + 1 }, (_, index) => index);
  for (const [index, letter] of Array.from(a).entries()) {
    const next = [index + 1];
    for (let place = 0; place < b.length; place += 1) {
      const [changed = 0, added = 0, taken = 0] = [row[place], next[place], row[place + 1]];
      next.push(Math.min(changed + (letter === b[place] ? 0 : 1), added + 1, taken + 1));
    }
    row = next;
  }
  return row.at(-1) ?? 0;
}
