// What would be told again and again, told once in a while: a store that is away reports itself many times a second.

/** The same function, which does nothing when it was called within the last `everyMs` milliseconds. */
export function onceInAWhile<Args extends unknown[]>(everyMs: number, tell: (...args: Args) => void): (...args: Args) => void {
  let lastAt = Number.NEGATIVE_INFINITY;
  return (...args) => {
    if (performance.now() - lastAt < everyMs) return;
    lastAt = performance.now();
    tell(...args);
  };
}
