// The family that a step belongs to: steps that work with the same service, and need the same variables for it.
import type { ConfigNeed } from '../platform/config.ts';

/** `name` tells families apart. `needs`: variables without which a worker cannot run the steps. */
export type StepFamily = Readonly<{ name: string; needs: readonly ConfigNeed[] }>;
