// Runs, and how they get from one I/O to the next.
import type { Process, Run, State } from './state.ts';
import { Violation } from './violation.ts';

// Far more than a run takes to get from one I/O to the next.
const MAX_TICKS = 500;

// One turn of what is ready to go on.
const turn = Promise.resolve();

export function newRun(process: Process, label: string, sagaId: string | null, more: Partial<Run> = {}): Run {
  return { process, label, sagaId, blocked: 0, isDone: false, isParallel: false, token: null, ...more };
}

export async function start(state: State, run: Run, body: () => Promise<unknown>): Promise<void> {
  state.runs.push(run);
  state.current = run;
  const noteEnd = (error?: unknown) => {
    run.isDone = true;
    if (error instanceof Violation) state.violation ??= error;
  };
  body().then(() => noteEnd(), noteEnd);
  await drain(state, run);
}

/** Lets a run go on until it can do nothing more without a reply. */
export async function drain(state: State, run: Run): Promise<void> {
  // A run with several I/Os under way is let go on for a while: nothing says when it has nothing more to do.
  for (let tick = 0; run.isParallel ? tick < 60 : !run.isDone && run.blocked === 0; tick += 1) {
    if (tick > MAX_TICKS) throw new Violation(`${run.label} does neither I/O nor end`);
    await turn;
  }
  if (run.isDone) state.runs = state.runs.filter((other) => other !== run);
  state.current = null;
  if (state.violation !== null) throw state.violation;
}
