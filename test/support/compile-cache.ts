// The tests start hundreds of processes that load the same modules. With a compile cache in the system's temporary folder, each
// starts in little more than half the time.
import { tmpdir } from 'node:os';
import { join } from 'node:path';

/** To be spread into the environment of a process that a test starts. */
export const compileCache = { NODE_COMPILE_CACHE: join(tmpdir(), 'arcadia-test-compile-cache') } as const;
