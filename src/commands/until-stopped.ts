// When a process has to stop: at a signal, or when the process that started it is gone.

/** Resolves with the reason. A second signal ends the process at once. */
export function untilStopped(): Promise<string> {
  return new Promise((resolve) => {
    const stop = (why: string) => {
      for (const signal of ['SIGINT', 'SIGTERM'] as const) {
        process.off(signal, stop);
        process.once(signal, () => process.exit(130));
      }
      resolve(why);
    };
    process.once('SIGINT', stop);
    process.once('SIGTERM', stop);
    // Started with a channel to its parent, it does not outlive it.
    if (process.connected) process.once('disconnect', () => stop('the parent process is gone'));
  });
}
