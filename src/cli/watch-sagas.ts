// `sagas --watch`: reads the list again and again until it is stopped, and goes on when Postgres does not answer.
import { setTimeout as delay } from 'node:timers/promises';
import type { SagaLease } from '../inventory/lease.ts';
import { DatabaseTimeoutError, isDatabaseOutage } from '../platform/db.ts';
import { unlessAborted, withDeadline } from '../platform/deadline.ts';
import { describePostgresFailure } from '../platform/postgres-failure.ts';
import { printable } from '../platform/text.ts';
import type { LastAnswers } from './last-answers.ts';
import type { Hold } from '../saga/holds.ts';
import type { Saga } from '../saga/saga.ts';
import { complain, terminalWidth, write } from './output.ts';
import { cutTo } from './table.ts';

/** One read of the list. `isCut`: there are more sagas than it shows, and nobody asked for so many. */
export type Listing = Readonly<{ sagas: readonly Saga[]; leases: ReadonlyMap<string, SagaLease>; holds: ReadonlyMap<string, Hold>; lastAnswers: LastAnswers; isCut: boolean }>;

/** How a watch tells of what it read. */
export type Display = Readonly<{
  fresh(listing: Listing, at: Date): void;
  /** The list could not be read; the last one is from `since`. */
  stale(since: Date, why: string): void;
  close(): void;
}>;

// The largest `--limit`, as in src/main.ts.
const MOST_SAGAS = 1_000;

// A Postgres that hangs must not look like a fleet in which nothing happens.
const ANSWER_WITHIN_MS = 5_000;

/**
 * Watches the list until it is stopped.
 *
 * @param read reads the list
 * @param everyMs time between two reads
 * @throws the signal's reason; the error of the first read, and any later one that is no outage of Postgres
 */
export async function watchSagas(read: () => Promise<Listing>, everyMs: number, display: Display, stop: AbortSignal): Promise<never> {
  let readAt: Date | null = null;
  try {
    for (;;) {
      try {
        const listing = await unlessAborted(stop, withDeadline(ANSWER_WITHIN_MS, read(), () => new DatabaseTimeoutError(`no answer within ${ANSWER_WITHIN_MS / 1_000} s`)));
        readAt = new Date(Date.now());
        display.fresh(listing, readAt);
      } catch (error) {
        if (readAt === null || stop.aborted || !isDatabaseOutage(error)) throw error;
        display.stale(readAt, describePostgresFailure(error) ?? (error instanceof Error ? error.message : String(error)));
      }
      await unlessAborted(stop, delay(everyMs));
    }
  } finally {
    display.close();
  }
}

type Format = (listing: Listing, maxWidth: number | null) => string;

const ENTER = '\u001b[?1049h\u001b[?25l';
const LEAVE = '\u001b[?25h\u001b[?1049l';

/** Draws the list on a screen of its own, and gives the terminal back as it was. */
export function openScreen(format: Format, everyMs: number, terminal: NodeJS.WriteStream = process.stdout): Display {
  let shown: Omit<Frame, 'width' | 'height' | 'everyMs'> | null = null;
  const draw = () => {
    if (shown === null) return;
    const lines = frameOf({ ...shown, everyMs, width: terminalWidth(terminal), height: terminal.rows }, format);
    terminal.write(`\u001b[H${lines.map((line) => `${line}\u001b[K`).join('\n')}\u001b[J`);
  };
  const leave = () => void terminal.write(LEAVE);
  terminal.write(ENTER);
  terminal.on('resize', draw);
  // A second signal ends the process at once.
  process.once('exit', leave);
  return {
    fresh: (listing, at) => {
      shown = { listing, at, trouble: null };
      draw();
    },
    stale: (_since, why) => {
      if (shown !== null) shown = { ...shown, trouble: why };
      draw();
    },
    close: () => {
      process.off('exit', leave);
      terminal.off('resize', draw);
      leave();
    },
  };
}

type Frame = Readonly<{ listing: Listing; at: Date; trouble: string | null; everyMs: number; width: number | null; height: number }>;

/** Lays out one drawing: no line wider than the terminal, and no more lines than it has. */
export function frameOf({ listing, at, trouble, everyMs, width, height }: Frame, format: Format): string[] {
  const cut = listing.isCut ? ` ${showsTheNewest(listing)}` : '';
  const head = trouble === null ? `Read at ${timeOf(at)}, again every ${everyMs / 1_000} s. Ctrl-C ends it.${cut}` : notUpToDate(at, trouble);
  const rows = format(listing, width).split('\n');
  const room = Math.max(1, height - 2);
  // With the line that says how many are left out.
  const shown = rows.length <= room ? rows : rows.slice(0, Math.max(1, room - 1));
  const left = rows.length - shown.length;
  return [head, '', ...shown, ...(left === 0 ? [] : [`… and ${left} more: this terminal has ${height} lines`])].map((line) => (width === null ? line : cutTo(line, width)));
}

/**
 * Prints the list, then a row for each saga that is new or has changed, and leaves the terminal alone: what a pipe or a log
 * can use. `kubectl get --watch` does so too. To refuse would leave scripts with a loop around `arcadia sagas`, and to
 * redraw would write control characters into a file.
 *
 * @param format formats sagas as lines; `hasHead`: a head was printed before
 */
export function openLines(format: (listing: Listing, hasHead: boolean) => string): Display {
  let known: ReadonlyMap<string, string> | null = null;
  let hasHead = false;
  let isStale = false;
  let wasCut = false;
  return {
    fresh: (listing, at) => {
      if (listing.isCut && !wasCut) complain(showsTheNewest(listing));
      wasCut = listing.isCut;
      if (isStale) complain(`Up to date again at ${timeOf(at)}`);
      isStale = false;
      const before = known;
      const changed = listing.sagas.filter((saga) => before?.get(saga.id) !== stateOf(saga, listing));
      known = new Map(listing.sagas.map((saga) => [saga.id, stateOf(saga, listing)]));
      const text = before === null || changed.length > 0 ? format({ ...listing, sagas: changed }, hasHead) : '';
      hasHead ||= changed.length > 0;
      if (text !== '') write(text);
    },
    stale: (since, why) => {
      if (!isStale) complain(notUpToDate(since, why));
      isStale = true;
    },
    close: () => undefined,
  };
}

function stateOf({ id, revision, waitsFor }: Saga, { holds }: Listing): string {
  return `${revision} ${waitsFor ?? ''} ${holds.get(id)?.cause ?? ''}`;
}

/** Tells that the list is cut. */
export function showsTheNewest({ sagas }: Pick<Listing, 'sagas'>): string {
  return `Showing the newest ${sagas.length}; there are more: --limit shows up to ${MOST_SAGAS}`;
}

function notUpToDate(since: Date, why: string): string {
  return `Not up to date since ${timeOf(since)}, trying again. ${printable(why)}`;
}

/** In UTC, as all times that commands print. */
function timeOf(time: Date): string {
  return `${time.toISOString().slice(11, 19)} UTC`;
}
