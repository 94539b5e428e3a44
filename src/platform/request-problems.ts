// Describes the problems of a request, one per field. Both the number of fields and the length of each name are bounded.
// The caller chooses the names: there may be a hundred thousand, each as long as the request.
import type { z } from 'zod';
import { shorten } from './text.ts';

export type FieldProblem = Readonly<{ field: string; message: string }>;

const MAX_PROBLEMS = 10;
const MAX_NAME_LENGTH = 100;
const MAX_MESSAGE_LENGTH = 500;

type Issue = Pick<z.core.$ZodIssue, 'path' | 'message'> & { code?: string | undefined; keys?: readonly string[] | undefined };

/**
 * Lists the fields that a schema refused, at most ten, each with its first problem. Unknown fields are included.
 *
 * @param whole name of the value itself
 */
export function problemsOf(issues: readonly Issue[], whole = 'input'): FieldProblem[] {
  const found: FieldProblem[] = [];
  const listed: (readonly PropertyKey[])[] = [];
  let count = 0;
  let before: readonly PropertyKey[] | null = null;
  for (const { path, message, code, keys } of issues) {
    const isRepeated = code !== 'unrecognized_keys' && [before, ...listed].some((other) => other !== null && isSamePath(other, path));
    before = code === 'unrecognized_keys' ? null : path;
    if (isRepeated) continue;
    const unknown = code === 'unrecognized_keys' ? (keys ?? []) : [];
    count += Math.max(1, unknown.length);
    const left = MAX_PROBLEMS - found.length;
    if (left === 0) continue;
    if (unknown.length === 0) {
      found.push({ field: nameOf(path) || whole, message });
      listed.push(path);
    } else found.push(...unknown.slice(0, left).map((key) => ({ field: nameOf([...path, key]), message: 'unknown field' })));
  }
  return bounded(found, count, whole);
}

function isSamePath(one: readonly PropertyKey[], other: readonly PropertyKey[]): boolean {
  return one.length === other.length && one.every((part, at) => part === other[at]);
}

/** Returns the first ten problems, with names and messages shortened to a readable length. */
export function firstProblems(problems: readonly FieldProblem[]): FieldProblem[] {
  return bounded(problems.slice(0, MAX_PROBLEMS), problems.length, 'input');
}

/** Joins the problems into one sentence. */
export function sentenceOf(problems: readonly FieldProblem[]): string {
  return problems.map(({ field, message }) => `${field}: ${message}`).join('; ');
}

function bounded(found: readonly FieldProblem[], count: number, whole: string): FieldProblem[] {
  const shown = found.map(({ field, message }) => ({ field: shorten(field, MAX_NAME_LENGTH), message: shorten(message, MAX_MESSAGE_LENGTH) }));
  return count > shown.length ? [...shown, { field: whole, message: `and ${count - shown.length} more problems` }] : shown;
}

/** The parts of a path may be field names from the caller, so they are shortened too. */
function nameOf(path: readonly PropertyKey[]): string {
  return path.slice(0, MAX_NAME_LENGTH).map((part) => shorten(String(part), MAX_NAME_LENGTH)).join('.');
}
