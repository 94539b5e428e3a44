// Looks for a violation in many schedules; what it finds is made as simple as it can be and told line by line.
import { simulate } from './simulate.ts';
import { recordedTape, randomTape, seedOf, shrink } from './tape.ts';
import type { Mechanism } from './violation.ts';
import { Violation } from './violation.ts';
import type { Scenario } from './world.ts';

/** What was found in all the schedules that were run. */
export type Exploration = Readonly<{
  schedules: number;
  steps: number;
  counts: ReadonlyMap<string, number>;
  ends: ReadonlyMap<string, number>;
  found: Finding | null;
}>;

/** A schedule that must not be possible. */
export type Finding = Readonly<{
  seed: number;
  /** Its number, under that seed. */
  schedule: number;
  /** What was found first, and what is left of it in the shrunk schedule. */
  violation: string;
  shrunkViolation: string;
  decisions: readonly number[];
  trace: readonly string[];
}>;

/** What is played, and a mechanism to be left out. */
type Options = { scenario?: Scenario; without?: Mechanism };

/**
 * Runs schedules until one violates something, or all have been run.
 *
 * @param options.first number of the first schedule, to run a part of a large number
 */
export async function explore(options: { seed: number; schedules: number; first?: number } & Options): Promise<Exploration> {
  const { seed, schedules, first = 0, ...how } = options;
  const counts = new Map<string, number>();
  const ends = new Map<string, number>();
  let steps = 0;
  for (let schedule = first; schedule < first + schedules; schedule += 1) {
    const tape = randomTape(seedOf(seed, schedule));
    try {
      const result = await simulate(tape, how);
      steps += result.steps;
      for (const [what, times] of result.counts) add(counts, what, times);
      for (const end of result.ends) add(ends, end, 1);
    } catch (error) {
      if (!(error instanceof Violation)) throw error;
      const found = await simplify(tape.drawn, how);
      return { schedules: schedule - first + 1, steps, counts, ends, found: { seed, schedule, violation: error.message, ...found } };
    }
    // Lets timers and signals of this process through.
    if (schedule % 200 === 199) await new Promise<void>((resolve) => setImmediate(resolve));
  }
  return { schedules, steps, counts, ends, found: null };
}

/** The finding, for people to read. */
export function describeFinding(found: Finding): string {
  return [
    `schedule ${found.schedule} of seed ${found.seed}: ${found.violation}`,
    `shrunk to ${found.decisions.filter((decision) => decision !== 0).length} decisions: ${JSON.stringify(found.decisions)}`,
    ...found.trace,
    found.shrunkViolation,
  ].join('\n');
}

async function simplify(drawn: readonly number[], how: Options): Promise<Omit<Finding, 'seed' | 'schedule' | 'violation'>> {
  const decisions = await shrink(drawn, async (candidate) => (await violationOf(candidate, how)) !== null);
  const trace: string[] = [];
  const shrunkViolation = (await violationOf(decisions, { ...how, trace: (line) => trace.push(line) })) ?? 'it does not fail again';
  return { decisions, trace, shrunkViolation };
}

async function violationOf(decisions: readonly number[], options: Options & { trace?: (line: string) => void }): Promise<string | null> {
  try {
    await simulate(recordedTape(decisions), options);
    return null;
  } catch (error) {
    if (!(error instanceof Violation)) throw error;
    return error.message;
  }
}

function add(counts: Map<string, number>, what: string, times: number): void {
  counts.set(what, (counts.get(what) ?? 0) + times);
}
