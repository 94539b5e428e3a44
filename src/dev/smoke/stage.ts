// The environment of a smoke run and its common operations: following sagas and keeping a worker running.
import type { Client } from '../../client/client.ts';
import { followSaga } from '../../cli/follow.ts';
import { drain, printLines } from '../../cli/plain-progress.ts';
import { describeResult } from '../../cli/saga-text.ts';
import type { DigitalOceanClient } from '../../do/client.ts';
import { dropletApp } from '../../droplets/app.ts';
import type { Database } from '../../platform/db.ts';
import type { Saga } from '../../saga/saga.ts';
import { surfaceOf } from '../../saga/words.ts';
import type { WorkerProcess } from '../worker-process.ts';
import { startWorkerProcess } from '../worker-process.ts';
import type { SmokeIo } from './io.ts';
import type { StateFile } from './state.ts';
import type { Witness } from './witness.ts';

export type Stage = Readonly<{
  state: StateFile;
  /** The API itself, bypassing the gate. */
  api: DigitalOceanClient;
  db: Database;
  client: Client;
  witness: Witness;
  crew: Crew;
  maxPolls: number;
  /** Poll interval, in milliseconds. */
  lookEveryMs: number;
  say(line: string): void;
  io: SmokeIo;
}>;

/** The single worker of the smoke test. */
export type Crew = Readonly<{
  /** Starts a worker process if none is running. */
  ensure(stop?: AbortSignal): Promise<void>;
  /** Kills it with SIGKILL. */
  kill(): Promise<void>;
  close(): Promise<void>;
}>;

// A slow start is better than giving up: no person waits for it, but a droplet may.
const READY_WITHIN_MS = 60_000;

/** Creates a crew whose workers run in this environment. `program`: the command line; null: the running one. */
export function createCrew(environment: NodeJS.ProcessEnv, program: string | null): Crew {
  let worker: WorkerProcess | null = null;
  return {
    ensure: async (stop) => {
      if (worker?.isRunning() !== true) worker = await startWorkerProcess(environment, { stop, program: program ?? undefined, readyWithinMs: READY_WITHIN_MS });
    },
    kill: async () => worker?.kill(),
    close: async () => worker?.stop(),
  };
}

const surface = surfaceOf(dropletApp.catalog);

/** Follows a saga, with one line per event, until it is at rest. Throws the signal's reason if it is aborted. */
export async function follow(stage: Pick<Stage, 'client' | 'maxPolls' | 'say'>, label: string, sagaId: string, signal: AbortSignal): Promise<Saga> {
  const { client, maxPolls, say } = stage;
  const saga = await drain(followSaga(client, sagaId, signal, surface), printLines(maxPolls, (line) => say(`  ${label}: ${line}`), surface));
  say(`  ${label}: ${describeResult(saga, surface)}`);
  return saga;
}

/** The idempotency key of the saga that provisions or destroys an act's droplet. */
export function keyOf(run: string, act: string, what: 'provision' | 'destroy'): string {
  return `${keyPrefix(run)}${act}:${what}`;
}

export function keyPrefix(run: string): string {
  return `arcadia-smoke:${run}:`;
}
