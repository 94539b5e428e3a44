// Keeps the process on the database's time. BullMQ uses each process's `Date.now()` for the due time of a delayed job,
// for deciding whether it is due, and, in Postgres, for how long a lock holds. A machine with a wrong clock would
// therefore postpone jobs into the far future, take other processes' jobs too early, or appear to have lost its locks. If
// this machine's clock is off or jumps, the process's `Date.now()` follows the database's clock from then on.
import { withDeadline } from './deadline.ts';
import type { Database } from './db.ts';
import type { Log } from './log.ts';

export type ClockWatch = Readonly<{
  /** Ends the watch. `Date.now()` returns the machine's time again. */
  close(): void;
}>;

type ClockOptions = Readonly<{
  db: Pick<Database, 'sql'>;
  /** How often the database's time is read. */
  everyMs: number;
  log: Pick<Log, 'debug' | 'info' | 'warn'>;
  /** How often this machine's clock is compared with a monotonic one. */
  tickMs?: number;
}>;

// A smaller difference does no harm, and is larger than the time of a read.
const TOLERANCE_MS = 1_000;
const TICK_MS = 500;
// A slower response is too imprecise.
const ANSWER_WITHIN_MS = 2_000;

/** The database's time at a moment of the monotonic clock. */
type Anchor = Readonly<{ databaseMs: number; atMs: number; isGuess?: boolean }>;

/** Reads the database's time and keeps the process on it until closed. */
export async function keepDatabaseTime({ db, everyMs, log, tickMs = TICK_MS }: ClockOptions): Promise<ClockWatch> {
  // Trust the machine's clock until the database answers.
  let anchor: Anchor = (await readDatabaseTime(db).catch(() => null)) ?? { databaseMs: Date.now(), atMs: performance.now(), isGuess: true };
  let machineNow = Date.now;
  let offMs = 0;
  let isAsking = false;
  let isClosed = false;

  const databaseNow = () => anchor.databaseMs + performance.now() - anchor.atMs;
  const correctedNow = () => Math.round(databaseNow());
  const isCorrected = () => Date.now === correctedNow;
  // Other code may have replaced `Date.now` since.
  const readMachine = () => (isCorrected() ? machineNow() : Date.now());

  const correct = (measuredMs: number) => {
    offMs = measuredMs;
    const isOff = Math.abs(offMs) > TOLERANCE_MS;
    if (isOff && !isCorrected()) {
      machineNow = Date.now;
      Date.now = correctedNow;
      log.warn({ offMs: Math.round(offMs) }, `the clock of this machine is ${describeOff(offMs)} the database's: this process goes by the database's. Set the clock right (NTP)`);
    } else if (!isOff && isCorrected()) {
      Date.now = machineNow;
      log.info("the clock of this machine agrees with the database's again");
    }
  };
  const ask = async (): Promise<void> => {
    if (isAsking) return;
    isAsking = true;
    try {
      const answer = await readDatabaseTime(db);
      if (isClosed) return;
      anchor = answer;
    } catch (error) {
      // Keep the anchor: its clock is monotonic.
      log.debug({ err: error }, "could not read the database's time");
    } finally {
      isAsking = false;
    }
  };
  const tick = async (): Promise<void> => {
    const jumpedMs = readMachine() - databaseNow() - offMs;
    // Either the machine's clock jumped, or the machine slept and the monotonic clock stood still. The database knows.
    if (Math.abs(jumpedMs) > TOLERANCE_MS || anchor.isGuess === true || performance.now() - anchor.atMs >= everyMs) await ask();
    if (!isClosed) correct(readMachine() - databaseNow());
  };

  correct(readMachine() - databaseNow());
  const ticking = setInterval(() => void tick(), tickMs);
  ticking.unref();
  return {
    close: () => {
      isClosed = true;
      clearInterval(ticking);
      if (isCorrected()) Date.now = machineNow;
    },
  };
}

/**
 * Creates a clock for code that must leave `Date.now()` alone: the database's time, read now and then.
 *
 * @returns a function that resolves with Unix milliseconds; with this machine's time if the database does not answer
 */
export function createDatabaseClock(db: Pick<Database, 'sql'>, everyMs = 60_000): () => Promise<number> {
  let anchor: Anchor | null = null;
  return async () => {
    if (anchor === null || performance.now() - anchor.atMs >= everyMs) anchor = await readDatabaseTime(db).catch(() => null);
    return anchor === null ? Date.now() : Math.round(anchor.databaseMs + performance.now() - anchor.atMs);
  };
}

/** Reads the database's time, with a deadline of two seconds. */
export async function readDatabaseTime(db: Pick<Database, 'sql'>): Promise<Anchor> {
  const sentAt = performance.now();
  const answer = db.sql<{ ms: number }[]>`select (extract(epoch from clock_timestamp()) * 1000)::double precision as ms`;
  const [row] = await withDeadline(ANSWER_WITHIN_MS, answer, () => new Error(`the database did not say its time within ${ANSWER_WITHIN_MS} ms`));
  if (row === undefined) throw new Error('the database did not say its time');
  const answeredAt = performance.now();
  return { databaseMs: row.ms, atMs: (sentAt + answeredAt) / 2 };
}

function describeOff(offMs: number): string {
  return `${Math.round(Math.abs(offMs) / 1_000)} s ${offMs > 0 ? 'ahead of' : 'behind'}`;
}
