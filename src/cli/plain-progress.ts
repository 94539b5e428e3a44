// Prints a saga's progress as plain lines, for logs and pipes.
import { describeEvent } from '../saga/describe-event.ts';
import type { Saga } from '../saga/saga.ts';
import { currentStep } from '../saga/saga.ts';
import { formatDuration } from '../platform/duration.ts';
import { printable } from '../platform/text.ts';
import type { Snapshot } from './follow.ts';
import type { Surface } from '../saga/words.ts';

// A plain log shows only every nth poll.
const POLLS_A_LINE = 6;

/** Creates a function that writes one line per new event, and an occasional one while the saga waits. */
export function printLines(maxPolls: number, writeLine: (line: string) => void, surface: Surface): (snapshot: Snapshot) => void {
  let shown = 0;
  let lastPolls = 0;
  let waitsFor: string | null = null;
  return ({ events, polls, saga }) => {
    for (const event of events.slice(shown)) writeLine(`${event.at.toISOString()} ${describeEvent(printable(event))}`);
    shown = events.length;
    if (saga.waitsFor !== waitsFor && saga.waitsFor !== null) writeLine(`${new Date(Date.now()).toISOString()} waiting for saga ${saga.waitsFor}, which is using the same resource`);
    ({ waitsFor } = saga);
    if (polls === null || polls === lastPolls || (polls !== 1 && polls % POLLS_A_LINE !== 0)) return;
    lastPolls = polls;
    const notYet = surface.step(currentStep(saga))?.notYet?.(saga) ?? 'not yet';
    writeLine(`${new Date(Date.now()).toISOString()} ${printable(notYet)}: ${describePolls(polls, maxPolls, saga, surface)}`);
  };
}

/** Describes the progress of a wait: polls or time out of the limit. */
export function describePolls(polls: number, maxPolls: number, saga: Saga, surface: Surface): string {
  const limitMs = surface.step(currentStep(saga))?.limitMs?.(saga) ?? null;
  return limitMs === null ? `poll ${polls} of ${maxPolls}` : `poll ${polls}, for at most ${formatDuration(limitMs)}`;
}

/** Shows every snapshot, and resolves with the saga at rest. */
export async function drain(snapshots: AsyncIterable<Snapshot>, show: (snapshot: Snapshot) => void): Promise<Saga> {
  let latest: Snapshot | undefined;
  for await (const snapshot of snapshots) {
    show(snapshot);
    latest = snapshot;
  }
  if (latest === undefined) throw new Error('nothing to follow');
  return latest.saga;
}
