// One condition of the fleet: its form, and the words that conditions share.
import type { QueuePlace } from '../queues/queue-store.ts';
import type { ConditionName, Severity } from './severities.ts';
import { severities } from './severities.ts';

/** A condition that keeps the fleet from its work. */
export type Condition = Readonly<{
  name: ConditionName;
  severity: Severity;
  /** One sentence, such as "No worker is running". */
  title: string;
  /** More detail; empty if there is none. */
  detail: string;
  /** The remedy for a person. */
  action: string;
  /** Null: unknown. */
  since: Date | null;
  /** When it resolves or is checked again; null: unknown. */
  until: Date | null;
  /** Number of sagas, queues or seconds, depending on its name; null if the condition has no number. */
  count: number | null;
}>;

/** The state of the queues. `stalled`: descriptions of jobs that are stuck at the head of a queue. `isFull`: the store has no room for jobs. `evictionPolicy`: by which it may throw them away; null: it does not. */
export type QueueFacts = Readonly<{ paused: readonly string[]; stalled: readonly string[]; isFull?: boolean; evictionPolicy?: string | null }>;

/** The configuration that conditions depend on. */
export type Limits = Readonly<{
  /** A saga that is overdue for longer shows that no reconciler is working. */
  reconcileIntervalMs: number;
  /** Null: the app has no inventory. */
  inventorySyncIntervalMs: number | null;
  /** Where this process has its queues. Undefined: not compared with the workers' ones. */
  queuePlace?: QueuePlace | undefined;
}>;

/** Builds a condition. Its severity follows from its name. */
export function condition(given: Pick<Condition, 'name' | 'title' | 'detail' | 'action'> & Partial<Omit<Condition, 'severity'>>): Condition {
  return { severity: severities[given.name], since: null, until: null, count: null, ...given };
}

/** Formats seconds in at most two whole units. */
export function inWords(exact: number): string {
  const seconds = Math.max(0, Math.round(exact));
  if (seconds < 60) return `${seconds} s`;
  if (seconds < 3_600) return `${Math.floor(seconds / 60)} min ${seconds % 60} s`;
  if (seconds < 86_400) return `${Math.floor(seconds / 3_600)} h ${Math.floor((seconds % 3_600) / 60)} min`;
  return `${Math.floor(seconds / 86_400)} d ${Math.floor((seconds % 86_400) / 3_600)} h`;
}

/** The text as a sentence. */
export function withStop(text: string): string {
  return text === '' || text.endsWith('.') ? text : `${text}.`;
}
