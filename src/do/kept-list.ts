// Caches a list of the account for a short time, so that many callers cause one read.

/** A list and its age. */
type Listing<T> = Readonly<{ items: readonly T[]; ageMs: number }>;

/**
 * Reads a list, or returns the cached one.
 *
 * @param maxAgeMs the oldest cached list to accept; 0: read now
 */
export type ReadList<T> = (maxAgeMs: number) => Promise<Listing<T>>;

/** Caches what `read` returns. A failed read is not cached: it rejects for those who wait for it. */
export function keepList<T>(read: () => Promise<readonly T[]>): ReadList<T> {
  let last: { startedAt: number; items: Promise<readonly T[]> } | null = null;
  return async (maxAgeMs) => {
    const now = performance.now();
    if (last === null || now - last.startedAt >= maxAgeMs) {
      const reading = { startedAt: now, items: read() };
      last = reading;
      reading.items.catch(() => {
        if (last === reading) last = null;
      });
    }
    const { startedAt, items } = last;
    return { items: await items, ageMs: now - startedAt };
  };
}
