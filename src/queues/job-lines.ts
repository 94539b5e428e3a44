// The lines of a step job's log: those that BullMQ keeps, and those that are made of its saga's events. Pure.
import { describeEvent } from '../saga/describe-event.ts';
import type { SagaEventKind } from '../saga/saga.ts';
import type { StoredEvent } from '../saga/store.ts';
import { shorten } from '../platform/text.ts';

// No line grows without bounds.
const MAX_TEXT_LENGTH = 500;

// A run may write these, and goes on.
const writtenOnTheWay: readonly SagaEventKind[] = ['saga_started', 'step_recorded', 'compensation_recorded'];

/** A line of a job's log: when, and what. */
export function jobLine(at: Date, text: string): string {
  return `${at.toISOString()} ${shorten(text, MAX_TEXT_LENGTH)}`;
}

/**
 * What came of a step's job, as lines: the events after its revision, up to the one that ended the run. By revisions
 * alone, as no event says which job wrote it. So a job that came late shows what was written by whoever was at its
 * revision, and one that had something to write before it waited shows also what the job wrote that carried its run on.
 *
 * @param events of the job's saga, oldest first
 */
export function linesOfEvents(events: readonly StoredEvent[], revision: number): string[] {
  const later = events.filter(({ seq }) => seq > revision);
  const end = later.findIndex(({ kind }) => !writtenOnTheWay.includes(kind));
  const own = end === -1 ? later : later.slice(0, end + 1);
  return own.map((event) => jobLine(event.at, describeEvent(event)));
}

/**
 * Puts two logs together by the time that each line begins with. The order within each stays, whatever their clocks
 * say; a line without a time, which somebody added by hand, stays behind the one before it.
 */
export function mergeLines(kept: readonly string[], made: readonly string[]): string[] {
  const merged: string[] = [];
  const left = [...made];
  for (const line of kept) {
    const notBefore = left.findIndex((other) => stampOf(other) >= stampOf(line));
    merged.push(...left.splice(0, notBefore === -1 ? left.length : notBefore), line);
  }
  return [...merged, ...left];
}

function stampOf(line: string): string {
  return /^\d{4}-\d\d-\d\dT[\d:.]{5,15}Z(?= )/.exec(line)?.[0] ?? '';
}
