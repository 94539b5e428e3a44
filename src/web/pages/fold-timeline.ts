// Folds a timeline: attempts that failed alike become one entry, equal notes become one note, and the middle of a long timeline is
// hidden. Pure.
import type { Entry } from './timeline.ts';

/** A note, and how often it was written in a row. */
export type FoldedNote = Readonly<{ at: Date; until: Date; count: number; text: string }>;

// Two failures are read faster than a summary of them.
const FEWEST_FOLDED = 3;

// About as many as fit on a screen. The first entries show the request, the newest show the current state.
const MOST_SHOWN = 24;
const FIRST_SHOWN = 3;

/**
 * Replaces three or more attempts in a row that failed alike, and the back-offs between them, with one entry. Its `alike`
 * lists the attempts. Errors are alike if they differ in numbers and request ids only: a wait in seconds, a droplet's id.
 */
export function foldAttempts(entries: readonly Entry[]): Entry[] {
  const folded: Entry[] = [];
  let run: Entry[] = [];
  const endRun = (): void => {
    folded.push(...foldRun(run));
    run = [];
  };
  for (const entry of entries) {
    if (!isAlike(run, entry)) endRun();
    if (isFailed(entry) || run.length > 0) run.push(entry);
    else folded.push(entry);
  }
  endRun();
  return folded;
}

/** Splits a long timeline into its first entries, those between, and the newest; a short one is all `newest`. */
export function partTimeline(entries: readonly Entry[]): Readonly<{ first: readonly Entry[]; between: readonly Entry[]; newest: readonly Entry[] }> {
  if (entries.length <= MOST_SHOWN) return { first: [], between: [], newest: entries };
  const newestFrom = entries.length - (MOST_SHOWN - FIRST_SHOWN - 1);
  return { first: entries.slice(0, FIRST_SHOWN), between: entries.slice(FIRST_SHOWN, newestFrom), newest: entries.slice(newestFrom) };
}

/** Joins notes in a row that say the same. */
export function foldNotes(notes: Entry['notes']): FoldedNote[] {
  const folded: FoldedNote[] = [];
  for (const { at, text } of notes) {
    const last = folded.at(-1);
    if (last?.text === text) folded[folded.length - 1] = { ...last, until: at, count: last.count + 1 };
    else folded.push({ at, until: at, count: 1, text });
  }
  return folded;
}

function isFailed({ tone, attempt }: Entry): boolean {
  return tone === 'bad' && attempt !== null;
}

/** Whether the entry continues the run: another failure like it, or a back-off after one. */
function isAlike(run: readonly Entry[], entry: Entry): boolean {
  const first = run[0];
  if (first === undefined) return true;
  if (!isFailed(entry)) return entry.isBackOff;
  return entry.attempt?.of === first.attempt?.of && likeness(entry) === likeness(first);
}

function likeness({ text }: Entry): string {
  return (text ?? '').replaceAll(/\d+/g, '#');
}

function foldRun(run: readonly Entry[]): readonly Entry[] {
  const attempts = run.filter(isFailed);
  const [first] = attempts;
  const last = attempts.at(-1);
  if (first?.attempt == null || last?.attempt == null || attempts.length < FEWEST_FOLDED) return run;
  // The back-off after the last of them may still go on.
  const after = run.at(-1);
  const one: Entry = {
    ...last,
    title: `${first.attempt.of} · attempts ${first.attempt.nth}–${last.attempt.nth} failed alike`,
    from: first.from,
    worker: attempts.every(({ worker }) => worker === last.worker) ? last.worker : null,
    job: null,
    alike: attempts,
  };
  return after === undefined || after === last ? [one] : [one, after];
}
