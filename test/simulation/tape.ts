// Where the decisions of a schedule come from: dice while searching, a written record while replaying. 0 is always the
// ordinary course of things, so that a record with more zeros is a simpler schedule.

export type Tape = Readonly<{
  /** What happens next: 0 the ordinary; below {@link FIRST_FAULT} another order of the same; from there on a fault. */
  step(): number;
  /** A detail of what was decided: from 0 to `count - 1`. */
  pick(count: number): number;
  /** All decisions so far. */
  drawn: readonly number[];
}>;

export const FIRST_FAULT = 64;

const FAULTS = 4_096;

/** Dice. How wild the schedule is, is drawn as well: some have a single fault in them, some little else. */
export function randomTape(seed: number): Tape {
  const random = mulberry32(seed);
  const faultRate = [0.01, 0.03, 0.08, 0.2][Math.floor(random() * 4)] ?? 0;
  const reorderRate = [0, 0.1, 0.4, 0.8][Math.floor(random() * 4)] ?? 0;
  const drawn: number[] = [];
  const write = (value: number) => {
    drawn.push(value);
    return value;
  };
  return {
    drawn,
    step: () => {
      if (random() < faultRate) return write(FIRST_FAULT + Math.floor(random() * FAULTS));
      return write(random() < reorderRate ? 1 + Math.floor(random() * (FIRST_FAULT - 1)) : 0);
    },
    pick: (count) => write(Math.floor(random() * count)),
  };
}

/** A record, played again; beyond its end everything takes its ordinary course. */
export function recordedTape(decisions: readonly number[]): Tape {
  let position = 0;
  const drawn: number[] = [];
  const read = () => {
    const value = decisions[position] ?? 0;
    position += 1;
    drawn.push(value);
    return value;
  };
  return { drawn, step: read, pick: (count) => read() % count };
}

/** The seed of the schedule with this number. */
export function seedOf(seed: number, schedule: number): number {
  return (Math.imul(seed, 0x9e3779b1) ^ Math.imul(schedule + 1, 0x85ebca6b)) >>> 0;
}

/**
 * Makes a failing record simpler for as long as it still fails: decisions are turned into the ordinary one, or left
 * out, in ever smaller runs, and then made smaller one by one.
 *
 * @param fails replays a record
 * @param maxReplays when to be content with what was reached
 */
export async function shrink(
  decisions: readonly number[],
  fails: (decisions: readonly number[]) => Promise<boolean>,
  maxReplays = 3_000,
): Promise<readonly number[]> {
  let best = withoutTail(decisions);
  let replays = 0;
  const attempt = async (candidate: readonly number[]) => {
    if (replays >= maxReplays) return false;
    replays += 1;
    if (!(await fails(candidate))) return false;
    best = withoutTail(candidate);
    return true;
  };
  for (;;) {
    const before = cost(best);
    for (let length = best.length; length >= 1; length = Math.floor(length / 2)) {
      for (let start = 0; start < best.length; ) {
        const run = best.slice(start, start + length);
        const zeroed = [...best.slice(0, start), ...run.map(() => 0), ...best.slice(start + length)];
        const isZero = run.every((value) => value === 0);
        if (!isZero) await attempt(zeroed);
        const cut = await attempt([...best.slice(0, start), ...best.slice(start + length)]);
        if (!cut) start += length;
      }
    }
    for (let index = 0; index < best.length; index += 1) {
      const value = best[index] ?? 0;
      for (const smaller of [1, value >> 1, value - 1]) {
        if (smaller > 0 && smaller < value && (await attempt(best.with(index, smaller)))) break;
      }
    }
    // Each pass makes it simpler, or is the last; so does running out of replays.
    if (cost(best) === before) return best;
  }
}

function withoutTail(decisions: readonly number[]): readonly number[] {
  return decisions.slice(0, decisions.findLastIndex((value) => value !== 0) + 1);
}

function cost(decisions: readonly number[]): number {
  return decisions.length + decisions.reduce((sum, value) => sum + value, 0) + decisions.filter((value) => value !== 0).length * 1_000_000;
}

function mulberry32(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 4_294_967_296;
  };
}
