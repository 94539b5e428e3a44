// The live display of a saga on a terminal: a line for each step, with what it waits for; and, should it come to that,
// a line for each step that is undone.
import { Listr } from 'listr2';
import type { DefaultRenderer, ListrTask, ListrTaskWrapper, SimpleRenderer } from 'listr2';
import type { Saga } from '../saga/saga.ts';
import type { Snapshot } from './follow.ts';
import { describeResult, formatDuration } from './saga-text.ts';

type TaskWrapper = ListrTaskWrapper<unknown, typeof DefaultRenderer, typeof SimpleRenderer>;

/** What became of one step, or of undoing it. */
type StepEnd = Readonly<{ kind: 'completed'; note: string } | { kind: 'failed'; note: string } | { kind: 'not reached' }>;

/**
 * Makes one task of a list out of a saga. The task fails when the saga does not complete.
 *
 * @param maxPolls the limit to show beside the number of polls
 */
export function sagaTask(title: string, steps: readonly string[], snapshots: AsyncIterable<Snapshot>, maxPolls: number): ListrTask {
  return {
    title,
    task: async (_context, task) => {
      const display = createDisplay(steps, maxPolls);
      const watching = display.watch(snapshots);
      const list = task.newListr(display.forwardTasks, { concurrent: false, exitOnError: false });
      await list.run().catch(() => undefined);
      if (display.isRollingBack()) {
        task.title = `${title}: rolling back`;
        await task.newListr(display.rollbackTasks(), { concurrent: false, exitOnError: false }).run().catch(() => undefined);
      }
      const saga = await watching;
      task.title = `${title}: ${describeResult(saga)}`;
      if (saga.status !== 'completed') throw new Error(describeResult(saga));
    },
  };
}

/** Shows one saga until it is at rest; resolves with it as it is then. */
export async function showLive(title: string, steps: readonly string[], snapshots: AsyncIterable<Snapshot>, maxPolls: number): Promise<Saga> {
  const display = createDisplay(steps, maxPolls);
  const watching = display.watch(snapshots);
  process.stdout.write(`${title}\n`);
  await new Listr(display.forwardTasks, { concurrent: false, exitOnError: false }).run();
  if (display.isRollingBack()) {
    process.stdout.write('rolling back\n');
    await new Listr(display.rollbackTasks(), { concurrent: false, exitOnError: false }).run();
  }
  return watching;
}

function createDisplay(steps: readonly string[], maxPolls: number) {
  const forward = steps.map(() => Promise.withResolvers<StepEnd>());
  const backward = steps.map(() => Promise.withResolvers<StepEnd>());
  let latest: Snapshot | null = null;

  const watch = async (snapshots: AsyncIterable<Snapshot>): Promise<Saga> => {
    try {
      for await (const snapshot of snapshots) {
        latest = snapshot;
        forward.forEach((end, index) => settle(end, forwardEnd(snapshot, steps, index)));
        backward.forEach((end, index) => settle(end, backwardEnd(snapshot, steps, index)));
      }
    } catch (error) {
      for (const end of [...forward, ...backward]) end.reject(error instanceof Error ? error : new Error(String(error)));
      throw error;
    }
    if (latest === null) throw new Error('nothing to follow');
    return latest.saga;
  };

  const toTask = (verb: string, step: string, end: Promise<StepEnd>): ListrTask => ({
    title: `${verb}${step}`,
    task: async (_context, task) => showUntil(end, task, `${verb}${step}`, () => (latest === null ? '' : whatGoesOn(latest, step, maxPolls))),
  });

  return {
    watch,
    forwardTasks: steps.map((step, index) => toTask('', step, promiseOf(forward, index))),
    rollbackTasks: () => steps.map((step, index) => toTask('undo ', step, promiseOf(backward, index))).toReversed(),
    isRollingBack: () => latest !== null && ['compensating', 'compensated', 'stuck'].includes(latest.saga.status),
  };
}

const REFRESH_MS = 200;

async function showUntil(end: Promise<StepEnd>, task: TaskWrapper, title: string, output: () => string): Promise<void> {
  const startedAt = performance.now();
  const timer = setInterval(() => {
    task.title = `${title}  ${formatDuration(performance.now() - startedAt)}  ${output()}`;
  }, REFRESH_MS);
  try {
    const result = await end;
    clearInterval(timer);
    const took = formatDuration(performance.now() - startedAt);
    task.title = `${title}  ${took}`;
    if (result.kind === 'not reached') task.skip(`${title}: not reached`);
    else if (result.kind === 'failed') throw new Error(result.note);
    else task.title = `${title}  ${took}  ${result.note}`;
  } finally {
    clearInterval(timer);
  }
}

function whatGoesOn(snapshot: Snapshot, step: string, maxPolls: number): string {
  const { saga, polls } = snapshot;
  const dropletId = saga.context['droplet_id'];
  const parts = [
    typeof dropletId === 'number' ? `droplet ${dropletId}` : null,
    step === 'wait_droplet_active' && polls !== null ? `poll ${polls} of ${maxPolls}` : null,
    saga.attempt > 0 ? `attempt ${saga.attempt + 1}` : null,
  ];
  return parts.filter((part) => part !== null).join(' · ');
}

function forwardEnd(snapshot: Snapshot, steps: readonly string[], index: number): StepEnd | null {
  const { saga, events } = snapshot;
  const completed = events.find((event) => event.kind === 'step_completed' && event.step === steps[index]);
  if (completed !== undefined) return { kind: 'completed', note: noteOf(completed.detail) };
  if (saga.status === 'pending' || saga.status === 'running') return null;
  return saga.error?.step === steps[index] ? { kind: 'failed', note: saga.error?.message ?? '' } : { kind: 'not reached' };
}

function backwardEnd(snapshot: Snapshot, steps: readonly string[], index: number): StepEnd | null {
  const { saga, events } = snapshot;
  const undone = events.find((event) => event.kind === 'compensation_completed' && event.step === steps[index]);
  if (undone !== undefined) return { kind: 'completed', note: noteOf(undone.detail) };
  if (saga.status === 'stuck' && index === saga.cursor) return { kind: 'failed', note: describeResult(saga) };
  const failedAt = saga.error === null ? steps.length : steps.indexOf(saga.error.step);
  if (index > failedAt || saga.status === 'stuck' || saga.status === 'compensated') return { kind: 'not reached' };
  return null;
}

function noteOf(detail: StoredDetail): string {
  const address = typeof detail['public_ipv4'] === 'string' ? ` · ${detail['public_ipv4']}` : '';
  return `${typeof detail['note'] === 'string' ? detail['note'] : ''}${address}`;
}

type StoredDetail = Snapshot['events'][number]['detail'];

function settle(end: PromiseWithResolvers<StepEnd>, result: StepEnd | null): void {
  if (result !== null) end.resolve(result);
}

function promiseOf(ends: readonly PromiseWithResolvers<StepEnd>[], index: number): Promise<StepEnd> {
  const end = ends[index];
  if (end === undefined) throw new RangeError(`no step ${index}`);
  // Whoever shows the step sees the rejection; nobody may be there to.
  end.promise.catch(() => undefined);
  return end.promise;
}
