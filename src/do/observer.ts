// Observes droplets for the sagas that wait for them. Polls that are due together, in any worker, share one read: the
// result of a list is stored briefly for the other workers. A list never proves that a droplet is absent. A droplet
// missing from the list is read singly.

import { setTimeout as delay } from 'node:timers/promises';
import type { DigitalOceanClient } from './client.ts';
import { DigitalOceanError } from './errors.ts';
import type { Observation, ObservationStore } from './observation-store.ts';
import { dropletSchema, type Droplet } from './schemas.ts';

export type DropletObserver = Readonly<{
  /**
   * Observes a droplet.
   *
   * @param how.wave the tag of the droplet's wave of creates; null: unknown, so no list is read for it
   * @param how.maxAgeMs the oldest observation by another worker to accept; 0: read the droplet singly, now
   * @throws {DigitalOceanError} if the droplet could not be read
   */
  observe(dropletId: number, how: { wave: string | null; maxAgeMs: number }): Promise<Observation>;
  /**
   * Returns what any worker saw of a droplet within the last two minutes; null: nothing. Sends no request. For when the
   * request budget has no room: {@link observe} fails, but a list that another saga read may have shown the droplet.
   */
  recall(dropletId: number): Promise<Observation | null>;
}>;

/** Reads each droplet singly. */
export function observeSingly(client: Pick<DigitalOceanClient, 'getDroplet'>): DropletObserver {
  return { observe: async (dropletId) => ({ droplet: await client.getDroplet(dropletId), ageMs: 0 }), recall: () => Promise.resolve(null) };
}

export type ObserverOptions = Readonly<{
  client: DigitalOceanClient;
  store: ObservationStore;
  /** Every waiting saga polls once within this time. */
  intervalMs: number;
  /** A reader that takes longer than this counts as failed, and another worker reads. */
  leaseMs: number;
}>;

type Due = { dropletId: number; maxAgeMs: number; resolve: (seen: Observation | null) => void; reject: (error: unknown) => void };

// Longer than any maximum age: `register_droplet` accepts what was seen before the wait for the droplet to respond.
const KEEP_MS = 130_000;

const RECALLED_MS = 120_000;

// Pauses between lookups while another worker is reading the list.
const FIRST_PAUSE_MS = 20;
const LONGEST_PAUSE_MS = 250;

/** Creates an observer that shares its reads. */
export function createObserver(options: ObserverOptions): DropletObserver {
  const { client, store } = options;
  const single = observeSingly(client);
  const due = new Map<string, Due[]>();
  const busy = new Set<string>();

  // Droplets that become due during a read form the next batch. This needs no timer, and causes no wait if there is
  // nothing to share.
  const work = async (wave: string): Promise<void> => {
    busy.add(wave);
    for (let batch = due.get(wave); batch !== undefined; batch = due.get(wave)) {
      due.delete(wave);
      await lookTogether(wave, batch, options).catch((error: unknown) => {
        for (const one of batch) one.reject(error);
      });
    }
    busy.delete(wave);
  };

  return {
    observe: async (dropletId, { wave, maxAgeMs }) => {
      if (maxAgeMs <= 0) return single.observe(dropletId, { wave, maxAgeMs });
      const seen = await new Promise<Observation | null>((resolve, reject) => {
        const key = wave ?? '';
        due.set(key, [...(due.get(key) ?? []), { dropletId, maxAgeMs, resolve, reject }]);
        if (!busy.has(key)) void work(key);
      });
      if (seen !== null) return seen;
      const startedAt = performance.now();
      const read = await single.observe(dropletId, { wave, maxAgeMs });
      // No other saga waits for this droplet, but the next step of this saga uses the observation too.
      if (read.droplet?.status === 'active') await store.save(wave, [read.droplet], performance.now() - startedAt, KEEP_MS);
      return read;
    },
    recall: async (dropletId) => {
      const { seen } = await store.observe(null, [{ dropletId, maxAgeMs: RECALLED_MS }], options);
      const known = seen.get(dropletId);
      return known === undefined || known.ageMs > RECALLED_MS ? null : known;
    },
  };
}

/** Resolves each droplet with a shared observation, or with null if it has to be read singly. */
async function lookTogether(wave: string, batch: readonly Due[], options: ObserverOptions): Promise<void> {
  const { store, intervalMs, leaseMs } = options;
  const givenUpAt = performance.now() + leaseMs;
  let open = batch;
  for (let pauseMs = FIRST_PAUSE_MS; ; pauseMs = Math.min(LONGEST_PAUSE_MS, pauseMs * 2)) {
    const { way, seen } = await store.observe(wave === '' ? null : wave, open, { intervalMs, leaseMs });
    open = open.filter((one) => !answer(one, seen.get(one.dropletId)));
    if (open.length === 0) return;
    if (way === 'list') return readWave(wave, open, options);
    if (way === 'single') {
      for (const one of open) one.resolve(null);
      return;
    }
    if (performance.now() > givenUpAt) throw notSeen(`another worker has been reading the droplets of ${wave} for ${leaseMs} ms`);
    await delay(pauseMs);
  }
}

/** Reads the wave's list for this batch and for all other workers. */
async function readWave(wave: string, batch: readonly Due[], { client, store }: ObserverOptions): Promise<void> {
  const startedAt = performance.now();
  const age = () => performance.now() - startedAt;
  const shown = new Map<number, Droplet>();
  let pages = 0;
  let isWhole = false;
  let brokenOffBy: DigitalOceanError | null = null;
  try {
    for await (const page of client.pages('/v2/droplets', 'droplets', { params: { tag_name: wave }, itemSchema: dropletSchema })) {
      pages += 1;
      for (const droplet of page) shown.set(droplet.id, droplet);
    }
    isWhole = true;
  } catch (error) {
    // One malformed droplet makes the list unusable but must not block the other droplets.
    if (!(error instanceof DigitalOceanError)) throw error;
    if (error.status !== 200) brokenOffBy = error;
  } finally {
    await store.finish(wave, [...shown.values()], { tookMs: age(), keepMs: KEEP_MS, pages: isWhole ? pages : 0 });
  }
  for (const one of batch) {
    const droplet = shown.get(one.dropletId);
    if (droplet !== undefined) one.resolve({ droplet, ageMs: age() });
    else if (brokenOffBy !== null) one.reject(brokenOffBy);
    else one.resolve(null);
  }
}

function answer(one: Due, seen: Observation | undefined): boolean {
  if (seen === undefined || seen.ageMs > one.maxAgeMs) return false;
  one.resolve(seen);
  return true;
}

function notSeen(why: string): DigitalOceanError {
  return new DigitalOceanError(why, {
    kind: 'later',
    code: 'not_read',
    status: null,
    requestId: null,
    retryAfterMs: null,
    method: 'GET',
    path: '/v2/droplets',
  });
}
