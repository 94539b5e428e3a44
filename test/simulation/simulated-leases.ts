// The leases in the simulated Postgres: the same conditions and writes as the SQL of src/inventory/leases.ts, of the triggers and
// of arcadia.renew_lease, on rows in memory. Beside them, when each lease ends by the last renewal that was committed.
import { recordedDropletId } from '../../src/inventory/droplet-of-saga.ts';
import type { LeaseStore, StartedDestroy } from '../../src/inventory/leases.ts';
import { LEASE_ACTOR } from '../../src/inventory/leases.ts';
import type { JsonObject } from '../../src/platform/json.ts';
import type { Saga } from '../../src/saga/saga.ts';
import type { Call, Mechanism } from './violation.ts';
import { Violation } from './violation.ts';

/** `dropletId`: it is registered; null: its provision is under way. */
type LeaseRow = { sagaId: string; until: number; limit: number; generation: number; expiredAt: number | null; dropletId: number | null; destroyedBy: string | null };

export type SimulatedLeases = Readonly<{
  store: LeaseStore;
  /** As arcadia.renew_lease: null where the renewal is refused. */
  renew(dropletId: number, ttlMs: number): Promise<number | null>;
  /** A saga is about to be written: its lease begins with its first announcement, and ends with its rollback. */
  onCommit(before: Saga, after: Saga, cancelledBy: string | null): void;
  onRegister(sagaId: string, dropletId: number): void;
  onUnregister(sagaId: string): void;
  onDestroyed(dropletId: number): void;
  /** Throws a violation where a saga that a lease has started, or cancelled, destroys a droplet before its lease ended. */
  checkDestroy(owner: string, actor: Saga): void;
  /** Whether a pass has something to do, now or later. */
  isWaiting(): boolean;
}>;

export function createSimulatedLeases(options: {
  call: Call;
  nowMs: () => number;
  without: Mechanism | null;
  sagas: () => readonly Saga[];
  insert: (saga: Pick<Saga, 'id' | 'name' | 'steps' | 'input' | 'requestedBy'>) => void;
}): SimulatedLeases {
  const { call, nowMs, without, sagas, insert } = options;
  const rows = new Map<string, LeaseRow>();
  const ends = new Map<string, number>();
  const cancelled = new Set<string>();
  const sagaOf = (id: string) => sagas().find((saga) => saga.id === id);
  const destroyersOf = (dropletId: number) => sagas().filter((saga) => saga.name === 'destroy_droplet' && saga.input['droplet_id'] === dropletId);
  const isBeingDestroyed = (dropletId: number) => destroyersOf(dropletId).some(({ status }) => status !== 'completed' && status !== 'compensated');

  const mayExpire = (row: LeaseRow): boolean => {
    if (row.until > nowMs() || row.destroyedBy !== null) return false;
    const status = sagaOf(row.sagaId)?.status;
    if (row.expiredAt !== null && (status === 'compensating' || status === 'stuck')) return false;
    return row.dropletId === null || !isBeingDestroyed(row.dropletId);
  };

  const expire = (): Awaited<ReturnType<LeaseStore['expire']>> => {
    const started: StartedDestroy[] = [];
    const toCancel: { sagaId: string; leaseUntil: Date }[] = [];
    for (const row of [...rows.values()].filter(mayExpire)) {
      row.expiredAt ??= nowMs();
      const { sagaId, dropletId, generation } = row;
      const leaseUntil = new Date(row.until);
      const status = sagaOf(sagaId)?.status;
      if (status === 'pending' || status === 'running') toCancel.push({ sagaId, leaseUntil });
      if (dropletId === null || (status !== 'completed' && status !== 'compensated')) continue;
      const id = `e${sagaId.slice(1, 8)}-0000-4000-8000-${String(generation).padStart(12, '0')}`;
      const input: JsonObject = { droplet_id: dropletId, reason: 'its lease ended' };
      insert({ id, name: 'destroy_droplet', steps: ['destroy_droplet'], input, requestedBy: LEASE_ACTOR });
      row.destroyedBy = id;
      started.push({ sagaId: id, dropletId, leaseUntil, reason: 'its lease ended' });
    }
    return { started, toCancel, held: null, endedProtected: 0, hasMore: false, leased: 0 };
  };

  const reopen = (againAfterMs: number): number => {
    const again = [...rows.values()].filter(({ destroyedBy }) => {
      const saga = destroyedBy === null ? undefined : sagaOf(destroyedBy);
      return saga?.status === 'compensated' && saga.cancelRequestedAt !== null && (saga.finishedAt?.getTime() ?? 0) <= nowMs() - againAfterMs;
    });
    for (const row of again) Object.assign(row, { destroyedBy: null, generation: row.generation + 1 });
    return again.length;
  };

  const renew = (dropletId: number, ttlMs: number): number | null => {
    const row = [...rows.values()].find(({ sagaId, dropletId: registered }) => registered === dropletId || (registered === null && recordedDropletId(sagaOf(sagaId) ?? { context: {} }) === dropletId));
    if (row === undefined || (row.expiredAt !== null && without !== 'expiry mark')) return null;
    const status = sagaOf(row.sagaId)?.status;
    if (without !== 'expiry mark' && (isBeingDestroyed(dropletId) || status === 'compensating' || status === 'compensated' || status === 'stuck')) return null;
    const until = Math.min(Math.max(row.until, nowMs() + ttlMs), row.limit);
    if (until <= nowMs()) return null;
    if (until > row.until) Object.assign(row, { until, generation: row.generation + 1 });
    ends.set(row.sagaId, until);
    return until;
  };

  return {
    store: {
      expire: () => call('sql', 'leases.expire', expire),
      reopen: (againAfterMs) => call('sql', 'leases.reopen', () => reopen(againAfterMs)),
      warn: () => Promise.resolve(0),
    },
    renew: (dropletId, ttlMs) => call('sql', 'inventory.renew_lease', () => renew(dropletId, ttlMs), () => `droplet ${dropletId} for ${ttlMs / 1_000} s`),
    onCommit: (before, after, cancelledBy) => {
      if (cancelledBy === LEASE_ACTOR) cancelled.add(after.id);
      const lease = after.input['lease'];
      if (after.context['create_intent_at'] !== undefined && before.context['create_intent_at'] === undefined && typeof lease === 'object' && lease !== null && 'ttl_s' in lease) {
        const until = nowMs() + Number(lease['ttl_s']) * 1_000;
        rows.set(after.id, { sagaId: after.id, until, limit: lease['max_s'] === undefined ? Number.POSITIVE_INFINITY : nowMs() + Number(lease['max_s']) * 1_000, generation: 1, expiredAt: null, dropletId: null, destroyedBy: null });
        ends.set(after.id, until);
      }
      const isOver = after.status === 'compensated' || after.status === 'completed';
      if (isOver && rows.get(after.id)?.dropletId === null) rows.delete(after.id);
    },
    onRegister: (sagaId, dropletId) => {
      const row = rows.get(sagaId);
      if (row !== undefined) row.dropletId = dropletId;
    },
    onUnregister: (sagaId) => {
      if (rows.get(sagaId)?.dropletId !== null) rows.delete(sagaId);
    },
    onDestroyed: (dropletId) => {
      for (const row of rows.values()) if (row.dropletId === dropletId) rows.delete(row.sagaId);
    },
    checkDestroy: (owner, actor) => {
      const isByLease = actor.requestedBy === LEASE_ACTOR || cancelled.has(actor.id);
      if (isByLease && nowMs() < (ends.get(owner) ?? 0)) throw new Violation(`a droplet of ${owner} is destroyed by ${actor.id}, ${((ends.get(owner) ?? 0) - nowMs()) / 1_000} s before its lease ends`);
    },
    isWaiting: () =>
      [...rows.values()].some(({ sagaId, dropletId, destroyedBy }) => {
        const destroyer = destroyedBy === null ? undefined : sagaOf(destroyedBy);
        if (destroyer !== undefined) return destroyer.status === 'compensated' && destroyer.cancelRequestedAt !== null;
        return sagaOf(sagaId)?.status !== 'stuck' && !(dropletId !== null && destroyersOf(dropletId).some(({ status }) => status === 'stuck'));
      }),
  };
}
