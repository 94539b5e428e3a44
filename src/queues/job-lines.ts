// The lines of a step job's log: BullMQ's lines and those made from the saga's events. Pure.
import { describeEvent } from '../saga/describe-event.ts';
import type { SagaEventKind } from '../saga/saga.ts';
import type { StoredEvent } from '../saga/events.ts';
import { shorten } from '../platform/text.ts';

// Bounds the length of a line.
const MAX_TEXT_LENGTH = 500;

// A run may write these events and continue.
const writtenOnTheWay: readonly SagaEventKind[] = ['saga_started', 'step_recorded', 'compensation_recorded'];

/** Formats a line of a job's log: time and text. */
export function jobLine(at: Date, text: string): string {
  return `${at.toISOString()} ${shorten(text, MAX_TEXT_LENGTH)}`;
}

/**
 * Turns the outcome of a step's job into lines: the events after its revision, up to the one that ended the run. It goes
 * by revisions alone, because events do not record the job that wrote them. A late job therefore shows the events of the
 * job that actually ran at its revision. A job that wrote something before it waited also shows the events of the job
 * that continued its run.
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
 * Merges two logs by the time at the start of each line. Keeps the order within each log, even if clocks disagree. A line
 * without a time (added by hand) stays behind the line before it.
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
