// A course of requests that wait for the budget and ask again when they are told to, on any store.
import type { BudgetAnswer, Turn } from '../../src/do/budget-store.ts';
import type { TimedStore } from './budget-stores.ts';

/** One that waits: from when on. `goneAt`: from then on it asks no more. Without a turn it goes before all that have one. */
export type Waiter = Readonly<{ name: string; turn: Turn | null; at: number; goneAt?: number }>;
type InTurn = Waiter & Readonly<{ turn: Turn }>;
export type Granted = Readonly<{ name: string; at: number; waitedMs: number; asks: number }>;

export const limits = { perMinute: 60, perHour: 5_000, keepMinute: 2, keepHour: 100, readsMinute: 3, readsHour: 300, isRead: false };
/** What creates have of the minute. A tenth of them goes out over the minute: one in ten seconds. */
export const CREATES = 55;
const LATE_MS = 30;
const nothingKept = { keepMinute: 0, keepHour: 0, readsMinute: 0, readsHour: 0 };

const requesters = { many: 'a'.repeat(16), one: 'b'.repeat(16), other: 'c'.repeat(16) };

export type Requester = keyof typeof requesters;

export function some(count: number, name: Requester, { at = 0, everyMs = 0, weight = 1, priority = 1, from = 0 } = {}): InTurn[] {
  return Array.from({ length: count }, (_, index) => ({
    name: `${name}-${from + index}`,
    turn: { requester: requesters[name], own: `${priority}:${String(from + index).padStart(15, '0')}:${name}`, weight },
    at: at + index * everyMs,
  }));
}

/** Requests of deletions. */
export function deletions(count: number, { at = 0, everyMs = 0 } = {}): Waiter[] {
  return Array.from({ length: count }, (_, index) => ({ name: `deletion-${index}`, turn: null, at: at + index * everyMs }));
}

/**
 * Each asks when it comes, and again when it is told to, a moment late. Ends when all were granted, or are gone. `behindMs`: how
 * late a request was asked for at most, because the store's clock goes on while it answers those before.
 */
export async function run({ store, now, advanceTo }: TimedStore, waiters: readonly Waiter[], sizes: Partial<typeof limits> = {}, lateMs: (waiter: Waiter) => number = () => LATE_MS) {
  const next = waiters.map((waiter) => ({ waiter, at: waiter.at, asks: 0 }));
  const granted: Granted[] = [];
  const answers: Pick<BudgetAnswer, 'waitMs' | 'againMs'>[] = [];
  // How far the store's clock went on while it answered, beyond the moments of the course.
  let behindMs = 0;
  for (;;) {
    next.sort((one, other) => one.at - other.at);
    const due = next.shift();
    if (due === undefined) break;
    const { waiter } = due;
    if (waiter.goneAt !== undefined && due.at >= waiter.goneAt) continue;
    await advanceTo(due.at);
    behindMs = Math.max(behindMs, now() - due.at);
    const answer = await store.draw({ ...limits, ...sizes, ...(waiter.turn === null ? nothingKept : {}), turn: waiter.turn });
    answers.push(answer);
    const at = now();
    if (answer.waitMs === 0) granted.push({ name: waiter.name, at, waitedMs: at - waiter.at, asks: due.asks + 1 });
    else next.push({ waiter, at: at + answer.againMs + lateMs(waiter), asks: due.asks + 1 });
  }
  return { granted, answers, behindMs };
}

export const of = (granted: readonly Granted[], name: Requester | 'deletion') => granted.filter((one) => one.name.startsWith(`${name}-`));
export const longest = (granted: readonly Granted[]) => Math.max(...granted.map(({ waitedMs }) => waitedMs));
export const last = (granted: readonly Granted[]) => Math.max(...granted.map(({ at }) => at));
export const inOrder = (granted: readonly Granted[]) => granted.map(({ name }) => Number(name.split('-')[1]));

