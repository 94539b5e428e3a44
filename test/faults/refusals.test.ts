// DigitalOcean refuses what only a person can put right: the token, or one scope of it. What needs it is held by one
// circuit for the whole fleet, everything else goes on, and nobody is asked more often than a probe needs.

import { describe, expect, test } from 'vitest';
import { z } from 'zod';
import { createCircuitStore } from '../../src/do/circuit-store.ts';
import { judgeFleet } from '../../src/fleet/conditions.ts';
import { readFleetFacts } from '../../src/fleet/facts.ts';
import { silentLog } from '../../src/platform/log.ts';
import { watchHolds } from '../../src/saga/holds.ts';
import { createWakeup } from '../../src/saga/wakeup.ts';
import type { ProvisionDropletInput } from '../../src/steps/inputs.ts';
import type { Stage } from '../support/fault-stage.ts';
import { openFaultStage } from '../support/fault-stage.ts';
import { waitFor } from '../support/wait-for.ts';
import { patience } from '../support/patience.ts';

const LONG = { firstMs: 600_000, maxMs: 600_000 };
const QUICK = { firstMs: 200, maxMs: 400 };
const SHORT = { firstMs: 400, maxMs: 3_200 };

const keyed = { ssh_keys: [4711] };
const range = (count: number) => Array.from({ length: count }, (_, at) => at);

const asked = (stage: Stage, since = 0) => stage.sandbox.ledger(since).map(({ method, path, status }) => `${method} ${path} ${String(status)}`);
// A sync of the inventory, half a minute after the start of a worker, reads the list of all droplets.
const askedBySagas = (stage: Stage) => asked(stage).filter((line) => !line.startsWith('GET /v2/droplets '));
const refused = (stage: Stage, status: number) => asked(stage).filter((line) => line.endsWith(String(status)));
const held = async (stage: Stage): Promise<number> =>
  (await stage.db.sql<{ count: number }[]>`select count(*)::int from arcadia.held_sagas held join arcadia.sagas on sagas.id = saga_id and sagas.revision = held.revision and sagas.wake_at is not null`)[0]?.count ?? 0;
const circuits = (stage: Stage) =>
  stage.db.sql<{ cause: string; subject: string | null; probes: number; delayMs: number; isOpen: boolean }[]>`
    select cause, subject, probes, delay_ms, closed_at is null as is_open from arcadia.circuits order by cause`;
const eventCounts = async (stage: Stage): Promise<number> => (await stage.db.sql<{ count: number }[]>`select count(*)::int from arcadia.saga_events`)[0]?.count ?? 0;

/** Sagas whose key may not be read, all of them held. */
async function holdKeyed(stage: Stage, count: number): Promise<string[]> {
  stage.sandbox.setFaults({ forbiddenFields: ['ssh_keys'] });
  const ids = await Promise.all(range(count).map((at) => stage.provision(`keyed-${at}`, keyed)));
  await waitFor(async () => (await held(stage)) === count, { what: `${count} sagas to be held` });
  return ids;
}

describe('a scope that is missing', () => {
  test('holds only what needs it: a saga beside 40 held ones takes no longer than alone, and held ones ask and write nothing', async () => {
    await using stage = await openFaultStage({ sandbox: { activateAfterMs: 0 } });
    await stage.work({ probes: LONG, settings: { DIGITALOCEAN_REQUESTS_PER_MINUTE: '120' } });
    await holdKeyed(stage, 20);
    const events = await eventCounts(stage);
    const requests = askedBySagas(stage).length;
    // None of these is even tried.
    const late = await Promise.all(range(20).map((at) => stage.provision(`late-${at}`, keyed)));
    await waitFor(async () => (await held(stage)) === 40, { what: 'all to be held' });
    for (const id of late) {
      const saga = await stage.client.get(id);
      expect(saga?.context['create_intents']).toBeUndefined();
    }
    expect(askedBySagas(stage)).toHaveLength(requests);
    const startedAt = performance.now();
    const healthy = await stage.provision('healthy');
    await stage.until(healthy, 'completed', ({ status }) => status === 'completed');
    expect(performance.now() - startedAt).toBeLessThan(3_000 * patience());
    // Deletions and looks at what is there need another scope.
    const droplet = (await stage.client.get(healthy))?.context['droplet_id'];
    const destroy = await stage.client.destroyDroplet(Number(droplet));
    await stage.until(destroy.sagaId, 'completed', ({ status }) => status === 'completed');
    expect(refused(stage, 403).length).toBeLessThanOrEqual(20);
    // Started and no more: two events for each that came late, and what the healthy ones wrote.
    const written = await stage.db.sql`
      select kind from arcadia.saga_events event join arcadia.sagas on sagas.id = saga_id where sagas.input->>'name' like 'late-%' and kind not in ('saga_created', 'saga_started')`;
    expect(written).toHaveLength(0);
    expect(events).toBeGreaterThan(0);
    expect(await circuits(stage)).toMatchObject([{ cause: '403 POST /v2/droplets ssh_keys', subject: null, isOpen: true }]);
  });

  test('lets everything go on at once when one probe succeeds', async () => {
    await using stage = await openFaultStage({ sandbox: { activateAfterMs: 0 } });
    await stage.work({ probes: SHORT });
    const ids = await holdKeyed(stage, 21);
    const before = refused(stage, 403).length;
    await waitFor(async () => ((await circuits(stage))[0]?.probes ?? 0) >= 2, { what: 'two probes' });
    // One saga is the probe, not each of them.
    expect(refused(stage, 403).length - before).toBeLessThanOrEqual(3);
    stage.sandbox.setFaults({ forbiddenFields: [] });
    await waitFor(async () => (await circuits(stage))[0]?.isOpen === false, { what: 'the circuit to close', deadlineMs: 10_000 });
    const closedAt = performance.now();
    for (const id of ids) await stage.until(id, 'completed', ({ status }) => status === 'completed');
    expect(performance.now() - closedAt).toBeLessThan(4_000 * patience());
    expect(await held(stage)).toBe(0);
    await stage.expectLawful();
  });

  test('is named in the log, and in what the saga waits for', async () => {
    await using stage = await openFaultStage();
    const { log } = await stage.work({ probes: LONG });
    await holdKeyed(stage, 2);
    const reasons = log.filter(({ msg }) => msg === 'not yet').map((line) => String(line['reason']));
    expect(reasons).not.toEqual([]);
    for (const reason of reasons) expect(reason).toContain('lacks the scope ssh_key:read');
    expect(log).toContainEqual(expect.objectContaining({ level: 'error', cause: '403 POST /v2/droplets ssh_keys', scopes: ['ssh_key:read'] }));
  });

  test('a refusal of one droplet alone holds nobody else', async () => {
    await using stage = await openFaultStage({ sandbox: { activateAfterMs: 0 } });
    await stage.work({ probes: LONG });
    stage.sandbox.setFaults({ rules: [{ match: { method: 'POST', name: 'odd' }, effect: { status: 403 } }] });
    const odd = await stage.provision('odd');
    await waitFor(async () => (await held(stage)) === 1, { what: 'it to be held' });
    const other = await stage.provision('other');
    await stage.until(other, 'completed', ({ status }) => status === 'completed');
    expect((await stage.client.get(odd))?.status).toBe('running');
  });

  test('holds rollbacks whose deletion is refused, and no create beside them', async () => {
    await using stage = await openFaultStage({ sandbox: { activateAfterMs: 0, faults: { neverActive: true } } });
    await stage.work({ probes: SHORT });
    const ids = await Promise.all(range(5).map((at) => stage.provision(`web-${at}`)));
    for (const id of ids) await stage.until(id, 'waiting', ({ cursor }) => cursor === 1);
    stage.sandbox.setFaults({ rules: [{ match: { method: 'DELETE' }, effect: { status: 403 } }] });
    for (const id of ids) await stage.client.cancel(id, 'test');
    await waitFor(async () => (await circuits(stage)).some(({ cause, subject, probes }) => cause === '403 DELETE /v2/droplets/{id}' && subject === null && probes >= 2), { what: 'the circuit of deletions' });
    expect(refused(stage, 403).length).toBeLessThanOrEqual(9);
    stage.sandbox.setFaults({ neverActive: false });
    await stage.until(await stage.provision('beside'), 'completed', ({ status }) => status === 'completed');
    for (const id of ids) expect(await stage.client.get(id)).toMatchObject({ status: 'compensating', attempt: 0 });
    stage.sandbox.setFaults({ rules: [] });
    for (const id of ids) await stage.until(id, 'rolled back', ({ status }) => status === 'compensated');
    await stage.expectLawful();
  });
});

/** What a token may not do, and sagas that need it. */
const scopes = [
  { refused: 'POST /v2/droplets', path: '^/v2/droplets$', probe: ['POST /v2/droplets 403'], start: provisionSome },
  { refused: 'GET /v2/projects', path: '^/v2/projects$', probe: ['GET /v2/projects 403'], start: (stage: Stage) => provisionSome(stage, { project: 'default' }) },
  { refused: 'GET /v2/account/keys', path: '^/v2/account/keys$', probe: ['GET /v2/account/keys 403'], start: (stage: Stage) => provisionSome(stage, { ssh_keys: ['laptop'] }) },
  { refused: 'GET /v2/droplets/{id}', path: '^/v2/droplets/', probe: ['GET /v2/droplets/{id} 403'], start: destroySome },
  { refused: 'DELETE /v2/droplets/{id}', path: '^/v2/droplets', probe: ['GET /v2/droplets/{id} 200', 'DELETE /v2/droplets/{id} 403'], start: destroySome },
  { refused: 'POST /v2/tags', path: '^/v2/tags$', probe: ['GET /v2/droplets/{id} 200', 'POST /v2/tags 403'], start: adoptSome },
  { refused: 'POST /v2/tags/{name}/resources', path: '^/v2/tags/', probe: ['POST /v2/tags/managed-by-arcadia-cloud/resources 403'], start: adoptSome },
];

const SOME = 6;

async function provisionSome(stage: Stage, more: Partial<ProvisionDropletInput> = {}) {
  return () => Promise.all(range(SOME).map((at) => stage.provision(`web-${at}`, more)));
}

async function destroySome(stage: Stage) {
  const made = await (await provisionSome(stage))();
  const droplets: number[] = [];
  for (const id of made) droplets.push(Number((await stage.until(id, 'completed', ({ status }) => status === 'completed')).context['droplet_id']));
  return () => Promise.all(droplets.map(async (id) => (await stage.client.destroyDroplet(id)).sagaId));
}

async function adoptSome(stage: Stage) {
  const droplets = await Promise.all(range(SOME).map((at) => createElsewhere(stage, `elsewhere-${at}`)));
  return () => Promise.all(droplets.map(async (id) => (await stage.client.adoptDroplet(id)).sagaId));
}

/** Somebody else creates a droplet in the account. */
async function createElsewhere(stage: Stage, name: string): Promise<number> {
  const body = JSON.stringify({ name, region: 'fra1', size: 's-1vcpu-1gb', image: 'debian-12-x64' });
  const response = await fetch(`${stage.sandbox.url}/v2/droplets`, { method: 'POST', headers: { authorization: 'Bearer sandbox', 'content-type': 'application/json' }, body });
  return created.parse(await response.json()).droplet.id;
}

const created = z.object({ droplet: z.object({ id: z.number() }) });

const probesOf = async (stage: Stage): Promise<number> => (await circuits(stage)).reduce((sum, { isOpen, probes }) => sum + (isOpen ? probes : 0), 0);

describe.each(['redis', 'postgres'] as const)('with queues in %s, sagas that are held', (store) => {
  test.each(scopes)('by a refused $refused share one probe, write no event, and end once it is over', async ({ refused: request, path, probe, start }) => {
    await using stage = await openFaultStage({ sandbox: { activateAfterMs: 0 }, ...(store === 'redis' ? {} : { redisUrl: null }) });
    await Promise.all([stage.work({ probes: QUICK }), stage.work({ probes: QUICK })]);
    const startAll = await start(stage);
    stage.sandbox.setFaults({ rules: [{ match: { method: methodOf(request), path }, effect: { status: 403 } }] });
    await startAll();
    await waitFor(async () => (await held(stage)) === SOME && (await probesOf(stage)) >= 1, { what: 'all to be held' });
    const [events, since, probes] = [await eventCounts(stage), stage.sandbox.ledger().length, await probesOf(stage)];
    await waitFor(async () => (await probesOf(stage)) >= probes + 4, { what: 'four more probes' });
    const sent = asked(stage, since).map((line) => line.replace(/\/\d+/, '/{id}'));
    expect(new Set(sent)).toEqual(new Set(probe));
    // One probe may be under way at each end.
    expect(sent.length).toBeLessThanOrEqual(((await probesOf(stage)) - probes + 2) * probe.length);
    expect(await eventCounts(stage)).toBe(events);
    stage.sandbox.setFaults({ rules: [] });
    const openedAt = performance.now();
    await stage.atRest();
    expect(performance.now() - openedAt).toBeLessThan(6_000 * patience());
    await waitFor(async () => (await held(stage)) === 0, { what: 'nobody to be held any more' });
  });
});

function methodOf(request: string): 'GET' | 'POST' | 'DELETE' {
  const [method] = request.split(' ');
  return z.enum(['GET', 'POST', 'DELETE']).parse(method);
}

const createsAnswered = (stage: Stage, status: number) => stage.sandbox.ledger().filter((entry) => entry.method === 'POST' && entry.path === '/v2/droplets' && entry.status === status).length;
const waitsForRoom = { settings: { DIGITALOCEAN_WHEN_FULL: 'wait' } } as const;
const fleetStatus = async (stage: Stage) => judgeFleet({ postgres: await readFleetFacts(stage.db), queues: { paused: [], stalled: [] }, usersFile: null }, { reconcileIntervalMs: 500, inventorySyncIntervalMs: null }, new Date());

describe('a full account', () => {
  test.each(['redis', 'postgres'] as const)('holds creates, which then go one after the other, as many as there is room for: queues in %s', async (store) => {
    await using stage = await openFaultStage({ sandbox: { activateAfterMs: 0 }, ...waitsForRoom, ...(store === 'redis' ? {} : { redisUrl: null }) });
    await stage.work({ probes: QUICK });
    stage.sandbox.setFaults({ dropletLimit: 1 });
    await stage.until(await stage.provision('first'), 'completed', ({ status: is }) => is === 'completed');
    const second = await stage.provision('second');
    await waitFor(async () => (await held(stage)) === 1, { what: 'the second to be held' });
    await Promise.all(range(20).map((at) => stage.provision(`web-${at}`)));
    await waitFor(async () => (await held(stage)) === 21, { what: 'all to be held' });
    expect(createsAnswered(stage, 422)).toBe(1);
    const [events, probes] = [await eventCounts(stage), await probesOf(stage)];
    await waitFor(async () => (await probesOf(stage)) >= probes + 4, { what: 'four more probes' });
    expect([await eventCounts(stage), createsAnswered(stage, 422)]).toEqual([events, 1]);
    expect((await fleetStatus(stage)).conditions).toMatchObject([{ name: 'account_full', count: 21, title: 'The DigitalOcean account is full', since: expect.any(Date), until: expect.any(Date) }]);
    stage.sandbox.setFaults({ dropletLimit: 4 });
    await waitFor(async () => (await held(stage)) <= 18, { what: 'three to go on' });
    await stage.until(second, 'completed', ({ status: is }) => is === 'completed');
    await waitFor(() => stage.sandbox.state({ alive: true }).length === 4, { what: 'the account to be full again' });
    const seen = await probesOf(stage);
    await waitFor(async () => (await probesOf(stage)) > seen, { what: 'the next probe' });
    // Those that found no room any more: no more than one each time it was filled.
    expect(createsAnswered(stage, 422)).toBeLessThanOrEqual(2);
    stage.sandbox.setFaults({ dropletLimit: 1_000 });
    const ends = await stage.atRest();
    expect(ends.map(({ status: is }) => is)).toEqual(range(22).map(() => 'completed'));
    expect(createsAnswered(stage, 422)).toBeLessThanOrEqual(2);
    await waitFor(async () => (await circuits(stage)).every(({ isOpen }) => !isOpen), { what: 'the circuit to close', deadlineMs: 15_000 });
    await stage.expectLawful();
  });

  test('has room for the next one as soon as a droplet is destroyed, however late the next probe is', async () => {
    await using stage = await openFaultStage({ sandbox: { activateAfterMs: 0 }, ...waitsForRoom });
    await stage.work({ probes: LONG });
    stage.sandbox.setFaults({ dropletLimit: 1 });
    const droplet = (await stage.until(await stage.provision('first'), 'completed', ({ status: is }) => is === 'completed')).context['droplet_id'];
    const next = await stage.provision('next');
    await waitFor(async () => (await held(stage)) === 1, { what: 'the next to be held' });
    await stage.client.destroyDroplet(Number(droplet));
    expect((await stage.until(next, 'completed', ({ status: is }) => is === 'completed')).context['droplet_id']).not.toBe(droplet);
  });

  test('fails creates at once unless they are to wait', async () => {
    await using stage = await openFaultStage({ sandbox: { activateAfterMs: 0, faults: { dropletLimit: 0 } } });
    await stage.work({ probes: LONG });
    const saga = await stage.until(await stage.provision('web-1'), 'rolled back', ({ status: is }) => is === 'compensated');
    expect(saga.error?.message).toContain('will exceed your droplet limit');
    expect(await circuits(stage)).toEqual([]);
  });
});

describe('circuits', () => {
  test('are not probed more often because workers start again and again', async () => {
    await using stage = await openFaultStage();
    const store = createCircuitStore(stage.db, 'scope', { firstMs: 15_000, maxMs: 300_000 });
    const refusal = { cause: '403 GET /v2/x', kind: 'request_refused', request: 'GET /v2/x', fields: [], subject: null, detail: {} } as const;
    const circuit = await store.refuse({ ...refusal, lease: null });
    const nextProbeMs = async () => (await store.listOpen())[0]?.probeInMs ?? 0;
    // The last probe was just now.
    await store.hurry();
    expect(await nextProbeMs()).toBeGreaterThan(10_000);
    await stage.db.sql`update arcadia.circuits set delay_ms = 300000, next_probe_at = clock_timestamp() + interval '200 seconds' where id = ${circuit.id}`;
    await store.hurry();
    expect(await nextProbeMs()).toBeLessThanOrEqual(0);
  });

  test('are no condition any more once the last saga that waited is cancelled, and open again for the next one', async () => {
    await using stage = await openFaultStage({ sandbox: { activateAfterMs: 0 } });
    await stage.work({ probes: SHORT });
    const [id = ''] = await holdKeyed(stage, 1);
    // A request that no saga waits for: it is probed when it is sent again.
    const [{ scope } = { scope: '' }] = await stage.db.sql<{ scope: string }[]>`select scope from arcadia.circuits`;
    const listed = await createCircuitStore(stage.db, scope, SHORT).refuse({ cause: '403 GET /v2/x', kind: 'request_refused', request: 'GET /v2/x', fields: [], subject: null, detail: {}, lease: null });
    await stage.client.cancel(id, 'test');
    const refusals = async () => (await readFleetFacts(stage.db)).refused.map(({ request }) => request);
    await waitFor(async () => !(await refusals()).includes('POST /v2/droplets'), { what: 'the circuit to close', deadlineMs: 15_000 });
    const nextId = await stage.provision('next', keyed);
    await waitFor(async () => (await held(stage)) === 1, { what: 'the next to be held' });
    expect(await refusals()).toEqual(expect.arrayContaining(['POST /v2/droplets', 'GET /v2/x']));
    expect(await stage.db.sql`select 1 from arcadia.circuits where id = ${listed.id} and closed_at is null and next_probe_at < clock_timestamp()`).toHaveLength(1);
    stage.sandbox.setFaults({ forbiddenFields: [] });
    await stage.until(nextId, 'completed', ({ status }) => status === 'completed');
    await stage.expectLawful();
  });

  test('wake a saga later that was busy when its circuit closed', async () => {
    await using stage = await openFaultStage();
    const id = await stage.provision('web-1');
    const saga = await stage.until(id, 'there', () => true);
    const stopping = new AbortController();
    const waiting = [{ saga, circuit: 'closed' }];
    let looks = 0;
    await watchHolds({
      holds: { put: async () => Promise.resolve(true), listReleased: () => Promise.resolve([...waiting]), pick: () => Promise.resolve(null), forgetGoneOn: () => Promise.resolve(0), forget: (released) => Promise.resolve(void waiting.splice(0, released.length)).then(() => stopping.abort()) },
      circuits: { refresh: () => Promise.resolve(), isAnyOpen: () => true, takeDue: () => Promise.resolve([]), probe: () => Promise.resolve(), maySagaProbe: () => Promise.resolve(false), nobodyWaits: () => Promise.resolve(), prune: () => Promise.resolve() },
      wake: () => Promise.resolve(++looks <= 25 ? 'busy' : 'woken'),
      wakeup: createWakeup(),
      signal: AbortSignal.any([stopping.signal, AbortSignal.timeout(30_000)]),
      log: silentLog,
    });
    expect([waiting, looks]).toEqual([[], 26]);
  });
});

describe('a refused token', () => {
  test('holds everything, is probed by requests for the account alone, and lets everything go on at once', async () => {
    await using stage = await openFaultStage({ sandbox: { activateAfterMs: 0, faults: { neverActive: true } } });
    await stage.work({ probes: SHORT });
    const waiting = await Promise.all(range(10).map((at) => stage.provision(`early-${at}`)));
    for (const id of waiting) await stage.until(id, 'waiting', ({ cursor }) => cursor === 1);
    stage.sandbox.setFaults({ unauthorized: true });
    await waitFor(async () => (await circuits(stage)).length > 0, { what: 'the circuit' });
    await stage.client.cancel(waiting[0] ?? '', 'test');
    const late = await Promise.all(range(11).map((at) => stage.provision(`late-${at}`)));
    await waitFor(async () => (await held(stage)) === 21, { what: 'all to be held' });
    const events = await eventCounts(stage);
    const { length: since } = stage.sandbox.ledger();
    const firstProbes = (await circuits(stage))[0]?.probes ?? 0;
    await waitFor(async () => ((await circuits(stage))[0]?.probes ?? 0) >= firstProbes + 2, { what: 'two more probes', deadlineMs: 20_000 });
    expect(new Set(asked(stage).slice(since))).toEqual(new Set(['GET /v2/account 401']));
    expect(asked(stage).slice(since).length).toBeLessThanOrEqual(4);
    expect(await eventCounts(stage)).toBe(events);
    stage.sandbox.setFaults({ unauthorized: false, neverActive: false });
    await waitFor(async () => (await circuits(stage))[0]?.isOpen === false, { what: 'the circuit to close', deadlineMs: 10_000 });
    const closedAt = performance.now();
    const sagas = await stage.atRest();
    expect(performance.now() - closedAt).toBeLessThan(4_000 * patience());
    expect(sagas.map(({ status }) => status).toSorted()).toEqual(['compensated', ...range(20).map(() => 'completed')]);
    expect(late).toHaveLength(11);
    await stage.expectLawful();
  });

  test('holds workers that start later too, without a request of theirs; another token holds nobody, and wakes all', async () => {
    await using stage = await openFaultStage({ sandbox: { activateAfterMs: 0 } });
    const first = await stage.work({ probes: LONG });
    stage.sandbox.setFaults({ unauthorized: true });
    const ids = await Promise.all(range(5).map((at) => stage.provision(`web-${at}`)));
    await waitFor(async () => (await held(stage)) === 5, { what: 'all to be held' });
    await first.close();
    stage.sandbox.setFaults({ unauthorized: false });
    const startedAt = performance.now();
    await stage.work({ probes: LONG, settings: { DIGITALOCEAN_TOKEN: 'another' } });
    for (const id of ids) await stage.until(id, 'completed', ({ status }) => status === 'completed');
    expect(performance.now() - startedAt).toBeLessThan(6_000 * patience());
  });

  test('is probed by somebody else when the one that was to probe died', async () => {
    await using stage = await openFaultStage({ sandbox: { activateAfterMs: 0 } });
    await stage.work({ probes: SHORT });
    const ids = await holdKeyed(stage, 3);
    // As a worker leaves it that died between its lease and its request.
    await stage.db.sql`update arcadia.circuits set leased_by = gen_random_uuid(), leased_until = clock_timestamp() + interval '1500 milliseconds', next_probe_at = clock_timestamp()`;
    stage.sandbox.setFaults({ forbiddenFields: [] });
    for (const id of ids) await stage.until(id, 'completed', ({ status }) => status === 'completed');
    // Forgotten right after they were woken.
    expect(await waitFor(async () => (await held(stage)) === 0, { what: 'nobody to be held any more' })).toBe(true);
    await stage.expectLawful();
  });
});
