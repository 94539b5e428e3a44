// The steps on the bench: the real engine, the real catalogue, real Postgres and the sandbox over HTTP, without queues.
// A test runs one job of a saga at a time, or drives it on until something is so. A worker can be made to die at any of
// its I/Os: from then on nothing that it asks for happens.

import { setTimeout as sleep } from 'node:timers/promises';
import { onTestFinished } from 'vitest';
import { catalog } from '../../src/steps/catalog.ts';
import type { Database } from '../../src/platform/db.ts';
import { createDigitalOceanClient } from '../../src/do/client.ts';
import type { RequestBudget } from '../../src/do/budget.ts';
import { unlimitedBudget } from '../../src/do/budget.ts';
import type { DigitalOceanClient } from '../../src/do/client.ts';
import type { Directory } from '../../src/do/directory.ts';
import { createDirectory } from '../../src/do/directory.ts';
import type { DropletObserver } from '../../src/do/observer.ts';
import { observeSingly } from '../../src/do/observer.ts';
import type { DropletLine, Sandbox, SandboxOptions } from '../../src/sandbox/server.ts';
import { startSandbox } from '../../src/sandbox/server.ts';
import { createReadyCallbacks } from '../../src/inventory/ready-callbacks.ts';
import { createInventory, listInventory } from '../../src/inventory/resources.ts';
import type { InventoryRow } from '../../src/inventory/resources.ts';
import { rangesOf } from '../../src/platform/address-ranges.ts';
import { directIo } from '../../src/platform/io.ts';
import type { Io } from '../../src/platform/io.ts';
import type { JsonObject } from '../../src/platform/json.ts';
import type { KeyRing } from '../../src/platform/key-ring.ts';
import { silentLog } from '../../src/platform/log.ts';
import { stepsToStartAt } from '../../src/saga/definition.ts';
import { runJob } from '../../src/saga/runner.ts';
import type { Verdict } from '../../src/saga/verdict.ts';
import type { Saga } from '../../src/saga/saga.ts';
import { isAtRest } from '../../src/saga/saga.ts';
import { startSaga } from '../../src/saga/start.ts';
import type { Claim, Memo } from '../../src/saga/step.ts';
import { listEvents } from '../../src/saga/events.ts';
import { claimFragment, createSagaStore, loadSaga } from '../../src/saga/store.ts';
import type { StoredEvent } from '../../src/saga/events.ts';
import type { Outcome } from '../../src/saga/transition.ts';
import { decide } from '../../src/saga/transition.ts';
import { openSecret } from '../../src/saga/open-secret.ts';
import type { Readiness, StepDeps, StepSettings } from '../../src/steps/deps.ts';
import { probe } from '../../src/steps/probe.ts';
import { toStepOutcome } from '../../src/steps/failures.ts';
import { commitTransition } from '../support/engine.ts';
import { useSharedDatabase } from '../support/shared-database.ts';
import { keyRing } from '../support/keys.ts';
import { emptyTables } from '../support/empty-tables.ts';

export const web = { name: 'web-1', region: 'fra1', size: 's-1vcpu-1gb', image: 'debian-12-x64' };

/** Attempts and times are those of a bench: everything as in production, some hundred times faster. */
export const policy = { stepAttempts: 5, stepBackoffMs: 20, compensationAttempts: 6 };

const reconcileGraceMs = 60_000;

// No delay of a verdict is waited for longer than this: what a step decides, it decides by Postgres's clock.
const LONGEST_PAUSE_MS = 25;

export type BenchOptions = SandboxOptions & {
  readonly settings?: Partial<StepSettings>;
  readonly timeoutMs?: number;
  /** How droplets are looked at. Default: each by itself. */
  readonly observer?: (client: DigitalOceanClient) => DropletObserver;
  /** What differs in how readiness is checked. */
  readonly readiness?: Partial<Readiness>;
  /** What every request is drawn from. Default: no limit. */
  readonly budget?: RequestBudget;
};

/** How one worker differs from an ordinary one; `claimMs`: how old its claim may be at a create. */
export type WorkerOptions = { readonly name?: string; readonly io?: Io; readonly apiUrl?: string; readonly keyRing?: KeyRing; readonly claimMs?: number };

export type Bench = {
  readonly db: Database;
  readonly sandbox: Sandbox;
  /** Starts a `provision_droplet` saga and reads it; `input` is laid over {@link web}. */
  readonly provision: (input?: JsonObject) => Promise<Saga>;
  readonly adopt: (dropletId: number, more?: JsonObject) => Promise<Saga>;
  readonly destroy: (dropletId: number) => Promise<Saga>;
  /** Runs the job that is due for the saga as it stands. */
  readonly step: (sagaId: string, worker?: WorkerOptions) => Promise<Verdict>;
  /** Runs a job that was due at an earlier revision. */
  readonly redeliver: (sagaId: string, revision: number) => Promise<Verdict>;
  /** Runs job after job until the saga is at rest, or `until` holds. */
  readonly drive: (sagaId: string, until?: (saga: Saga) => boolean) => Promise<Saga>;
  /** Commits a request to cancel (or to retry), as somebody other than the workers would. */
  readonly ask: (sagaId: string, outcome: Outcome) => Promise<Saga>;
  readonly cancel: (sagaId: string) => Promise<Saga>;
  readonly saga: (sagaId: string) => Promise<Saga>;
  readonly events: (sagaId: string) => Promise<StoredEvent[]>;
  /** Kinds of the events so far. */
  readonly history: (sagaId: string) => Promise<string[]>;
  /** Counters of the current wait. */
  readonly memo: (sagaId: string) => Memo;
  /** Moves the beginning of the current step into the past. */
  readonly ageStep: (sagaId: string, byMs: number) => Promise<void>;
  /** Has the last create announced so long ago. */
  readonly ageCreate: (sagaId: string, ageMs: number) => Promise<void>;
  readonly inventory: () => Promise<InventoryRow[]>;
};

/** Gives each test of the file a bench of its own on one database. */
export function useStepStage(): (options?: BenchOptions) => Promise<Bench> {
  const database = useSharedDatabase(10);
  return async (options = {}) => {
    // Every sandbox counts its droplets from the same id on: one of the last test must not be taken for one of this.
    await emptyTables(database().sql, ['arcadia.sagas', 'arcadia.saga_events', 'arcadia.cloud_resources', 'arcadia.provision_leases', 'arcadia.lease_events']);
    return openBench(database(), options);
  };
}

async function openBench(db: Database, options: BenchOptions): Promise<Bench> {
  const sandbox = await startSandbox({ activateAfterMs: 0, ratePerMinute: null, ratePerHour: null, ...options });
  onTestFinished(() => sandbox.close());
  const settings = { pollIntervalMs: 20, maxPolls: 5, adoptionGraceMs: 300, maxCreates: policy.stepAttempts, deleteAgainAfterMs: 150, maxDeletes: policy.compensationAttempts, ...options.settings };
  const memos = new Map<string, Memo>();
  // A process has one; whoever has an I/O of its own is another process.
  let ownDirectory: Directory | undefined;

  const load = async (sagaId: string): Promise<Saga> => {
    const loaded = await loadSaga(db, sagaId);
    if (loaded === null) throw new Error(`saga ${sagaId} not found`);
    return loaded.saga;
  };
  const runnerOf = ({ name = 'bench:1', io = directIo, apiUrl = sandbox.url, keyRing: ring = keyRing, claimMs = 10_000 }: WorkerOptions) => {
    // The pool is shared; the seam is the worker's own.
    const ownDb: Database = { ...db, run: (statement, run) => io('sql', statement, () => db.run(statement, run)) };
    const digitalOcean = createDigitalOceanClient({ apiUrl, token: 'bench', timeoutMs: options.timeoutMs ?? 3_000, io, budget: options.budget ?? unlimitedBudget });
    const openOwn = (claim: Claim, field: string) => openSecret(ownDb, ring, claim, field);
    const droplets = (options.observer ?? observeSingly)(digitalOcean);
    const readiness: Readiness = { probe: (target) => probe(target, 500), allowed: rangesOf(['127.0.0.0/8', '::1']), callbacks: createReadyCallbacks(ownDb, ring), publicUrl: 'https://arcadia.example.com/base', canIssue: true, ...options.readiness };
    const directory = io === directIo ? (ownDirectory ??= createDirectory(digitalOcean)) : createDirectory(digitalOcean);
    const deps: StepDeps = { inventory: createInventory(ownDb, claimFragment), digitalOcean, droplets, directory, readiness, settings };
    const store = createSagaStore(ownDb, { worker: name, reconcileGraceMs, startsAt: stepsToStartAt(catalog) });
    return { store, catalog, deps, policy, toOutcome: toStepOutcome, openSecret: openOwn, claimMs, log: silentLog, random: () => 0 };
  };
  const run = async (sagaId: string, revision: number, worker: WorkerOptions): Promise<Verdict> => {
    const key = `${sagaId}_${revision}`;
    const verdict = await runJob({ sagaId, revision, memo: memos.get(key) ?? {} }, runnerOf(worker));
    if (verdict.kind === 'postpone') memos.set(key, verdict.memo);
    return verdict;
  };
  const start = async (name: string, input: JsonObject): Promise<Saga> => load((await startSaga(db, catalog, { name, input }, reconcileGraceMs, keyRing)).sagaId);
  const ask = async (sagaId: string, outcome: Outcome): Promise<Saga> => {
    for (;;) {
      const transition = decide(await load(sagaId), outcome, policy, 0);
      if ('refused' in transition) throw new Error(transition.refused);
      if ((await commitTransition(db, transition, 'somebody', reconcileGraceMs)) === 'applied') return load(sagaId);
    }
  };

  return {
    db,
    sandbox,
    provision: (input = {}) => start('provision_droplet', { ...web, ...input }),
    adopt: (dropletId, more = {}) => start('adopt_droplet', { droplet_id: dropletId, ...more }),
    destroy: (dropletId) => start('destroy_droplet', { droplet_id: dropletId }),
    step: async (sagaId, worker = {}) => run(sagaId, (await load(sagaId)).revision, worker),
    redeliver: (sagaId, revision) => run(sagaId, revision, {}),
    drive: async (sagaId, until = () => false) => {
      const giveUpAt = Date.now() + 20_000;
      for (;;) {
        const saga = await load(sagaId);
        if (isAtRest(saga.status) || until(saga)) return saga;
        if (Date.now() > giveUpAt) throw new Error(`the saga is still ${saga.status}: ${JSON.stringify(saga.context)} ${JSON.stringify(saga.error)}`);
        const verdict = await run(sagaId, saga.revision, {});
        const delayMs = verdict.kind === 'postpone' ? verdict.delayMs : verdict.kind === 'next' ? verdict.job.delayMs : 0;
        await sleep(Math.min(delayMs, LONGEST_PAUSE_MS));
      }
    },
    ask,
    cancel: (sagaId) => ask(sagaId, { kind: 'cancel_requested', by: 'test' }),
    saga: load,
    events: (sagaId) => listEvents(db, sagaId),
    history: async (sagaId) => (await listEvents(db, sagaId)).map((event) => event.kind),
    memo: (sagaId) => memos.get([...memos.keys()].findLast((key) => key.startsWith(sagaId)) ?? '') ?? {},
    ageStep: async (sagaId, byMs) => {
      await db.sql`update arcadia.sagas set step_started_at = step_started_at - ${byMs}::double precision * interval '1 millisecond' where id = ${sagaId}`;
    },
    ageCreate: async (sagaId, ageMs) => {
      await db.sql`
        update arcadia.sagas set context = context || jsonb_build_object('create_intent_at', to_char(
          (clock_timestamp() - ${ageMs}::double precision * interval '1 millisecond') at time zone 'utc', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"'))
        where id = ${sagaId}`;
    },
    inventory: () => listInventory(db),
  };
}

/** What a worker that is killed leaves behind: an error that nobody in it can do anything about. */
export class Killed extends Error {
  override readonly name = 'Killed';
}

/** The I/O of a worker, and the names of what it did, in order. */
export function recorded(): { io: Io; names: string[] } {
  const names: string[] = [];
  const io: Io = (kind, name, operation) => {
    names.push(`${kind} ${name}`);
    return operation();
  };
  return { io, names };
}

/** A worker that dies when it is about to do (or has just done) the I/O of this name, such as `http POST /v2/droplets`. */
export function mortalAt(fatal: string, when: 'before' | 'after'): Io {
  let isDead = false;
  return async (kind, name, operation) => {
    if (isDead) throw new Killed('the worker is dead');
    if (`${kind} ${name}` !== fatal) return operation();
    isDead = true;
    if (when === 'after') await operation();
    throw new Killed('the worker was killed');
  };
}

/** Lets a worker run one job until it dies, and makes sure that it did. */
export async function stepToDeath(bench: Pick<Bench, 'step'>, sagaId: string, fatal: string, when: 'before' | 'after'): Promise<void> {
  const died = await bench.step(sagaId, { io: mortalAt(fatal, when) }).then(
    () => false,
    () => true,
  );
  if (!died) throw new Error(`the worker never came to ${fatal}`);
}

/** POSTs that reached the API, answered or not. */
export function posts(sandbox: Sandbox): number {
  return sandbox.ledger().filter((entry) => entry.method === 'POST').length;
}

/** Requests of a kind, such as `GET /v2/droplets?tag_name`. */
export function requests(sandbox: Sandbox, route: string): number {
  return sandbox.ledgerSummary().byRoute[route] ?? 0;
}

export function alive(sandbox: Sandbox): DropletLine[] {
  return sandbox.state({ alive: true });
}

export function idsOf(lines: readonly { readonly id: number }[]): number[] {
  return lines.map(({ id }) => id);
}

/** All tags by which a saga knows its droplet. */
export function tagsFor(saga: Saga): string[] {
  return [`arcadia-saga-${saga.saga8}`, 'managed-by-arcadia-cloud', `arcadia-saga-id-${saga.id}`];
}

/** The step that is current, and which way. */
export function at(step: string, status = 'running'): (saga: Saga) => boolean {
  return (saga) => saga.steps[saga.cursor] === step && saga.status === status;
}
