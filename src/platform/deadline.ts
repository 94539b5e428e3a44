// A time limit on work that cannot be stopped: whoever waits goes on, the work is left to itself.

/**
 * Waits for `work`, but not longer than `limitMs` milliseconds.
 *
 * @throws what `onLate` makes, when the limit is over; what the work throws
 */
export async function withDeadline<T>(limitMs: number, work: PromiseLike<T>, onLate: () => Error): Promise<T> {
  let timer: NodeJS.Timeout | undefined;
  const deadline = new Promise<never>((_resolve, reject) => {
    timer = setTimeout(() => reject(onLate()), limitMs);
  });
  try {
    return await Promise.race([work, deadline]);
  } finally {
    clearTimeout(timer);
  }
}

/** Waits for `work` to end, well or badly, but not longer than `limitMs` milliseconds. Says whether it ended. */
export async function endsWithin(limitMs: number, work: PromiseLike<unknown>): Promise<boolean> {
  let timer: NodeJS.Timeout | undefined;
  const deadline = new Promise<false>((resolve) => {
    timer = setTimeout(() => resolve(false), limitMs);
  });
  const ended = Promise.allSettled([work]).then(() => true);
  const result = await Promise.race([ended, deadline]);
  clearTimeout(timer);
  return result;
}

/**
 * Waits for `work`, but only until `signal` is aborted, and `graceMs` milliseconds more.
 *
 * @throws the reason of the signal; what the work throws
 */
export async function unlessAborted<T>(signal: AbortSignal, work: PromiseLike<T>, graceMs = 0): Promise<T> {
  let timer: NodeJS.Timeout | undefined;
  const abandoned = Promise.withResolvers<never>();
  const abandon = () => {
    timer = setTimeout(() => abandoned.reject(signal.reason), graceMs);
  };
  if (signal.aborted) abandon();
  else signal.addEventListener('abort', abandon, { once: true });
  try {
    return await Promise.race([work, abandoned.promise]);
  } finally {
    signal.removeEventListener('abort', abandon);
    clearTimeout(timer);
  }
}

/** Resolves with the signal's reason when it is aborted. */
export function untilAborted(signal: AbortSignal): Promise<unknown> {
  return new Promise((resolve) => {
    if (signal.aborted) resolve(signal.reason);
    else signal.addEventListener('abort', () => resolve(signal.reason), { once: true });
  });
}
