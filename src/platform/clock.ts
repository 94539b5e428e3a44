// The time of a process, held to the database's. BullMQ goes by `Date.now()` of each process: when a delayed job is due,
// whether it is, and, in Postgres, how long a lock holds. So a machine whose clock is wrong would put jobs off into the
// far future, take those of others too early, or seem to have lost its locks. Where the clock of this machine is off, or
// jumps, `Date.now()` of the process goes by the database's clock from then on.
import { withDeadline } from './deadline.ts';
import type { Database } from './db.ts';
import type { Log } from './log.ts';

export type ClockWatch = Readonly<{
  /** Ends the watch; `Date.now()` is the machine's again. */
  close(): void;
}>;

type ClockOptions = Readonly<{
  db: Pick<Database, 'sql'>;
  /** How often the database is asked for its time. */
  everyMs: number;
  log: Pick<Log, 'debug' | 'info' | 'warn'>;
  /** How often this machine's clock is held against one that never jumps. */
  tickMs?: number;
}>;

// Less than this harms nothing, and is more than what asking takes.
const TOLERANCE_MS = 1_000;
const TICK_MS = 500;
// An answer that takes longer says too little about the time.
const ANSWER_WITHIN_MS = 2_000;

/** The database's time at a moment of a clock that never jumps. */
type Anchor = Readonly<{ databaseMs: number; atMs: number; isGuess?: boolean }>;

/** Asks the database for its time, and keeps the process to it until closed. */
export async function keepDatabaseTime({ db, everyMs, log, tickMs = TICK_MS }: ClockOptions): Promise<ClockWatch> {
  // Where the database does not say yet, the machine is believed until it does.
  let anchor: Anchor = (await readDatabaseTime(db).catch(() => null)) ?? { databaseMs: Date.now(), atMs: performance.now(), isGuess: true };
  let machineNow = Date.now;
  let offMs = 0;
  let isAsking = false;
  let isClosed = false;

  const databaseNow = () => anchor.databaseMs + performance.now() - anchor.atMs;
  const correctedNow = () => Math.round(databaseNow());
  const isCorrected = () => Date.now === correctedNow;
  // Somebody may have put a clock of their own there since.
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
      // The anchor holds on: it is a clock that never jumps.
      log.debug({ err: error }, "could not read the database's time");
    } finally {
      isAsking = false;
    }
  };
  const tick = async (): Promise<void> => {
    const jumpedMs = readMachine() - databaseNow() - offMs;
    // A jump of the machine's clock, or the machine slept, and the clock that never jumps stood still: the database knows.
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
 * A clock for who must leave `Date.now()` alone: the database's time, asked for now and then.
 *
 * @returns a function that resolves with Unix milliseconds; with this machine's where the database does not say
 */
export function createDatabaseClock(db: Pick<Database, 'sql'>, everyMs = 60_000): () => Promise<number> {
  let anchor: Anchor | null = null;
  return async () => {
    if (anchor === null || performance.now() - anchor.atMs >= everyMs) anchor = await readDatabaseTime(db).catch(() => null);
    return anchor === null ? Date.now() : Math.round(anchor.databaseMs + performance.now() - anchor.atMs);
  };
}

async function readDatabaseTime(db: Pick<Database, 'sql'>): Promise<Anchor> {
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
