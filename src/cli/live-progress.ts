// The live display of sagas on a terminal: one saga with a line per step (and per undone step), or several with a line
// each.
import { Listr } from 'listr2';
import type { ListrTask } from 'listr2';
import { formatDuration, formatRunning } from '../platform/duration.ts';
import { textOf } from '../platform/json.ts';
import type { Saga } from '../saga/saga.ts';
import { currentStep, isStuckForward } from '../saga/saga.ts';
import { printable } from '../platform/text.ts';
import type { Snapshot } from './follow.ts';
import { describePolls } from './plain-progress.ts';
import { attemptSince, attemptsTookMs } from '../saga/took.ts';
import type { Surface } from '../saga/words.ts';
import { describeResult } from './saga-text.ts';

/** The result of one step, or of undoing it. */
type StepEnd = Readonly<{ kind: 'completed'; note: string; tookMs: number } | { kind: 'failed'; note: string } | { kind: 'not reached' } | { kind: 'not watched' }>;

const REFRESH_MS = 200;

// Listr's own SIGINT listener would end the process without a message.
const listrOptions = { exitOnError: false, registerSignalListeners: false } as const;

/**
 * Shows one saga until it is at rest, and resolves with it.
 *
 * @param maxPolls the limit to show next to the number of polls
 * @param stop the signal that ends the snapshots and the display
 */
export async function showLive(title: string, steps: readonly string[], snapshots: AsyncIterable<Snapshot>, maxPolls: number, stop: AbortSignal, surface: Surface): Promise<Saga> {
  return showSteps(printable(steps), eachPrintable(snapshots), { title: printable(title), maxPolls, stop, surface });
}

async function showSteps(steps: readonly string[], snapshots: AsyncIterable<Snapshot>, { title, maxPolls, stop, surface }: { title: string; maxPolls: number; stop: AbortSignal; surface: Surface }): Promise<Saga> {
  const watch = watchSteps(steps, snapshots, stop, surface);
  const now = () => describeNow(watch.latest(), maxPolls, surface);
  process.stdout.write(`${title}\n`);
  const forward = steps.map((step) => stepTask(step, watch.forwardEnd(step), now));
  await new Listr(forward, listrOptions).run();
  const undone = watch.stepsToUndo();
  if (undone.length > 0 && !stop.aborted) {
    process.stdout.write('rolling back\n');
    const backward = undone.map((step) => stepTask(`undo ${step}`, watch.backwardEnd(step), now));
    await new Listr(backward, listrOptions).run();
  }
  return watch.atRest;
}

/** Shows several sagas, one line each, until all are at rest or `stop`, which ends the snapshots, is aborted. */
export async function showSideBySide(sagas: readonly Readonly<{ title: string; snapshots: AsyncIterable<Snapshot> }>[], { maxPolls, stop, surface }: Readonly<{ maxPolls: number; stop: AbortSignal; surface: Surface }>): Promise<void> {
  const tasks = sagas.map(({ title: given, snapshots }): ListrTask => {
    const title = printable(given);
    return {
      title,
      task: async (_context, task) => {
        let latest: Snapshot | undefined;
        try {
          for await (const snapshot of eachPrintable(snapshots)) {
            latest = snapshot;
            task.title = `${title}  ${currentStep(snapshot.saga)}  ${describeNow(snapshot, maxPolls, surface)}`;
          }
        } catch (error) {
          if (!stop.aborted) throw error;
          task.skip(`${title}  not finished yet`);
          return;
        }
        if (latest === undefined) return;
        const { saga } = latest;
        task.title = `${title}  ${describeResult(saga, surface)}`;
        if (saga.status !== 'completed') throw new Error(describeResult(saga, surface));
      },
    };
  });
  await new Listr(tasks, { ...listrOptions, concurrent: true, rendererOptions: { collapseErrors: false, showErrorMessage: false } }).run();
}

/** Repeatedly shown text is made printable once. */
async function* eachPrintable(snapshots: AsyncIterable<Snapshot>): AsyncGenerator<Snapshot, void> {
  for await (const snapshot of snapshots) yield printable(snapshot);
}

function stepTask(name: string, end: Promise<StepEnd>, describe: () => string): ListrTask {
  return {
    title: name,
    task: async (_context, task) => {
      const timer = setInterval(() => {
        task.title = `${name}  ${describe()}`;
      }, REFRESH_MS);
      let result: StepEnd;
      try {
        result = await end;
      } finally {
        clearInterval(timer);
      }
      task.title = name;
      if (result.kind === 'not reached') {
        task.skip(`${name}  not reached`);
        return;
      }
      if (result.kind === 'not watched') {
        task.skip(`${name}  not finished yet`);
        return;
      }
      if (result.kind === 'failed') throw new Error(`${name}: ${result.note}`);
      task.title = `${name}  ${formatDuration(result.tookMs)}  ${result.note}`;
    },
  };
}

/** Follows a saga and tracks the end of each step, forward and backward. */
function watchSteps(steps: readonly string[], snapshots: AsyncIterable<Snapshot>, stop: AbortSignal, surface: Surface) {
  const forward = new Map(steps.map((step) => [step, Promise.withResolvers<StepEnd>()]));
  const backward = new Map(steps.map((step) => [step, Promise.withResolvers<StepEnd>()]));
  const ends = [...forward.values(), ...backward.values()];
  // A rejection reaches the display of each step. Without a display, it must not be unhandled.
  for (const end of ends) end.promise.catch(() => undefined);
  let latest: Snapshot | undefined;

  const follow = async (): Promise<Saga> => {
    try {
      for await (const snapshot of snapshots) {
        latest = snapshot;
        for (const [step, end] of forward) settle(end, forwardEnd(snapshot, step));
        for (const [step, end] of backward) settle(end, backwardEnd(snapshot, step, surface));
      }
      if (latest === undefined) throw new Error('nothing to follow');
      return latest.saga;
    } catch (error) {
      for (const end of ends) {
        if (stop.aborted) end.resolve({ kind: 'not watched' });
        else end.reject(error);
      }
      throw error;
    }
  };

  return {
    atRest: follow(),
    latest: () => latest,
    forwardEnd: (step: string) => endOf(forward, step),
    backwardEnd: (step: string) => endOf(backward, step),
    /** Empty unless the saga is being rolled back or was. */
    stepsToUndo: () => (latest === undefined || latest.saga.error === null || isStuckForward(latest.saga) ? [] : steps.slice(0, steps.indexOf(latest.saga.error.step) + 1).toReversed()),
  };
}

function forwardEnd(snapshot: Snapshot, step: string): StepEnd | null {
  const { saga } = snapshot;
  const completed = findEnd(snapshot, 'step_completed', step);
  if (completed !== null) return completed;
  if (saga.status === 'pending' || saga.status === 'running') return null;
  return saga.error?.step === step ? { kind: 'failed', note: saga.error.message } : { kind: 'not reached' };
}

function backwardEnd(snapshot: Snapshot, step: string, surface: Surface): StepEnd | null {
  const { saga } = snapshot;
  const undone = findEnd(snapshot, 'compensation_completed', step);
  if (undone !== null) return undone;
  if (saga.status === 'stuck') return step === currentStep(saga) ? { kind: 'failed', note: describeResult(saga, surface) } : { kind: 'not reached' };
  return saga.status === 'compensated' ? { kind: 'not reached' } : null;
}

/** Finds the event that completed a step, and how long that attempt took. */
function findEnd({ saga, events }: Snapshot, kind: 'step_completed' | 'compensation_completed', step: string): StepEnd | null {
  const end = events.find((event) => event.kind === kind && event.step === step);
  if (end === undefined) return null;
  const attempt = end.attempt ?? 1;
  return { kind: 'completed', note: [...(attempt > 1 ? [`attempt ${attempt}`] : []), noteOf(end.detail)].filter((part) => part !== '').join(' · '), tookMs: attemptsTookMs(saga, events).get(end.seq) ?? 0 };
}

/** Describes a running step: since when its attempt runs, subject, polls, attempt. */
function describeNow(snapshot: Snapshot | undefined, maxPolls: number, surface: Surface): string {
  if (snapshot === undefined) return '';
  const { saga, events, polls } = snapshot;
  const parts: string[] = [];
  if (saga.waitsFor !== null) parts.push(`waits for saga ${saga.waitsFor}`);
  const subject = surface.words(saga).subject?.(saga);
  if (subject !== undefined && subject.id !== null) parts.push(`${subject.kind} ${subject.id}`);
  if (polls !== null) parts.push(describePolls(polls, maxPolls, saga, surface));
  if (saga.attempt > 0) parts.push(`attempt ${saga.attempt + 1}`);
  const since = events.reduce((before, event) => attemptSince(before, event), saga.createdAt);
  return [formatRunning(Date.now() - since.getTime()), ...(parts.length === 0 ? [] : [parts.join(' · ')])].join('  ');
}

function noteOf(detail: Snapshot['events'][number]['detail']): string {
  return [textOf(detail['note']), textOf(detail['public_ipv4'])].filter((part) => part !== '').join(' · ');
}

function settle(end: PromiseWithResolvers<StepEnd>, result: StepEnd | null): void {
  if (result !== null) end.resolve(result);
}

function endOf(ends: ReadonlyMap<string, PromiseWithResolvers<StepEnd>>, step: string): Promise<StepEnd> {
  const end = ends.get(step);
  if (end === undefined) throw new RangeError(`no step ${step}`);
  return end.promise;
}
