// What workers leave for each other of what they saw: the contract of observations-redis.ts and observations-postgres.ts,
// and the care that a worker takes of a store that may be away.

import { randomUUID } from 'node:crypto';
import { withDeadline } from '../deadline.ts';
import type { Io } from '../io.ts';
import type { Log } from '../log.ts';
import type { Look } from './observer.ts';
import type { Droplet } from './schemas.ts';

/** A droplet that somebody wants to know of, and how old an observation of it may be. */
export type Wanted = Readonly<{ dropletId: number; maxAgeMs: number }>;

/**
 * How to see what nobody has seen: `single`: one by one; `list`: by the list of the wave, which is the caller's to read
 * now, for everybody; `busy`: another worker is reading it.
 */
export type Way = 'single' | 'list' | 'busy';

export type ObservationStore = Readonly<{
  /** Finds what was seen of these droplets, and says how to see the rest: the list, where it takes fewer requests. */
  look(
    wave: string | null,
    wanted: readonly Wanted[],
    how: { intervalMs: number; leaseMs: number },
  ): Promise<{ way: Way; seen: ReadonlyMap<number, Look> }>;
  /** Keeps what a read showed that began `tookMs` ago. */
  save(wave: string | null, droplets: readonly Droplet[], tookMs: number, keepMs: number): Promise<void>;
  /** The same for a list that was the caller's to read. `pages` is 0 when it could not be read to its end. */
  finish(wave: string, droplets: readonly Droplet[], read: { tookMs: number; keepMs: number; pages: number }): Promise<void>;
}>;

/** What a shared store can do; `holder` is whose a lease is. */
export type SharedObservations = Readonly<{
  look(
    wave: string | null,
    wanted: readonly Wanted[],
    how: { intervalMs: number; leaseMs: number; holder: string },
  ): Promise<{ way: Way; seen: ReadonlyMap<number, Look> }>;
  save(
    wave: string | null,
    droplets: readonly Droplet[],
    read: { tookMs: number; keepMs: number; list: { pages: number; holder: string } | null },
  ): Promise<void>;
}>;

const STORE_LIMIT_MS = 1_000;
const WARN_EVERY_MS = 10_000;

/** Makes a store of one process from the shared one. While that is away, nothing is shared, and everybody reads singly. */
export function createObservationStore(shared: SharedObservations, { io, log }: { io: Io; log: Log }): ObservationStore {
  const holder = randomUUID();
  let warnedAt = Number.NEGATIVE_INFINITY;
  const ask = async <T>(name: string, operation: () => Promise<T>, otherwise: T): Promise<T> => {
    try {
      return await io('queue', name, () => withDeadline(STORE_LIMIT_MS, operation(), () => new Error(`${name}: no answer within ${STORE_LIMIT_MS} ms`)));
    } catch (error) {
      if (performance.now() - warnedAt > WARN_EVERY_MS) {
        warnedAt = performance.now();
        log.warn({ reason: error instanceof Error ? error.message : String(error) }, 'what other workers see of droplets is out of reach: each is read singly');
      }
      return otherwise;
    }
  };
  return {
    look: (wave, wanted, how) => ask('observations.look', () => shared.look(wave, wanted, { ...how, holder }), { way: 'single', seen: new Map() }),
    save: (wave, droplets, tookMs, keepMs) => ask('observations.save', () => shared.save(wave, droplets, { tookMs, keepMs, list: null }), undefined),
    finish: (wave, droplets, { tookMs, keepMs, pages }) =>
      ask('observations.save', () => shared.save(wave, droplets, { tookMs, keepMs, list: { pages, holder } }), undefined),
  };
}
