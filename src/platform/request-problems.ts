// What is wrong with a request, a field at a time, in words: no more fields, and of none more of its name, than a person
// reads. The names are the caller's: there may be a hundred thousand, and each may be as long as the request.
import type { z } from 'zod';
import { shorten } from './text.ts';

export type FieldProblem = Readonly<{ field: string; message: string }>;

const MAX_PROBLEMS = 10;
const MAX_NAME_LENGTH = 100;
const MAX_MESSAGE_LENGTH = 500;

type Issue = Pick<z.core.$ZodIssue, 'path' | 'message'> & { code?: string | undefined; keys?: readonly string[] | undefined };

/**
 * Names the fields that a schema refused, ten at most. An unknown field is named like any other.
 *
 * @param whole what the value itself is called
 */
export function problemsOf(issues: readonly Issue[], whole = 'input'): FieldProblem[] {
  const found: FieldProblem[] = [];
  let count = 0;
  for (const { path, message, code, keys } of issues) {
    const unknown = code === 'unrecognized_keys' ? (keys ?? []) : [];
    count += Math.max(1, unknown.length);
    const left = MAX_PROBLEMS - found.length;
    if (left === 0) continue;
    if (unknown.length === 0) found.push({ field: nameOf(path) || whole, message });
    else found.push(...unknown.slice(0, left).map((key) => ({ field: nameOf([...path, key]), message: 'this field is not known' })));
  }
  return bounded(found, count, whole);
}

/** The first ten problems, with their names and messages cut to what a person reads. */
export function firstProblems(problems: readonly FieldProblem[]): FieldProblem[] {
  return bounded(problems.slice(0, MAX_PROBLEMS), problems.length, 'input');
}

/** The problems in one sentence. */
export function sentenceOf(problems: readonly FieldProblem[]): string {
  return problems.map(({ field, message }) => `${field}: ${message}`).join('; ');
}

function bounded(found: readonly FieldProblem[], count: number, whole: string): FieldProblem[] {
  const shown = found.map(({ field, message }) => ({ field: shorten(field, MAX_NAME_LENGTH), message: shorten(message, MAX_MESSAGE_LENGTH) }));
  return count > shown.length ? [...shown, { field: whole, message: `and ${count - shown.length} more problems` }] : shown;
}

/** Parts of a path are names of fields too. */
function nameOf(path: readonly PropertyKey[]): string {
  return path.slice(0, MAX_NAME_LENGTH).map((part) => shorten(String(part), MAX_NAME_LENGTH)).join('.');
}
