// What people and programs may see of a saga: everything but its user data, which often holds secrets.
// A saga's own is sealed before it is written; this is for what others put there, into Postgres or into a queue.
import type { Saga } from './saga.ts';
import { isSealedMark } from './user-data.ts';

/** Stands where something was cut out. */
const REDACTED = '[redacted]';

const userDataKey = /^user[_-]?data$/i;

// Deeper than any input that is accepted, with what is around it. What is shown is written as JSON, by recursion: one row
// that is nested without bounds must not be in the way of the page that lists it.
const MAX_DEPTH = 48;
const LEFT_OUT = '[left out: nested too deep]';

/** A saga as one JSON document. */
export function redactSaga(saga: Saga): Saga {
  return { ...saga, input: redactUserData(saga.input) };
}

/** The same object, with every `user_data` in it, however it is spelled, cut out, and with what is nested deeper than 48 levels. */
export function redactUserData<T>(value: T): T {
  // The shape stays: only strings are exchanged for a string.
  return redact(value, 1) as T; // oxlint-disable-line typescript/no-unsafe-type-assertion
}

function redact(value: unknown, depth: number): unknown {
  if (typeof value !== 'object' || value === null || value instanceof Date) return value;
  if (depth > MAX_DEPTH) return LEFT_OUT;
  if (Array.isArray(value)) return value.map((entry) => redact(entry, depth + 1));
  const shown: Record<string, unknown> = {};
  for (const [key, entry] of Object.entries(value)) shown[key] = userDataKey.test(key) && entry !== undefined && !isSealedMark(entry) ? REDACTED : redact(entry, depth + 1);
  return shown;
}

/** Whether a request would write back what was shown in the place of a secret. */
export function holdsRedacted(value: unknown): boolean {
  return value !== undefined && JSON.stringify(value).includes(REDACTED);
}

