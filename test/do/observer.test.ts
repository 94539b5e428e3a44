// Looks at droplets that share a read: what is asked of the API, and what may be concluded from what others saw.

import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, describe, expect, onTestFinished, test } from 'vitest';
import type { RequestBudget } from '../../src/do/budget.ts';
import { uncounted, unlimitedBudget } from '../../src/do/budget.ts';
import { createDigitalOceanClient } from '../../src/do/client.ts';
import { DigitalOceanError } from '../../src/do/errors.ts';
import { createObservationStore, observationKey } from '../../src/do/observation-store.ts';
import type { SealedDroplet, SharedObservations } from '../../src/do/observation-store.ts';
import { createObserver } from '../../src/do/observer.ts';
import { createPostgresObservations } from '../../src/do/observations-postgres.ts';
import { createRedisObservations } from '../../src/do/observations-redis.ts';
import { startSandbox } from '../../src/sandbox/server.ts';
import type { SandboxOptions } from '../../src/sandbox/server.ts';
import { directIo } from '../../src/platform/io.ts';
import { silentLog } from '../../src/platform/log.ts';
import { createScriptRunner } from '../../src/queues/redis-scripts.ts';
import { connectTestRedis, createTestRedis } from '../support/services-redis.ts';
import { useSharedDatabase } from '../support/shared-database.ts';
import { waitFor } from '../support/wait-for.ts';
import { createDroplet } from './support.ts';

const WAVE = 'arcadia-wave-7';
const SINGLE = 'GET /v2/droplets/:id';
const LIST = 'GET /v2/droplets?tag_name';

const place = createTestRedis();
const redis = connectTestRedis(place.url);
const database = useSharedDatabase(8);
let scopes = 0;

afterAll(async () => {
  redis.disconnect();
  await place.drop();
});

const stores = {
  redis: (scope: string) => createRedisObservations(createScriptRunner(redis), place.prefix, scope),
  postgres: (scope: string) => createPostgresObservations(database(), scope),
};
const away: SharedObservations = {
  observe: async () => Promise.reject(new Error('connect ECONNREFUSED')),
  save: async () => Promise.reject(new Error('connect ECONNREFUSED')),
};

/** A sandbox with droplets of one wave, and workers that share what they see of them. */
async function stage(createShared: (scope: string) => SharedObservations, { budget = unlimitedBudget, ...options }: SandboxOptions & { droplets: number; budget?: RequestBudget; intervalMs?: number }) {
  const sandbox = await startSandbox({ activateAfterMs: 3_600_000, ratePerMinute: null, ratePerHour: null, ...options });
  onTestFinished(() => sandbox.close());
  const scope = `scope-${(scopes += 1)}`;
  const connection = { apiUrl: sandbox.url, token: 'observer', timeoutMs: 5_000 };
  const client = createDigitalOceanClient({ ...connection, budget });
  const creator = createDigitalOceanClient({ ...connection, budget: null });
  const ids: number[] = [];
  for (let number = 0; number < options.droplets; number += 1) {
    const request = { name: `web-${number}`, region: 'fra1', size: 's-1vcpu-1gb', image: 'debian-12-x64', tags: [WAVE] };
    ids.push((await createDroplet(creator, request)).droplet.id);
  }
  const worker = () =>
    createObserver({ client, store: createObservationStore(createShared(scope), { io: directIo, log: silentLog, key: observationKey('observer') }), intervalMs: options.intervalMs ?? 5_000, leaseMs: 2_000 });
  sandbox.clearLedger();
  return { sandbox, ids, worker, requests: () => sandbox.ledgerSummary().byRoute };
}

const usedUp = new DigitalOceanError('no room', { kind: 'throttled', code: 'request_budget', status: null, requestId: null, retryAfterMs: 9_000, method: 'GET', path: '/v2/droplets' });

const recent = { wave: WAVE, maxAgeMs: 1_000 };

describe.each(Object.entries(stores))('looks that are shared by way of %s', (_name, shared) => {
  test('of many droplets, by several workers: one list', async () => {
    const { ids, worker, requests } = await stage(shared, { droplets: 40 });
    const workers = [worker(), worker(), worker()] as const;
    const workerOf = (at: number) => workers[at % 3] ?? workers[0];
    // Somebody has to be the first to know that there are several.
    await Promise.all(ids.slice(0, 20).map((id) => workers[0].observe(id, recent)));
    const looks = await Promise.all(ids.map((id, at) => workerOf(at).observe(id, recent)));
    expect(looks.map((look) => look.droplet?.id)).toEqual(ids);
    expect(requests()[LIST]).toBe(1);
    expect(requests()[SINGLE] ?? 0).toBeLessThanOrEqual(1);
  });

  test('of one droplet alone: a read of its own', async () => {
    const { ids, worker, requests } = await stage(shared, { droplets: 1 });
    expect(await worker().observe(ids[0] ?? 0, recent)).toMatchObject({ droplet: { id: ids[0], status: 'new' }, ageMs: 0 });
    expect(requests()).toEqual({ [SINGLE]: 1 });
  });

  test('a droplet that was seen active is known to whoever looks next, in any worker, for a moment', async () => {
    const { ids, worker, requests } = await stage(shared, { droplets: 1, activateAfterMs: 0 });
    await worker().observe(ids[0] ?? 0, recent);
    const look = await worker().observe(ids[0] ?? 0, recent);
    expect(look.droplet).toMatchObject({ status: 'active', networks: { v4: expect.arrayContaining([expect.objectContaining({ type: 'public' })]) } });
    expect(requests()[SINGLE]).toBe(1);
    expect((await worker().observe(ids[0] ?? 0, { wave: WAVE, maxAgeMs: 0 })).ageMs).toBe(0);
    expect(requests()[SINGLE]).toBe(2);
  });

  test('a droplet that the list does not show is read by itself: its tag may be late, and it may be gone', async () => {
    const { sandbox, ids, worker, requests } = await stage(shared, { droplets: 5 });
    const [late = 0, gone = 0] = ids;
    sandbox.editDroplet(late, { tags: [] });
    sandbox.editDroplet(gone, { vanish: true });
    const one = worker();
    // All but the first are batching while that is on its way.
    const looks = await Promise.all(ids.toReversed().map((id) => one.observe(id, recent)));
    expect(looks.map(({ droplet }) => droplet?.id ?? null)).toEqual([...ids.slice(2).toReversed(), null, late]);
    expect(looks.at(-2)).toEqual({ droplet: null, ageMs: 0 });
    expect(requests()[LIST]).toBe(1);
  });

  test('a list that cannot be read fails nobody for good: the droplets are read one by one', async () => {
    const { sandbox, ids, worker, requests } = await stage(shared, { droplets: 5 });
    sandbox.setFaults({ rules: [{ match: { path: '/v2/droplets', tag: WAVE }, effect: { truncate: true } }] });
    const one = worker();
    const looks = await Promise.all(ids.map((id) => one.observe(id, recent)));
    expect(looks.map(({ droplet }) => droplet?.id)).toEqual(ids);
    expect(requests()[SINGLE]).toBe(5);
  });

  test('what a list has shown before the limit was used up is seen all the same', async () => {
    const asked: string[] = [];
    const budget: RequestBudget = {
      ...unlimitedBudget,
      draw: async (priority) => {
        asked.push(priority);
        return priority === 'page' ? Promise.reject(usedUp) : Promise.resolve(uncounted);
      },
    };
    const { ids, worker } = await stage(shared, { droplets: 202, budget });
    const one = worker();
    const looks = await Promise.allSettled(ids.map((id) => one.observe(id, recent)));
    // The first looks alone, and those after it together.
    expect(asked).toEqual(['read', 'read', 'page']);
    const seen = looks.filter(({ status }) => status === 'fulfilled').length;
    expect([200, 201]).toContain(seen);
  });

  test('a limit that is used up is told to all who wait for the list', async () => {
    const { sandbox, ids, worker } = await stage(shared, { droplets: 5 });
    sandbox.setFaults({ rules: [{ match: { method: 'GET' }, effect: { retryAfterS: 7 } }] });
    const one = worker();
    const looks = await Promise.allSettled(ids.map((id) => one.observe(id, recent)));
    expect(looks.map((look) => look.status === 'rejected' && look.reason)).toEqual(ids.map(() => expect.objectContaining({ kind: 'throttled', retryAfterMs: 7_000 })));
  });
});

describe.each(Object.entries(stores))('without request budget, by way of %s', (_name, createShared) => {
  test('what a list showed is recalled by whoever polls later, without a request; what nobody saw is not', async () => {
    const { sandbox, ids, worker, requests } = await stage(createShared, { droplets: 5, activateAfterMs: 0 });
    const one = worker();
    expect(await one.recall(ids[0] ?? 0)).toBeNull();
    await Promise.all(ids.slice(1).map((id) => one.observe(id, recent)));
    expect(requests()[LIST]).toBe(1);
    sandbox.clearLedger();
    // The list showed the first droplet as well, for which nobody had asked.
    expect(await worker().recall(ids[0] ?? 0)).toMatchObject({ droplet: { id: ids[0], status: 'active' } });
    expect(await worker().recall(4_711)).toBeNull();
    expect(requests()).toEqual({});
  });

  test('a few droplets whose polls are far apart are read by one list, not one by one', async () => {
    const { ids, worker, requests } = await stage(createShared, { droplets: 3, intervalMs: 10 });
    const one = worker();
    const hurried = { wave: WAVE, maxAgeMs: 1 };
    for (const id of ids) {
      await one.observe(id, hurried);
      await sleep(30);
    }
    expect(requests()).toEqual({ [SINGLE]: 1, [LIST]: 2 });
  });
});

describe.each(Object.entries(stores))('what %s keeps of a read', (_name, createShared) => {
  test('is as old as the request, not as its answer: of one droplet, and of a list', async () => {
    for (const droplets of [1, 4]) {
      const { sandbox, ids, worker, requests } = await stage(createShared, { droplets, activateAfterMs: 0 });
      sandbox.setFaults({ rules: [{ match: { method: 'GET' }, effect: { holdAnswerMs: 300 } }] });
      const one = worker();
      // All but the first are batching while that is on its way.
      const looks = await Promise.all(ids.map((id) => one.observe(id, recent)));
      for (const { ageMs } of looks.slice(1)) expect(ageMs).toBeGreaterThanOrEqual(290);
      sandbox.resetFaults();
      const last = ids.at(-1) ?? 0;
      const sent = () => Object.values(requests()).reduce((sum, count) => sum + count, 0);
      const before = sent();
      expect((await worker().observe(last, { wave: null, maxAgeMs: 60_000 })).ageMs).toBeGreaterThanOrEqual(290);
      expect(sent()).toBe(before);
      expect((await worker().observe(last, { wave: null, maxAgeMs: 250 })).ageMs).toBe(0);
      expect(sent()).toBe(before + 1);
    }
  });
});

describe.each(Object.entries(stores))('the list of a wave, by way of %s', (_name, createShared) => {
  const wanted = [1, 2, 3, 4, 5].map((dropletId) => ({ dropletId, maxAgeMs: 1_000 }));
  const entries = wanted.map(({ dropletId }) => ({ id: dropletId, status: 'new', sealed: 'sealed' }));

  /** Workers that ask one store how to see the droplets of a wave. */
  function workers() {
    const scope = `scope-${(scopes += 1)}`;
    return (holder: string) => {
      const shared = createShared(scope);
      return {
        ask: async (leaseMs = 60_000) => (await shared.observe(WAVE, wanted, { intervalMs: 5_000, leaseMs, holder })).way,
        giveBack: async (pages: number, tookMs: number, shown: readonly SealedDroplet[] = []) => shared.save(WAVE, shown, { tookMs, keepMs: 60_000, list: { pages, holder } }),
      };
    };
  }

  test('is read by one worker at a time, who may be late: nobody gives back the lease of another', async () => {
    const worker = workers();
    const [dead, one, two] = [worker('dead'), worker('one'), worker('two')];
    expect(await dead.ask(50)).toBe('list');
    await waitFor(async () => (await one.ask()) === 'list', { what: 'the lease of the dead worker to run out', everyMs: 10 });
    expect(await two.ask()).toBe('busy');
    await dead.giveBack(0, 0);
    expect(await two.ask()).toBe('busy');
    await one.giveBack(0, 0);
    expect(await two.ask()).toBe('list');
  });

  test('is as old as its first request: a moment later nobody reads it anew, and after that somebody does', async () => {
    const one = workers()('one');
    expect(await one.ask()).toBe('list');
    await one.giveBack(1, 0);
    expect(await one.ask()).toBe('single');
    const other = workers()('other');
    expect(await other.ask()).toBe('list');
    await other.giveBack(1, 5_000, entries);
    expect(await other.ask()).toBe('list');
  });
});

const ipOf = (droplet: { networks: { v4: readonly { ip_address: string; type: string }[] } | null } | null) => droplet?.networks?.v4.find(({ type }) => type === 'public')?.ip_address;

describe.each(Object.entries(stores))('what stands in %s and the fleet did not sign', (_name, createShared) => {
  /** A worker that leaves what it saw in `shared`, and what it left there. */
  async function seenActive() {
    const left: SealedDroplet[] = [];
    const recording = (scope: string): SharedObservations => {
      const shared = createShared(scope);
      return { ...shared, save: async (wave, entries, read) => (left.push(...entries), shared.save(wave, entries, read)) };
    };
    const { ids, worker, requests } = await stage(recording, { droplets: 2, activateAfterMs: 0 });
    for (const id of ids) await worker().observe(id, { wave: null, maxAgeMs: 1_000 });
    const shared = createShared(`scope-${scopes}`);
    const plant = async (entry: SealedDroplet) => shared.save(null, [entry], { tookMs: 0, keepMs: 60_000, list: null });
    return { ids, worker, requests, plant, left };
  }

  test.each([
    ['another address', (text: string) => text.replace('198.18.', '203.0.')],
    ['no signature', (text: string) => text.replace(/^.*?\.[0-9a-f]{64}\./, '')],
    ['a later time', (text: string) => text.replace(/^\d+/, (at) => String(Number(at) + 50))],
    ['a time in the future', (text: string) => text.replace(/^\d+/, (at) => String(Number(at) + 3_600_000))],
    ['no droplet', () => 'nonsense'],
  ])('was not seen: %s', async (_what, change) => {
    const { ids, worker, requests, plant, left } = await seenActive();
    const [entry] = left;
    if (entry === undefined) throw new Error('nothing was left');
    const planted = change(entry.sealed);
    expect(planted).not.toBe(entry.sealed);
    await plant({ ...entry, sealed: planted });
    const before = requests()[SINGLE] ?? 0;
    expect(ipOf((await worker().observe(ids[0] ?? 0, { wave: null, maxAgeMs: 1_000 })).droplet)).toMatch(/^198\.18\./);
    expect(requests()[SINGLE]).toBe(before + 1);
  });

  test("was not seen: another droplet's observation, and an old one that stands there as new", async () => {
    const { ids, worker, requests, plant, left } = await seenActive();
    const [first, second] = left;
    if (first === undefined || second === undefined) throw new Error('nothing was left');
    await plant({ ...first, sealed: second.sealed });
    const before = requests()[SINGLE] ?? 0;
    expect((await worker().observe(ids[0] ?? 0, { wave: null, maxAgeMs: 1_000 })).droplet?.id).toBe(ids[0]);
    expect(requests()[SINGLE]).toBe(before + 1);
    await sleep(60);
    await plant(second);
    expect((await worker().observe(ids[1] ?? 0, { wave: null, maxAgeMs: 50 })).ageMs).toBe(0);
    expect(requests()[SINGLE]).toBe(before + 2);
  });
});

test('nothing that Redis keeps of a wave stays for ever, also when droplets are looked for that were just seen active', async () => {
  const { ids, worker } = await stage(stores.redis, { droplets: 3, activateAfterMs: 0 });
  for (let round = 0; round < 2; round += 1) await Promise.all(ids.map((id) => worker().observe(id, recent)));
  const keys = await redis.keys(`${place.prefix}:seen:scope-${scopes}:*`);
  expect(keys.length).toBeGreaterThan(ids.length);
  for (const key of keys) expect([key, await redis.pttl(key)]).toEqual([key, expect.toSatisfy((ttl: number) => ttl > 0)]);
});

test('a time in the future keeps nothing fresh in Redis, whoever wrote it', async () => {
  const { ids, worker, requests } = await stage(stores.redis, { droplets: 1, activateAfterMs: 0 });
  await worker().observe(ids[0] ?? 0, recent);
  const key = `${place.prefix}:seen:scope-${scopes}:${ids[0]}`;
  const left = (await redis.get(key)) ?? '';
  await redis.set(key, `${String(Date.now() + 3_600_000).padStart(13, '0')}${left.slice(13)}`);
  await worker().observe(ids[0] ?? 0, recent);
  expect(requests()[SINGLE]).toBe(2);
});

test('with nothing shared each droplet is read by itself', async () => {
  const { ids, worker, requests } = await stage(() => away, { droplets: 3 });
  const one = worker();
  const looks = await Promise.all(ids.map((id) => one.observe(id, recent)));
  expect(looks.map(({ droplet }) => droplet?.id)).toEqual(ids);
  expect(requests()).toEqual({ [SINGLE]: 3 });
});

test('what stands in the store and is no droplet was not seen', async () => {
  const { ids, worker, requests } = await stage(stores.redis, { droplets: 1 });
  const key = `${place.prefix}:seen:scope-${scopes}:${ids[0]}`;
  await redis.set(key, `${String(Date.now()).padStart(13, '0')}{"id":${ids[0]},"status":"active"}`);
  expect((await worker().observe(ids[0] ?? 0, recent)).droplet?.status).toBe('new');
  expect(requests()[SINGLE]).toBe(1);
});
