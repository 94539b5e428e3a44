// Shifts the clock of a real process, like a machine with a wrong clock: `Date` is shifted, monotonic clocks and timers are not.
// Loaded before the program (`node --import`), only in child processes.

import { readFileSync, writeFileSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';

export type ShiftedClock = {
  /** The environment of a process that lives by this clock. */
  readonly environment: NodeJS.ProcessEnv;
  /** Sets how far it is ahead, in milliseconds; behind where negative. It jumps at once. */
  readonly set: (offsetMs: number) => void;
  readonly [Symbol.asyncDispose]: () => Promise<void>;
};

export const HOUR_MS = 3_600_000;

/** Makes a clock that processes can be given. */
export async function createShiftedClock(offsetMs: number): Promise<ShiftedClock> {
  const folder = await mkdtemp(join(tmpdir(), 'arcadia-clock-'));
  const file = join(folder, 'offset');
  const set = (ms: number): void => writeFileSync(file, String(ms));
  set(offsetMs);
  return {
    environment: { NODE_OPTIONS: `--import ${pathToFileURL(import.meta.filename).href}`, ARCADIA_TEST_CLOCK: file },
    set,
    [Symbol.asyncDispose]: () => rm(folder, { recursive: true, force: true }),
  };
}

const given = process.env['ARCADIA_TEST_CLOCK'];
if (given !== undefined) {
  const RealDate = Date;
  let offsetMs = Number(readFileSync(given, 'utf8'));
  setInterval(() => {
    try {
      offsetMs = Number(readFileSync(given, 'utf8'));
    } catch {
      // It is just being written, or the test is over.
    }
  }, 20).unref();
  const realNow = RealDate.now.bind(RealDate);
  const shiftedNow = (): number => realNow() + offsetMs;
  globalThis.Date = new Proxy(RealDate, {
    construct: (target, args, newTarget): Date => Reflect.construct(target, args.length === 0 ? [shiftedNow()] : args, newTarget),
    apply: () => new RealDate(shiftedNow()).toString(),
  });
  Date.now = shiftedNow;
}
