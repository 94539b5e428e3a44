// A step family: steps that use the same service and need the same variables for it.
import type { ConfigNeed } from '../platform/config.ts';

/** `name` identifies a family. `needs`: the variables that a worker requires to run its steps. */
export type StepFamily = Readonly<{ name: string; needs: readonly ConfigNeed[] }>;
