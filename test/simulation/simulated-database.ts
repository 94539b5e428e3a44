// Postgres, as far as the engine and the inventory use it: the same conditions and the same writes as their SQL, on rows
// in memory. A statement is one effect, as it is one statement there.
import type { Creator, Inventory, Provisioner } from '../../src/inventory/resources.ts';
import { ResourceTakenError } from '../../src/inventory/resources.ts';
import type { JsonObject } from '../../src/platform/json.ts';
import { textOf } from '../../src/platform/json.ts';
import type { CommitResult } from '../../src/saga/commit.ts';
import type { Saga } from '../../src/saga/saga.ts';
import { isAtRest } from '../../src/saga/saga.ts';
import type { Claim, Memo } from '../../src/saga/step.ts';
import type { ClaimedSaga, LoadedSaga } from '../../src/saga/loaded.ts';
import type { Holding } from '../../src/saga/resource.ts';
import type { OverdueSaga, SagaStore } from '../../src/saga/store.ts';
import type { Transition } from '../../src/saga/transition.ts';
import { decide } from '../../src/saga/transition.ts';
import type { SimulatedLeases } from './simulated-leases.ts';
import { createSimulatedLeases } from './simulated-leases.ts';
import type { Call, Mechanism } from './violation.ts';
import { Violation } from './violation.ts';

// Starting a saga retries nothing, so no back-off is computed.
const noRetries = { stepAttempts: 1, stepBackoffMs: 1, compensationAttempts: 1 };

type Row = { saga: Saga; memo: Memo; wakeAt: number | null; inputChecked: boolean; compensated: number[]; worksOn: string | null; formerResource: string | null };

export type SimulatedDatabase = Readonly<{
  store: SagaStore;
  inventory: Inventory;
  leases: SimulatedLeases;
  insert(saga: NewRow): void;
  saga(id: string): Saga;
  all(): Saga[];
  /** Droplets that the inventory holds for a saga, as it would be shown. */
  provisionedBy(sagaId: string): { providerId: string; isDeleted: boolean }[];
}>;

export type NewRow = Pick<Saga, 'id' | 'name' | 'steps' | 'input'> & { inputChecked: boolean };

export function createSimulatedDatabase(options: {
  call: Call;
  nowMs: () => number;
  reconcileGraceMs: number;
  /** First steps that must not run before the start of their saga is written. */
  startsAt: readonly string[];
  without: Mechanism | null;
  /** What a saga's steps work on; null: nothing that others work on. */
  resourceOf: (saga: Saga) => string | null;
}): SimulatedDatabase {
  const { call, nowMs, resourceOf, reconcileGraceMs, startsAt, without } = options;
  const rows = new Map<string, Row>();
  const resources = new Map<string, { deletedAt: number | null; lastSeenAt: number; provisioned: { sagaId: string; name: string } | null }>();

  const rowOf = (id: string): Row => {
    const row = rows.get(id);
    if (row === undefined) throw new Violation(`saga ${id} not found`);
    return row;
  };
  const claimStands = (claim: Claim) => without === 'fencing' || rowOf(claim.sagaId).saga.revision === claim.revision;

  const load = (sagaId: string): LoadedSaga => {
    const { saga, memo, wakeAt, inputChecked } = rowOf(sagaId);
    const dueInMs = wakeAt === null ? 0 : Math.max(0, wakeAt - reconcileGraceMs - nowMs());
    return { saga, now: new Date(nowMs()), dueInMs, memo, inputChecked };
  };

  const start = (claim: Claim): ClaimedSaga | null => {
    const { saga, inputChecked } = rowOf(claim.sagaId);
    if (claim.revision !== 0 || saga.status !== 'pending' || !inputChecked) return null;
    const started = decide(saga, { kind: 'started' }, noRetries, 0);
    if ('refused' in started) throw new Violation(`${saga.id} does not start: ${started.refused}`);
    commit(started);
    return { ...load(saga.id), stands: true, ageMs: 0 };
  };

  const commit = (transition: Transition): CommitResult => {
    const row = rowOf(transition.sagaId);
    if (without !== 'fencing' && (row.saga.revision !== transition.from || row.saga.status !== transition.was)) return 'fenced';
    checkTransition(row, transition, without);
    checkResource(row, transition);
    const { saga, event, next } = transition;
    const now = new Date(nowMs());
    const isDropped = without === 'intent' && event.kind === 'step_recorded' && textOf(event.detail['note']).startsWith('announced');
    const stamps = Object.fromEntries(transition.stamps.map((key) => [key, now.toISOString()]));
    const isFinished = saga.status === 'completed' || saga.status === 'compensated';
    const before = row.saga;
    row.saga = {
      ...row.saga,
      status: saga.status,
      cursor: saga.cursor,
      revision: saga.revision,
      attempt: saga.attempt,
      input: transition.input ?? row.saga.input,
      context: isDropped ? row.saga.context : { ...row.saga.context, ...transition.patch, ...stamps },
      error: saga.error,
      cancelRequestedAt: event.kind === 'cancel_requested' ? now : row.saga.cancelRequestedAt,
      stepStartedAt: transition.stepChanged ? now : row.saga.stepStartedAt,
      updatedAt: now,
      finishedAt: isFinished ? now : null,
    };
    row.inputChecked ||= transition.input !== null;
    leases.onCommit(before, row.saga, event.kind === 'cancel_requested' ? textOf(event.detail['by']) : null);
    row.memo = {};
    row.wakeAt = next === null ? null : nowMs() + next.delayMs + reconcileGraceMs;
    return 'applied';
  };

  // By what the sagas' steps have written, not by what the store says that they hold.
  const checkResource = (row: Row, { saga, event }: Transition) => {
    const resource = resourceOf(row.saga);
    if (resource === null || event.step === null || !/^(step|compensation)_/.test(event.kind)) return;
    const other = [...rows.values()].find((one) => one !== row && one.worksOn === resource && !isAtRest(one.saga.status));
    if (other !== undefined) throw new Violation(`${saga.id} works on ${resource} while ${other.saga.id} is at work on it`);
    row.worksOn = resource;
  };

  const hold = (claim: Claim, given: string): Holding => {
    const row = rowOf(claim.sagaId);
    const resource = row.saga.resource ?? row.formerResource ?? given;
    if (without === 'one saga a resource') {
      row.saga = { ...row.saga, resource };
      return { kind: 'held', resource };
    }
    for (const other of rows.values()) {
      if (other.saga.resource !== resource || other === row || !isAtRest(other.saga.status)) continue;
      other.saga = { ...other.saga, resource: null };
      other.formerResource = resource;
    }
    const holder = [...rows.values()].find((other) => other !== row && other.saga.resource === resource);
    if (row.saga.revision !== claim.revision) return holder === undefined ? { kind: 'fenced' } : { kind: 'waits', resource, holder: holder.saga.id };
    row.saga = holder === undefined ? { ...row.saga, resource, waitsFor: null } : { ...row.saga, waitsFor: holder.saga.id };
    return holder === undefined ? { kind: 'held', resource } : { kind: 'waits', resource, holder: holder.saga.id };
  };

  const takeOverdue = (limit: number): OverdueSaga[] => {
    const overdue = [...rows.values()]
      .filter((row) => !isAtRest(row.saga.status) && row.wakeAt !== null && row.wakeAt <= nowMs())
      .toSorted((a, b) => (a.wakeAt ?? 0) - (b.wakeAt ?? 0))
      .slice(0, limit);
    for (const row of overdue) row.wakeAt = nowMs() + reconcileGraceMs;
    return overdue.map(({ saga }) => ({ ...saga, now: new Date(nowMs()) }));
  };

  const register: Inventory['register'] = (claim, resource, provision) => {
    const effect = () => {
      if (!claimStands(claim)) return null;
      const known = resources.get(resource.providerId) ?? { deletedAt: null, lastSeenAt: nowMs(), provisioned: null };
      resources.set(resource.providerId, known);
      known.deletedAt = null;
      known.lastSeenAt = nowMs();
      known.provisioned ??= { sagaId: provision.sagaId, name: resource.name ?? '' };
      if (known.provisioned.sagaId !== provision.sagaId) throw new ResourceTakenError(resource.providerId);
      leases.onRegister(provision.sagaId, Number(resource.providerId));
      return `resource-${resource.providerId}`;
    };
    return call('sql', 'inventory.register', effect, () => `droplet ${resource.providerId}`);
  };

  const unregister = (claim: Claim): boolean => {
    if (!claimStands(claim)) return false;
    leases.onUnregister(claim.sagaId);
    for (const resource of resources.values()) {
      if (resource.provisioned?.sagaId !== claim.sagaId) continue;
      resource.provisioned = null;
      resource.deletedAt ??= nowMs();
    }
    return true;
  };

  const disown = (claim: Claim): boolean => {
    if (!claimStands(claim)) return false;
    for (const resource of resources.values()) if (resource.provisioned?.sagaId === claim.sagaId) resource.provisioned = null;
    return true;
  };

  const findCreator: (droplet: { id: number; name: string | null }) => Creator | null = ({ id, name }) => {
    const creators = [...rows.values()].map(({ saga }) => saga).filter(({ finishedAt, context }) => finishedAt === null && context['create_intents'] !== undefined);
    const known = creators.find(({ context }) => context['droplet_id'] === id);
    const creator = known ?? creators.find(({ context, input }) => context['droplet_id'] === undefined && input['name'] === name);
    return creator === undefined ? null : { sagaId: creator.id, isKnown: creator === known };
  };

  const findProvisioner = (providerId: string): Provisioner | null => {
    const resource = resources.get(providerId);
    if (resource === undefined || resource.provisioned === null) return null;
    return { ...resource.provisioned, lastSeenAt: new Date(resource.lastSeenAt), deletedAt: resource.deletedAt === null ? null : new Date(resource.deletedAt) };
  };

  const markDestroyed = (claim: Claim, providerId: string): boolean => {
    if (!claimStands(claim)) return false;
    const resource = resources.get(providerId);
    if (resource !== undefined) resource.deletedAt ??= nowMs();
    leases.onDestroyed(Number(providerId));
    return true;
  };

  const insert = ({ inputChecked, ...saga }: NewRow & Partial<Pick<Saga, 'requestedBy'>>): void => {
    const now = new Date(nowMs());
    rows.set(saga.id, { saga: newSaga(saga, now), memo: {}, wakeAt: nowMs() + reconcileGraceMs, inputChecked, compensated: [], worksOn: null, formerResource: null });
  };
  const leases = createSimulatedLeases({ call, nowMs, without, sagas: () => [...rows.values()].map(({ saga }) => saga), insert: (saga) => insert({ ...saga, inputChecked: true }) });

  return {
    store: {
      claim: async (job) => {
        const startsHere = job.revision === 0 && startsAt.includes(job.step ?? '');
        const started = startsHere ? await call('sql', 'store.start', () => start(job), () => job.sagaId) : null;
        if (started !== null) return started;
        const loaded = await call('sql', 'store.load', () => load(job.sagaId), () => `${job.sagaId}: ${describe(rowOf(job.sagaId).saga)}`);
        return { ...loaded, stands: loaded.saga.revision === job.revision, ageMs: 0 };
      },
      load: (sagaId) => call('sql', 'store.load', () => load(sagaId), () => `${sagaId}: ${describe(rowOf(sagaId).saga)}`),
      hold: (claim, resource) => call('sql', 'store.hold_resource', () => hold(claim, resource), () => `${claim.sagaId}: ${resource}`),
      commit: (transition) => call('sql', 'store.commit', () => commit(transition), () => describeTransition(transition)),
      takeOverdue: (limit) => call('sql', 'store.take_overdue', () => takeOverdue(limit)),
      saveMemos: async (memos) => {
        if (memos.length === 0) return;
        await call('sql', 'store.save_memos', () => {
          for (const { sagaId, revision, memo } of memos) {
            const row = rowOf(sagaId);
            if (row.saga.revision === revision) row.memo = memo;
          }
        });
      },
    },
    inventory: {
      register,
      unregister: (claim) => call('sql', 'inventory.unregister', () => unregister(claim), () => claim.sagaId),
      disown: (claim) => call('sql', 'inventory.disown', () => disown(claim), () => claim.sagaId),
      findCreator: (droplet) => call('sql', 'inventory.find_creator', () => findCreator(droplet)),
      markDestroyed: (claim, providerId) =>
        call('sql', 'inventory.mark_destroyed', () => markDestroyed(claim, providerId), () => `droplet ${providerId}`),
      // Nobody protects a droplet here.
      isProtected: () => call('sql', 'inventory.protection', () => false),
      findProvisioner: (providerId) => call('sql', 'inventory.find_provisioner', () => findProvisioner(providerId)),
    },
    leases,
    insert,
    saga: (id) => rowOf(id).saga,
    all: () => [...rows.values()].map(({ saga }) => saga),
    provisionedBy: (sagaId) =>
      [...resources]
        .filter(([, { provisioned }]) => provisioned?.sagaId === sagaId)
        .map(([providerId, { deletedAt }]) => ({ providerId, isDeleted: deletedAt !== null })),
  };
}

/** What must be true of every single transition that is written. */
function checkTransition(row: Row, transition: Transition, without: Mechanism | null): void {
  const { saga: from } = row;
  const { saga: to, before, event } = transition;
  // Without its fence the history is broken at once; what is to be seen is what that does to droplets.
  if (without === 'fencing') return;
  const startsToo = before !== undefined && before.kind === 'saga_started' && before.seq === 1 && from.status === 'pending';
  if (before !== undefined && !startsToo) throw new Violation(`${from.id} is ${from.status}, and ${before.kind} is written with ${event.kind}`);
  if (to.revision !== from.revision + (startsToo ? 2 : 1) || event.seq !== to.revision) {
    throw new Violation(`${from.id}: revision ${from.revision} is followed by ${to.revision}, event ${event.seq}`);
  }
  if (from.status === 'completed' || from.status === 'compensated') {
    throw new Violation(`${from.id} is ${from.status}, and is moved on by ${event.kind}`);
  }
  if (event.kind === 'compensation_completed') {
    const expected = (row.compensated.at(-1) ?? from.cursor + 1) - 1;
    if (from.cursor !== expected) throw new Violation(`${from.id}: step ${from.cursor} is compensated where step ${expected} is due`);
    row.compensated.push(from.cursor);
  }
}

function newSaga({ requestedBy = null, ...saga }: Omit<NewRow, 'inputChecked'> & Partial<Pick<Saga, 'requestedBy'>>, now: Date): Saga {
  const none: JsonObject = {};
  return {
    ...saga,
    saga8: saga.id.slice(0, 8),
    status: 'pending',
    cursor: 0,
    revision: 0,
    attempt: 0,
    context: none,
    error: null,
    idempotencyKey: null,
    requestedBy,
    startedBy: null,
    priority: 'normal',
    traceparent: null,
    resource: null,
    waitsFor: null,
    rerunOf: null,
    rerunAs: null,
    cancelRequestedAt: null,
    stepStartedAt: now,
    createdAt: now,
    updatedAt: now,
    finishedAt: null,
  };
}

function describe(saga: Saga): string {
  return `revision ${saga.revision}, ${saga.status}, step ${saga.steps[saga.cursor]}`;
}

function describeTransition({ saga, from, event }: Transition): string {
  const { status: _, ...detail } = event.detail;
  return `${saga.id}: ${from} → ${saga.revision} ${event.kind} ${event.step}, ${saga.status} ${JSON.stringify(detail)}`;
}
