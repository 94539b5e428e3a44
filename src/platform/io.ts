// The one seam through which every I/O of a worker goes: SQL, HTTP and queue calls. Whoever wires a process can
// observe, number, trace or interrupt them here; nothing else needs to know how many there are.

/** What an I/O talks to. */
export type IoKind = 'sql' | 'http' | 'queue';

/**
 * Runs one I/O. `name` says what it is for, in the words of a log line (`sql store.commit`, `http POST /v2/droplets`).
 * The result and any error of `operation` pass through unchanged.
 */
export type Io = <T>(kind: IoKind, name: string, operation: () => Promise<T>) => Promise<T>;

/** Runs the operation and does nothing else: the seam of an ordinary process. */
export const directIo: Io = (_kind, _name, operation) => operation();
