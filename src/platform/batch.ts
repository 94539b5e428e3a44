// Gathers calls into fewer: those made while an earlier one is under way go together, as one.

/**
 * Makes a function of one item out of one of many. Nothing waits for company: a call goes out in the same turn of the
 * event loop while none is under way, and only what comes in meanwhile is batching. One that takes longer than
 * `patienceMs` (it waits for a lock, or the link is dead) holds up nobody: the next goes out beside it.
 *
 * @param carryOut is given 1 to `max` items, and resolves with a result for each, in their order. A result may be a
 *   promise of its own. Where it rejects, each of the items does
 */
export function batch<Item, Result>(
  carryOut: (items: readonly Item[]) => Promise<readonly (Result | PromiseLike<Result>)[]>,
  { max, patienceMs }: { max: number; patienceMs: number },
): (item: Item) => Promise<Result> {
  type Call = Readonly<{ item: Item; resolve: (result: Result | PromiseLike<Result>) => void; reject: (error: unknown) => void }>;
  let waiting: Call[] = [];
  let isHeldUp = false;
  let isScheduled = false;

  const flush = async () => {
    isScheduled = false;
    const calls = waiting.slice(0, max);
    waiting = waiting.slice(max);
    isHeldUp = true;
    let hasLetGo = false;
    const letGo = () => {
      if (hasLetGo) return;
      hasLetGo = true;
      isHeldUp = false;
      schedule();
    };
    const patience = setTimeout(letGo, patienceMs);
    try {
      const results = await carryOut(calls.map(({ item }) => item));
      results.forEach((result, index) => calls[index]?.resolve(result));
      for (const { reject } of calls.slice(results.length)) reject(new Error('a batching call got no result'));
    } catch (error) {
      for (const { reject } of calls) reject(error);
    } finally {
      clearTimeout(patience);
      letGo();
    }
  };

  const schedule = () => {
    if (isScheduled || isHeldUp || waiting.length === 0) return;
    isScheduled = true;
    setImmediate(() => void flush());
  };

  return (item) =>
    new Promise<Result>((resolve, reject) => {
      waiting.push({ item, resolve, reject });
      schedule();
    });
}
