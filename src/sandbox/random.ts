// Repeatable randomness: the same seed gives the same faults, so that a failed chaos run can be repeated.

/** Returns the next number in [0, 1). */
export type Random = () => number;

/** Creates a generator (mulberry32) that repeats its sequence for the same seed. */
export function seededRandom(seed: number): Random {
  let state = Math.trunc(seed);
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 4_294_967_296;
  };
}

/** Milliseconds: a fixed number, or a range for a uniform draw. */
export type MsOrRange = number | { readonly minMs: number; readonly maxMs: number };

/** Draws milliseconds from a range. Returns a fixed number without using a draw. */
export function drawMs(from: MsOrRange, random: Random): number {
  if (typeof from === 'number') return from;
  return from.minMs + random() * Math.max(0, from.maxMs - from.minMs);
}
