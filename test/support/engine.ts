// The engine under test: its own migrated database, sagas of fake steps, and a ledger of their effects.

import { randomUUID } from 'node:crypto';
import { z } from 'zod';
import { openDatabase } from '../../src/platform/db.ts';
import type { Database } from '../../src/platform/db.ts';
import type { JsonObject } from '../../src/platform/json.ts';
import { silentLog } from '../../src/platform/log.ts';
import { migrate } from '../../src/processes/migrate.ts';
import { migrateQueues } from '../../src/queues/connection.ts';
import type { CommitResult } from '../../src/saga/commit.ts';
import type { Catalog } from '../../src/saga/definition.ts';
import { stepsToStartAt } from '../../src/saga/definition.ts';
import type { RunnerOptions } from '../../src/saga/runner.ts';
import type { JobClaim, Verdict } from '../../src/saga/verdict.ts';
import { runJob } from '../../src/saga/runner.ts';
import type { NextJob, Saga } from '../../src/saga/saga.ts';
import { startSaga } from '../../src/saga/start.ts';
import type { Step, StepRun } from '../../src/saga/step.ts';
import { done } from '../../src/saga/step.ts';
import { listEvents } from '../../src/saga/events.ts';
import { createSagaStore, loadSaga } from '../../src/saga/store.ts';
import type { LoadedSaga } from '../../src/saga/loaded.ts';
import type { StoredEvent } from '../../src/saga/events.ts';
import type { RetryPolicy, Transition } from '../../src/saga/transition.ts';
import { createTestDatabase } from './services-postgres.ts';
import type { TestDatabase } from './services-postgres.ts';

export const policy: RetryPolicy = { stepAttempts: 3, stepBackoffMs: 100, compensationAttempts: 4 };

export const reconcileGraceMs = 60_000;

/** A database with our tables, and those of BullMQ's Postgres backend. `environment`: whose it is, in lower-case letters. */
export async function createEngineDatabase(environment = 'test'): Promise<TestDatabase> {
  return createTestDatabase({
    template: `engine_${environment}`,
    migrate: async (url) => {
      const db = openDatabase(url);
      try {
        await migrate(db, environment);
      } finally {
        await db.close();
      }
      await migrateQueues({ kind: 'postgres', databaseUrl: url });
    },
  });
}

/**
 * The effects of the fake steps. Records an effect that is undone out of order, undone twice, or made again after it was undone.
 */
export class Ledger {
  readonly violations: string[] = [];
  /** Every effect and every undoing as it happened: `saga step` and `saga -step`. */
  readonly history: string[] = [];
  private readonly standing = new Map<string, string[]>();
  private readonly undone = new Set<string>();

  make(run: StepRun, step: string): void {
    const { id } = run.saga;
    const effects = this.of(id);
    this.history.push(`${id} ${step}`);
    if (this.undone.has(`${id} ${step}`)) this.violations.push(`${step} was made again after it was undone`);
    // A repeated step finds its earlier effect.
    if (!effects.includes(step)) effects.push(step);
    else if (effects.at(-1) !== step) this.violations.push(`${step} was made again after later steps`);
    this.standing.set(id, effects);
  }

  undo(run: StepRun, step: string): void {
    const { id } = run.saga;
    const effects = this.of(id);
    this.history.push(`${id} -${step}`);
    if (this.undone.has(`${id} ${step}`)) this.violations.push(`${step} was undone twice`);
    if (effects.includes(step) && effects.at(-1) !== step) this.violations.push(`${step} was undone before ${effects.at(-1)}`);
    this.undone.add(`${id} ${step}`);
    this.standing.set(id, effects.filter((effect) => effect !== step));
  }

  /** Effects of a saga that were made and not undone. */
  of(sagaId: string): string[] {
    return this.standing.get(sagaId) ?? [];
  }

  /** How often a saga made the effect of a step. */
  count(sagaId: string, step: string): number {
    return this.history.filter((entry) => entry === `${sagaId} ${step}`).length;
  }

  /** What happened to a saga, in order. */
  historyOf(sagaId: string): string[] {
    return this.history.filter((entry) => entry.startsWith(`${sagaId} `)).map((entry) => entry.slice(sagaId.length + 1));
  }
}

/** A step that notes its effects in the ledger, or does what it is given. */
export function fakeStep(name: string, parts: Partial<Omit<Step<Ledger>, 'name'>> = {}): Step<Ledger> {
  return {
    name,
    execute: async (run, ledger) => {
      ledger.make(run, name);
      return Promise.resolve(done({ [name]: true }));
    },
    compensate: async (run, ledger) => {
      ledger.undo(run, name);
      return Promise.resolve(done());
    },
    ...parts,
  };
}

/** A catalogue with one saga, `fake`, that takes any object. */
export function catalogOf(...steps: readonly Step<Ledger>[]): Catalog<Ledger> {
  return { fake: { input: z.record(z.string(), z.json()), steps } };
}

export type Engine = {
  readonly db: Database;
  readonly url: string;
  /** To Postgres itself, for clients that keep something in their session. */
  readonly directUrl: string;
  readonly ledger: Ledger;
  readonly options: RunnerOptions<Ledger>;
  /** Starts a saga of this catalogue and returns its first job. */
  readonly start: (input?: JsonObject) => Promise<NextJob>;
  readonly run: (job: JobClaim) => Promise<Verdict>;
  /** Runs a job and those that follow, ignoring delays, until nothing follows. */
  readonly drive: (job: NextJob, maxJobs?: number) => Promise<Verdict[]>;
  readonly load: (sagaId: string) => Promise<LoadedRow>;
  readonly events: (sagaId: string) => Promise<StoredEvent[]>;
  readonly [Symbol.asyncDispose]: () => Promise<void>;
};

/** A database with an engine of these steps on it. `on`: a database that is migrated already. */
export async function openEngine(catalog: Catalog<Ledger>, given: Partial<RunnerOptions<Ledger>> = {}, on?: TestDatabase): Promise<Engine> {
  const database = on ?? (await createEngineDatabase());
  const db = openDatabase(database.url);
  const ledger = new Ledger();
  const options: RunnerOptions<Ledger> = {
    store: createSagaStore(db, { worker: 'test:1', reconcileGraceMs, startsAt: stepsToStartAt(catalog) }),
    catalog,
    deps: ledger,
    policy,
    toOutcome: () => null,
    claimMs: 10_000,
    log: silentLog,
    ...given,
  };
  const run = (job: JobClaim): Promise<Verdict> => runJob(job, options);
  return {
    db,
    url: database.url,
    directUrl: database.directUrl,
    ledger,
    options,
    start: async (input = {}) => {
      const { firstJob } = await startSaga(db, catalog, { name: 'fake', input }, reconcileGraceMs);
      if (firstJob === null) throw new Error('the saga was there before');
      return firstJob;
    },
    run,
    drive: async (job, maxJobs = 200) => {
      const verdicts: Verdict[] = [];
      let claim = claimOf(job);
      while (verdicts.length < maxJobs) {
        const verdict = await run(claim);
        verdicts.push(verdict);
        if (verdict.kind === 'complete') return verdicts;
        claim = verdict.kind === 'next' ? claimOf(verdict.job) : { ...claim, memo: verdict.memo };
      }
      throw new Error(`the saga did not come to rest in ${maxJobs} jobs`);
    },
    load: (sagaId) => loadExisting(db, sagaId),
    events: (sagaId) => listEvents(db, sagaId),
    [Symbol.asyncDispose]: async () => {
      await db.close();
      await database.drop();
    },
  };
}

/** Commits a transition by itself, as this worker. */
export function commitTransition(db: Database, transition: Transition, worker: string, slack: number): Promise<CommitResult> {
  return createSagaStore(db, { worker, reconcileGraceMs: slack }).commit(transition);
}

/** Reads a saga that must be there. */
export async function loadExisting(db: Database, sagaId: string): Promise<LoadedRow> {
  const loaded = await loadSaga(db, sagaId);
  const [row] = await db.sql<{ wakeAt: Date | null }[]>`select wake_at from arcadia.sagas where id = ${sagaId}`;
  if (loaded === null || row === undefined) throw new Error(`saga ${sagaId} not found`);
  return { ...loaded, wakeAt: row.wakeAt };
}

/** A saga as the engine reads it, and when the reconciler would look for it. */
export type LoadedRow = LoadedSaga & { readonly wakeAt: Date | null };

/** What the job of a saga carries to the runner. */
export function claimOf(job: Pick<NextJob, 'sagaId' | 'revision'>): JobClaim {
  return { sagaId: job.sagaId, revision: job.revision, memo: {} };
}

/** The job that must follow from a verdict. */
export function jobOf(verdict: Verdict): NextJob {
  if (verdict.kind !== 'next') throw new Error(`expected a next job, found ${verdict.kind}: ${verdict.note}`);
  return verdict.job;
}

/** A saga as it is at the start; `change` is laid over it. */
export function makeSaga(change: Partial<Saga> = {}): Saga {
  const id = change.id ?? randomUUID();
  const at = new Date('2026-01-01T00:00:00Z');
  return {
    id,
    saga8: id.slice(0, 8),
    name: 'fake',
    status: 'pending',
    steps: ['one', 'two', 'three'],
    cursor: 0,
    revision: 0,
    attempt: 0,
    input: {},
    context: {},
    error: null,
    idempotencyKey: null,
    requestedBy: null,
    startedBy: null,
    priority: 'normal',
    traceparent: null,
    resource: null,
    waitsFor: null,
    rerunOf: null,
    rerunAs: null,
    cancelRequestedAt: null,
    stepStartedAt: at,
    createdAt: at,
    updatedAt: at,
    finishedAt: null,
    ...change,
  };
}
