// The seam for the smoke test's own effects: each write of its state, each request it sends or forwards, each saga it
// starts. Tests number the effects and kill the process at one of them.
import type { Io } from '../../platform/io.ts';

/** Runs one effect. `name` describes it, such as `state: droplet made`. The result or error passes through unchanged. */
export type SmokeIo = <T>(name: string, operation: () => Promise<T>) => Promise<T>;

/** Only runs the operation. */
export const directSmokeIo: SmokeIo = (_name, operation) => operation();

/** Adapts the seam for the DigitalOcean client and the database. */
export function asIo(io: SmokeIo): Io {
  return (_kind, name, operation) => io(name, operation);
}
