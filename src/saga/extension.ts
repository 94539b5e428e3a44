// What a family of steps brings to a worker beside the steps themselves: a check, loops, metrics, work that comes round. The
// worker of an app without such steps knows nothing of what they work with.
import type { Config, ConfigNeed } from '../platform/config.ts';
import type { Database } from '../platform/db.ts';
import type { Io } from '../platform/io.ts';
import type { RunRedisScript } from '../platform/redis-script.ts';
import type { Catalog } from './definition.ts';
import type { IsNeeded } from './expire.ts';
import type { Held, Woken } from './holds.ts';
import type { Expiry } from './retention.ts';
import type { Direction, NextJob } from './saga.ts';
import type { Memo, StepOutcome } from './step.ts';
import type { StepFamily } from './step-family.ts';

/** The families of an app's steps, each once. An app may bring its own copy of the package: families are told apart by name. */
export function familiesOf(catalog: Catalog<never>): readonly StepFamily[] {
  const families = Object.values(catalog).flatMap(({ steps }) => steps.flatMap(({ family }) => family ?? []));
  return [...new Map(families.map((family) => [family.name, family])).values()];
}

/** Variables without which a worker cannot run an app. */
export function needsOf({ catalog }: Readonly<{ catalog: Catalog<never> }>): readonly ConfigNeed[] {
  return [...new Set(familiesOf(catalog).flatMap(({ needs }) => needs))];
}

/** What a worker lends to the function that opens what the steps of a family work with. */
export type WorkerHost = Readonly<{
  /** Name of the worker, as in the events that it writes. */
  name: string;
  config: Config;
  db: Database;
  io: Io;
  /** Runs Lua scripts in Redis; null where the queues are in Postgres. */
  runScript: RunRedisScript | null;
  /** Makes the job of a saga due now. */
  wake(job: NextJob): Promise<Woken>;
  /** @throws {TypeError} when the worker has an extension of this name already */
  extend(extension: WorkerExtension): void;
}>;

/** What a worker does for a family beside running its steps. */
export type WorkerExtension = Readonly<{
  name: string;
  /** Checks before the worker takes jobs. What it throws ends the start. */
  check(): Promise<void>;
  /** Starts its loops; each ends when the signal is aborted, or resolves with the reason why the worker cannot go on. */
  run(signal: AbortSignal): readonly Promise<string | null>[];
  periodic: PeriodicWork;
  /** What an error of a step means; null: it does not know. */
  toOutcome(error: unknown, direction: Direction, memo: Memo): StepOutcome | null;
  /** As the runner's `hold`. */
  hold(held: Held): Promise<number>;
  /** How long one request of its steps may take. */
  requestTimeoutMs: number;
  /** Fingerprint of its credentials. */
  scope: string;
  /** How long the steps have to wait for the request budget; 0: not at all. */
  throttledForMs(): number;
  /** In the text format of Prometheus. */
  metrics(): Promise<string>;
  retention: Readonly<{
    isNeeded: IsNeeded;
    expiries: readonly Expiry[];
  }>;
}>;

/** Work that one worker of the fleet does at a time, as jobs of a queue of its own: people can see it there, and pause it. */
export type PeriodicWork = Readonly<{
  queue: string;
  /** Name of its jobs. */
  job: string;
  /** Does the work if it is due; resolves with a sentence on what came of it. */
  run(how: { isPaused: () => Promise<boolean>; signal: AbortSignal }): Promise<string>;
  /** Makes a job each time that the work is due, until the signal is aborted. */
  schedule(how: { ensure: (number: number) => Promise<void>; signal: AbortSignal }): Promise<void>;
}>;
