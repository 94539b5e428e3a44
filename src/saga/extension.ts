// What a step family adds to a worker besides its steps: a check, loops, metrics and periodic work. A worker whose app
// has no such steps loads none of this.
import type { Config, ConfigNeed } from '../platform/config.ts';
import type { Database } from '../platform/db.ts';
import type { Io } from '../platform/io.ts';
import type { RunRedisScript } from '../platform/redis-script.ts';
import type { Catalog } from './definition.ts';
import type { IsNeeded } from './expire.ts';
import type { Held, Woken } from './holds.ts';
import type { OutcomeSource } from './outcome-source.ts';
import type { Expiry } from './retention.ts';
import type { Direction, NextJob } from './saga.ts';
import type { Memo, StepOutcome } from './step.ts';
import type { StepFamily } from './step-family.ts';

/**
 * Returns the families of an app's steps without duplicates. An app may bring its own copy of the package, so families
 * are compared by name.
 */
export function familiesOf(catalog: Catalog<never>): readonly StepFamily[] {
  const families = Object.values(catalog).flatMap(({ steps }) => steps.flatMap(({ family }) => family ?? []));
  return [...new Map(families.map((family) => [family.name, family])).values()];
}

/** Returns the variables that a worker requires for an app. */
export function needsOf({ catalog }: Readonly<{ catalog: Catalog<never> }>): readonly ConfigNeed[] {
  return [...new Set(familiesOf(catalog).flatMap(({ needs }) => needs))];
}

/** What a worker provides to the function that opens a family's dependencies. */
export type WorkerHost = Readonly<{
  /** Name of the worker, as in its events. */
  name: string;
  config: Config;
  db: Database;
  io: Io;
  /** Runs Lua scripts in Redis; null if the queues are in Postgres. */
  runScript: RunRedisScript | null;
  /** Makes a saga's job due now. */
  wake(job: NextJob): Promise<Woken>;
  /** Enqueues a saga's job as the next one to be taken. Does nothing if it is already enqueued. */
  enqueueFirst(job: NextJob): Promise<void>;
  /**
   * @throws {TypeError} if the worker already has an extension with this name
   */
  extend(extension: WorkerExtension): void;
}>;

/**
 * `failingForMs`: since when no request was answered, or only with an error of the server; null: the last one was answered.
 * `answeredMsAgo`: since the last answer; null: none yet.
 */
export type ProviderAnswers = Readonly<{ failingForMs: number | null; answeredMsAgo: number | null }>;

/** What a worker does for a family besides running its steps. */
export type WorkerExtension = Readonly<{
  name: string;
  /** Runs before the worker takes jobs. If it throws, the worker does not start. */
  check(): Promise<void>;
  /**
   * Starts the family's loops. Each ends when the signal is aborted, or resolves with the reason why the worker cannot
   * continue.
   */
  run(signal: AbortSignal): readonly Promise<string | null>[];
  periodic: PeriodicWork;
  /** Interprets a step's error; null: unknown. */
  toOutcome(error: unknown, direction: Direction, memo: Memo): StepOutcome | null;
  /** See the runner's `hold`. */
  hold(held: Held): Promise<number>;
  /** The longest duration of one request of its steps. */
  requestTimeoutMs: number;
  /** Fingerprint of its credentials. */
  scope: string;
  /** How long the steps must wait for the request budget, in milliseconds; 0: not at all. */
  throttledForMs(): number;
  /** Whether the service of its steps answers. */
  provider?(): ProviderAnswers;
  /** What its callers are told of beside the ends of sagas. */
  outcomes?: readonly OutcomeSource[];
  /** In the text format of Prometheus. */
  metrics(): Promise<string>;
  retention: Readonly<{
    isNeeded: IsNeeded;
    expiries: readonly Expiry[];
  }>;
}>;

/**
 * Work that only one worker of the fleet does at a time. Its jobs have a queue of their own, where people can see and
 * pause it.
 */
export type PeriodicWork = Readonly<{
  queue: string;
  /** Name of its jobs. */
  job: string;
  /** Does the work if it is due. Resolves with a sentence that describes the result. */
  run(how: { isPaused: () => Promise<boolean>; signal: AbortSignal }): Promise<string>;
  /** Creates a job each time the work is due, until the signal is aborted. */
  schedule(how: { ensure: (number: number) => Promise<void>; signal: AbortSignal }): Promise<void>;
}>;
