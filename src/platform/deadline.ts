// Deadlines for work that cannot be stopped: the caller continues and the work is abandoned.

/**
 * Waits for `work`, but at most `limitMs` milliseconds.
 *
 * @throws the error from `onLate` after the deadline; the error of the work
 */
export function withDeadline<T>(limitMs: number, work: PromiseLike<T>, onLate: () => Error): Promise<T> {
  // By hand: each statement and each job pass through here, and `Promise.race` makes five promises of one.
  return new Promise<T>((resolve, reject) => {
    const timer = setTimeout(() => reject(onLate()), limitMs);
    const inTime = <Value>(settle: (value: Value) => void) => (value: Value) => {
      clearTimeout(timer);
      settle(value);
    };
    work.then(inTime(resolve), inTime(reject));
  });
}

/** How long a process that is about to end waits for its connections to close, in milliseconds. */
export const CLOSING_MS = 1_500;

/** Waits until `work` settles, but at most `limitMs` milliseconds. Returns whether it settled. */
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
 * Waits for `work`, but stops `graceMs` milliseconds after `signal` is aborted.
 *
 * @throws the signal's reason; the error of the work
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
