// The seam for every I/O operation of a worker: SQL, HTTP and queue calls. The code that wires a process can observe,
// number, trace or interrupt all I/O here.

/** The target of an I/O operation. `probe`: the resource itself, to check whether it responds. */
export type IoKind = 'sql' | 'http' | 'queue' | 'probe';

/**
 * Runs one I/O operation. `name` is its purpose, as in a log line (`sql store.commit`, `http POST /v2/droplets`). The
 * result or error of `operation` passes through unchanged.
 */
export type Io = <T>(kind: IoKind, name: string, operation: () => Promise<T>) => Promise<T>;

/** Only runs the operation: the seam of an ordinary process. */
export const directIo: Io = (_kind, _name, operation) => operation();
