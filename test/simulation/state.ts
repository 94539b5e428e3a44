// What changes in the course of one schedule, as plain data that is passed along; and how anything draws from its tape,
// counts, and tells of itself.
import { RECONCILE_MS } from './settings.ts';
import type { SimulatedJob } from './simulated-queues.ts';
import type { Tape } from './tape.ts';
import type { Mechanism, Violation } from './violation.ts';

const START_MS = Date.UTC(2030, 0, 1);

export type Process = { name: string; state: 'up' | 'down' | 'frozen'; wakeAt: number; skewMs: number; isReconciling: boolean; isExpiring: boolean };
/** A piece of work of a process: a job, a request, a round of the reconciler. `blocked`: how many of its I/Os wait. */
export type Run = { process: Process; label: string; sagaId: string | null; blocked: number; isDone: boolean; isParallel: boolean; token: string | null };
export type Reply = { ok: boolean; value: unknown; resume: () => void };
export type Way = 'done' | 'not done' | 'done, reply lost' | 'done late, reply lost' | 'unanswered' | 'throttled' | 'unauthorized' | 'rejected';
export type Operation = {
  run: Run;
  kind: 'sql' | 'http' | 'queue';
  name: string;
  tell: () => string;
  /** Has its effect, and says what the process would learn. */
  happen: () => Reply;
  /** What the process learns instead. */
  fail: (error: unknown) => Reply;
  deadline: number;
  /** What the process will learn, once it can listen. */
  reply: Reply | null;
};
/** A fault that lies in wait for an operation. */
export type Ambush = { what: string; fault: (operation: Operation) => boolean | Promise<boolean> };
/** A saga that is started with the schedule, and whether its droplet is to be destroyed once it has one. */
type Plan = { id: string; thenDestroys: 'no' | 'at its end' | 'under way' };

/** The state of one schedule. */
export type State = {
  readonly tape: Tape;
  /** The mechanism that is left out. */
  readonly without: Mechanism | null;
  readonly trace: ((line: string) => void) | null;
  readonly isBeyondLimits: boolean;
  /** How often each thing happened. */
  readonly counts: Map<string, number>;
  readonly plans: Plan[];
  now: number;
  steps: number;
  /** No more faults: everything takes its ordinary course. */
  isCalm: boolean;
  /** The first that was found: kept, as the code it is thrown into may take it for an error of its I/O and go on. */
  violation: Violation | null;
  nextReconcileAt: number;
  /** When somebody looks for leases that ended; infinite where no droplet has one. */
  nextLeasePassAt: number;
  deliveries: number;
  /** Somebody is to adopt a droplet that is being provisioned here. */
  adoptsOwn: boolean;
  unauthorizedUntil: number;
  downUntil: number;
  /** The run whose code is running, or whose effect is happening. */
  current: Run | null;
  runs: Run[];
  /** Every I/O that waits to happen, or to be replied to, in the order in which they were asked for. */
  operations: Operation[];
  lateEffects: { at: number; operation: Operation }[];
  snapshot: SimulatedJob[] | null;
  ambush: Ambush | null;
};

export function createState(tape: Tape, without: Mechanism | null, trace: ((line: string) => void) | null): State {
  return {
    tape,
    without,
    trace,
    isBeyondLimits: tape.pick(5) === 4,
    counts: new Map(),
    plans: [],
    now: START_MS,
    steps: 0,
    isCalm: false,
    violation: null,
    nextReconcileAt: START_MS + RECONCILE_MS,
    nextLeasePassAt: Number.POSITIVE_INFINITY,
    deliveries: 0,
    adoptsOwn: false,
    unauthorizedUntil: 0,
    downUntil: 0,
    current: null,
    runs: [],
    operations: [],
    lateEffects: [],
    snapshot: null,
    ambush: null,
  };
}

export function pick(state: State, count: number): number {
  return state.isCalm ? 0 : state.tape.pick(count);
}

export function oneOf<T>(state: State, choices: readonly [T, ...T[]]): T {
  return choices[pick(state, choices.length)] ?? choices[0];
}

export function count(state: State, what: string): void {
  state.counts.set(what, (state.counts.get(what) ?? 0) + 1);
}

export function tell({ trace, now }: State, line: () => string): void {
  trace?.(`${((now - START_MS) / 1_000).toFixed(3).padStart(9)} s  ${line()}`);
}

/** The clock of the process whose code is running. */
export function wallClockMs({ now, current }: State): number {
  return now + (current?.process.skewMs ?? 0);
}
