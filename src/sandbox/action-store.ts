// Stores droplet actions. No timers: an action that is due takes effect at the next request.
import type { DropletRecord } from './droplet-state.ts';

/** An action on a droplet. Times are Unix milliseconds. */
export type ActionRecord = {
  readonly id: number;
  readonly type: string;
  readonly droplet: DropletRecord;
  readonly startedAtMs: number;
  readonly endsAtMs: number;
  /** The change that the action makes when it ends. */
  readonly takeEffect: (atMs: number) => void;
};

/** The account's actions except creates, which are derived from the droplets. */
export type ActionStore = { readonly byId: Map<number, ActionRecord>; readonly pending: Set<ActionRecord> };

/** Creates an account without actions. */
export function createActionStore(): ActionStore {
  return { byId: new Map(), pending: new Set() };
}

/** Forgets all actions. */
export function clearActions(store: ActionStore): void {
  store.byId.clear();
  store.pending.clear();
}

/** Starts an action. Its droplet is locked until it ends. */
export function startAction(store: ActionStore, action: ActionRecord): void {
  store.byId.set(action.id, action);
  store.pending.add(action);
  action.droplet.isLocked = true;
}

/** Applies the actions that are due, in the order of their ends. */
export function endDueActions(store: ActionStore, nowMs: number): void {
  if (store.pending.size === 0) return;
  const due = [...store.pending].filter(({ endsAtMs }) => endsAtMs <= nowMs).toSorted((one, other) => one.endsAtMs - other.endsAtMs);
  for (const action of due) {
    store.pending.delete(action);
    action.droplet.isLocked = false;
    action.takeEffect(action.endsAtMs);
  }
}
