// Suggests which of many names was meant.

// Longer names are compared by their beginnings, because the time grows with the product of their lengths.
const COMPARED = 64;

/** Sorts names by edit distance, ignoring case, then by name. */
export function nearestFirst(wanted: string, names: readonly string[]): string[] {
  const ranked = names.map((name) => ({ name, distance: distanceOf(wanted.toLowerCase().slice(0, COMPARED), name.toLowerCase().slice(0, COMPARED)) }));
  return ranked.toSorted((one, other) => one.distance - other.distance || (one.name < other.name ? -1 : 1)).map(({ name }) => name);
}

/** The Levenshtein distance: inserted, deleted and replaced letters. */
function distanceOf(one: string, other: string): number {
  let row = Array.from({ length: other.length + 1 }, (_, index) => index);
  for (let above = 0; above < one.length; above += 1) {
    const next = [above + 1];
    for (let column = 1; column < row.length; column += 1) {
      const exchanged = (row[column - 1] ?? 0) + (one[above] === other[column - 1] ? 0 : 1);
      next.push(Math.min(exchanged, (row[column] ?? 0) + 1, (next[column - 1] ?? 0) + 1));
    }
    row = next;
  }
  return row.at(-1) ?? 0;
}
