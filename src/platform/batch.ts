// Batches calls: calls made while an earlier one is in flight are sent together, as one.

/**
 * Turns a function of many items into a function of one. No call waits to be batched: while none is in flight, a call is
 * sent in the same turn of the event loop. Only calls made meanwhile form a batch. A call that takes longer than
 * `patienceMs` (it waits for a lock, or the connection is dead) blocks no other: the next batch is sent in parallel.
 *
 * @param carryOut receives 1 to `max` items and resolves with one result per item, in order. A result may itself be a
 *   promise. If `carryOut` rejects, every item rejects
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
