// Throttles repeated reports: an unreachable store reports itself many times a second.

/** Wraps a function so that calls within `everyMs` milliseconds after the last one do nothing. */
export function onceInAWhile<Args extends unknown[]>(everyMs: number, tell: (...args: Args) => void): (...args: Args) => void {
  let lastAt = Number.NEGATIVE_INFINITY;
  return (...args) => {
    if (performance.now() - lastAt < everyMs) return;
    lastAt = performance.now();
    tell(...args);
  };
}
