// The observer polls a new droplet in every possible way until each shows it, and a deleted one until none does. It
// measures DigitalOcean's lags with as few requests as possible.
import { setTimeout as delay } from 'node:timers/promises';
import type { DigitalOceanClient } from '../../do/client.ts';
import { DigitalOceanError } from '../../do/errors.ts';
import { addressesOf } from '../../steps/addresses.ts';
import { isSagaIdTag } from '../../steps/ownership.ts';
import type { Lags, StateFile } from './state.ts';
import { withDroplet } from './state.ts';
import type { Sighting, Witness } from './witness.ts';

type Measured = Partial<Record<keyof Lags, number>>;

export type Observer = Readonly<{
  /** Waits for the measurements in progress, up to a limit, and stops. */
  close(limitMs: number): Promise<void>;
}>;

// A longer lag is polled less often: everything shares the 250 requests a minute.
const SLOWER_AFTER_MS = 60_000;
const SLOWER_BY = 5;
const GIVE_UP_AFTER_MS = 600_000;

const shownByGet = ['readableMs', 'taggedMs', 'activeMs', 'publicIpv4Ms'] as const;

/**
 * Observes every droplet that the witness reports.
 *
 * @param options.everyMs time between two polls of at most three requests each
 */
export function observe({ witness, state, api, everyMs }: { witness: Witness; state: StateFile; api: DigitalOceanClient; everyMs: number }): Observer {
  const closing = new AbortController();
  const atWork = new Set<Promise<void>>();
  const deleted = new Map<number, AbortController>();

  const start = (work: Promise<void>): void => {
    // A failed measurement is no reason to fail.
    const guarded = work.catch(() => undefined).finally(() => atWork.delete(guarded));
    atWork.add(guarded);
  };
  const pause = async (sinceMs: number, signal: AbortSignal, leastMs = 0): Promise<void> => {
    const isLate = performance.now() - sinceMs > SLOWER_AFTER_MS;
    await delay(Math.max(leastMs, isLate ? everyMs * SLOWER_BY : everyMs), undefined, { signal }).catch(() => undefined);
  };
  /** Polls until everything is measured. Each poll returns what it found. */
  const lookUntil = async (sinceMs: number, fields: readonly (keyof Lags)[], signal: AbortSignal, look: (missing: (field: keyof Lags) => boolean, found: (field: keyof Lags) => void) => Promise<void>): Promise<Measured> => {
    const measured: Measured = {};
    let looks = 0;
    while (!signal.aborted && fields.some((field) => measured[field] === undefined) && performance.now() - sinceMs < GIVE_UP_AFTER_MS) {
      const sentMs = performance.now();
      const isFirst = looks === 0;
      looks += 1;
      let leastMs = 0;
      try {
        await look((field) => measured[field] === undefined, (field) => (measured[field] = isFirst ? 0 : Math.round(sentMs - sinceMs)));
      } catch (error) {
        if (!(error instanceof DigitalOceanError)) throw error;
        leastMs = Math.min(60_000, error.retryAfterMs ?? 1_000);
      }
      if (fields.some((field) => measured[field] === undefined)) await pause(sinceMs, signal, leastMs);
    }
    return measured;
  };
  const keep = (id: number, measured: Measured) => state.change('lags measured', (current) => withDroplet(current, id, (one) => ({ ...one, lags: { ...one.lags, ...measured } })));

  const watchBirth = async ({ droplet: { id, name, tags }, atMs }: Sighting, signal: AbortSignal): Promise<void> => {
    const tag = tags.find(isSagaIdTag);
    const fields: readonly (keyof Lags)[] = [...shownByGet, 'listedMs', ...(tag === undefined ? [] : ['tagListedMs' as const])];
    const measured = await lookUntil(atMs, fields, signal, async (isMissing, found) => {
      if (shownByGet.some(isMissing)) {
        const seen = await api.getDroplet(id);
        const shows: Partial<Record<keyof Lags, boolean>> = {
          readableMs: seen !== null,
          taggedMs: tag === undefined || seen?.tags?.includes(tag) === true,
          activeMs: seen?.status === 'active',
          publicIpv4Ms: seen !== null && addressesOf(seen).public_ipv4 !== null,
        };
        for (const field of shownByGet) if (shows[field] === true && isMissing(field)) found(field);
      }
      if (isMissing('listedMs') && (await api.listDroplets({ name })).some((one) => one.id === id)) found('listedMs');
      if (tag !== undefined && isMissing('tagListedMs') && (await api.listDropletsByTag(tag)).some((one) => one.id === id)) found('tagListedMs');
    });
    if (Object.keys(measured).length > 0) await keep(id, measured);
  };
  const watchEnd = async ({ droplet: { id, name }, atMs }: Sighting): Promise<void> => {
    const measured = await lookUntil(atMs, ['goneMs', 'unlistedMs'], closing.signal, async (isMissing, found) => {
      if (isMissing('goneMs') && (await api.getDroplet(id)) === null) found('goneMs');
      if (isMissing('unlistedMs') && !(await api.listDroplets({ name })).some((one) => one.id === id)) found('unlistedMs');
    });
    if (Object.keys(measured).length > 0) await keep(id, measured);
  };

  witness.onMade((sighting) => {
    const isDeleted = new AbortController();
    deleted.set(sighting.droplet.id, isDeleted);
    start(watchBirth(sighting, AbortSignal.any([closing.signal, isDeleted.signal])));
  });
  witness.onDeleted((sighting) => {
    deleted.get(sighting.droplet.id)?.abort();
    start(watchEnd(sighting));
  });
  return {
    close: async (limitMs) => {
      const timer = setTimeout(() => closing.abort(), limitMs);
      await Promise.all(atWork);
      clearTimeout(timer);
    },
  };
}
