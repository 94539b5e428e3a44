// Droplet observations that workers share: the contract of observations-redis.ts and observations-postgres.ts, and the
// protection of a worker against a store that is unreachable or that others can write. An observation decides which
// address a saga's caller gets, so each is signed with a key that only the fleet's workers have.

import { createHmac, hkdfSync, randomUUID, timingSafeEqual } from 'node:crypto';
import { withDeadline } from '../platform/deadline.ts';
import type { Io } from '../platform/io.ts';
import { parseJson } from '../platform/json.ts';
import type { Log } from '../platform/log.ts';
import { onceInAWhile } from '../platform/once-in-a-while.ts';
import { dropletSchema, type Droplet } from './schemas.ts';

/** An observation of a droplet. `droplet` is null only if a single read just now did not find it. */
export type Observation = Readonly<{ droplet: Droplet | null; ageMs: number }>;

/** A droplet to observe, and the oldest observation of it to accept. */
export type Wanted = Readonly<{ dropletId: number; maxAgeMs: number }>;

/**
 * How to read droplets without a recent observation. `single`: one by one. `list`: the caller reads the wave's list now,
 * for every worker. `busy`: another worker is reading the list.
 */
export type Way = 'single' | 'list' | 'busy';

export type ObservationStore = Readonly<{
  /** Returns the known observations of these droplets, and how to read the rest: by list if that takes fewer requests. */
  observe(
    wave: string | null,
    wanted: readonly Wanted[],
    how: { intervalMs: number; leaseMs: number },
  ): Promise<{ way: Way; seen: ReadonlyMap<number, Observation> }>;
  /** Stores the result of a read that began `tookMs` ago. */
  save(wave: string | null, droplets: readonly Droplet[], tookMs: number, keepMs: number): Promise<void>;
  /** Stores the result of a list that the caller had to read. `pages` is 0 if the list could not be read to its end. */
  finish(wave: string, droplets: readonly Droplet[], read: { tookMs: number; keepMs: number; pages: number }): Promise<void>;
}>;

/**
 * The operations of a shared store. `holder` owns the lease. `sealed` is a text that only {@link createObservationStore}
 * can read. `nowMs` is the store's clock, which all workers share.
 */
export type SharedObservations = Readonly<{
  observe(
    wave: string | null,
    wanted: readonly Wanted[],
    how: { intervalMs: number; leaseMs: number; holder: string },
  ): Promise<{ way: Way; nowMs: number; seen: ReadonlyMap<number, string> }>;
  save(
    wave: string | null,
    entries: readonly SealedDroplet[],
    read: { tookMs: number; keepMs: number; list: { pages: number; holder: string } | null },
  ): Promise<void>;
}>;

/** An observation as stored. */
export type SealedDroplet = Readonly<{ id: number; status: string; sealed: string }>;

// Without request budget, a saga polls again when there may be room: after most of a minute.
const LONGEST_POLL_MS = 60_000;

/** How long a droplet counts as waited for after a poll, in milliseconds, unless it is seen active. */
export function lookedForMs(intervalMs: number): number {
  return 1.5 * Math.max(intervalMs, LONGEST_POLL_MS);
}

const STORE_LIMIT_MS = 1_000;
const WARN_EVERY_MS = 10_000;

/**
 * Derives the key that signs a fleet's observations from the API token. Every worker has the token, and its owner may
 * query DigitalOcean anyway. HKDF, RFC 5869.
 */
export function observationKey(token: string): Buffer {
  return Buffer.from(hkdfSync('sha256', token, '', 'arcadia-cloud observations', 32));
}

/**
 * Creates the observation store of one process on the shared store. While the shared store is unreachable, nothing is
 * shared and every droplet is read singly. Observations without a valid signature or with a time in the future are
 * ignored.
 *
 * @param options.key see {@link observationKey}
 */
export function createObservationStore(shared: SharedObservations, { io, log, key }: { io: Io; log: Log; key: Buffer }): ObservationStore {
  const holder = randomUUID();
  // The store's clock minus this process's monotonic clock, as of the last read.
  let clockMs: number | null = null;
  const warn = onceInAWhile(WARN_EVERY_MS, (error: unknown) => log.warn({ reason: error instanceof Error ? error.message : String(error) }, 'what other workers see of droplets is out of reach: each is read singly'));
  const ask = async <T>(name: string, operation: () => Promise<T>, otherwise: T): Promise<T> => {
    try {
      return await io('queue', name, () => withDeadline(STORE_LIMIT_MS, operation(), () => new Error(`${name}: no answer within ${STORE_LIMIT_MS} ms`)));
    } catch (error) {
      warn(error);
      return otherwise;
    }
  };
  const observe: ObservationStore['observe'] = async (wave, wanted, how) => {
    const { way, nowMs, seen } = await shared.observe(wave, wanted, { ...how, holder });
    clockMs = nowMs - performance.now();
    return { way, seen: new Map([...seen].flatMap(([id, sealed]) => unseal(id, sealed, nowMs, key))) };
  };
  // Until the first read, the store's clock is unknown, so nothing can be signed or shared.
  const sealAll = (droplets: readonly Droplet[], tookMs: number): SealedDroplet[] => {
    if (clockMs === null) return [];
    const atMs = Math.floor(clockMs + performance.now() - tookMs);
    return droplets.map((droplet) => ({ id: droplet.id, status: droplet.status, sealed: seal(droplet, atMs, key) }));
  };
  return {
    observe: (wave, wanted, how) => ask('observations.look', () => observe(wave, wanted, how), { way: 'single', seen: new Map() }),
    save: (wave, droplets, tookMs, keepMs) => ask('observations.save', () => shared.save(wave, sealAll(droplets, tookMs), { tookMs, keepMs, list: null }), undefined),
    finish: (wave, droplets, { tookMs, keepMs, pages }) =>
      ask('observations.save', () => shared.save(wave, sealAll(droplets, tookMs), { tookMs, keepMs, list: { pages, holder } }), undefined),
  };
}

/** `<time>.<signature>.<droplet as JSON>`. The time is the store's, in milliseconds. */
function seal(droplet: Droplet, atMs: number, key: Buffer): string {
  const text = JSON.stringify(droplet);
  return `${atMs}.${signatureOf(atMs, text, key)}.${text}`;
}

function unseal(dropletId: number, sealed: string, nowMs: number, key: Buffer): [number, Observation][] {
  const [, at = '', signature = '', text = ''] = /^(\d{1,15})\.([0-9a-f]{64})\.(.*)$/s.exec(sealed) ?? [];
  const atMs = Number(at);
  if (signature === '' || !timingSafeEqual(Buffer.from(signature), Buffer.from(signatureOf(atMs, text, key)))) return [];
  const droplet = dropletSchema.safeParse(parseJson(text)).data;
  const ageMs = nowMs - atMs;
  return droplet === undefined || droplet.id !== dropletId || ageMs < 0 ? [] : [[dropletId, { droplet, ageMs }]];
}

function signatureOf(atMs: number, text: string, key: Buffer): string {
  return createHmac('sha256', key).update(`${atMs}.`).update(text).digest('hex');
}
