// Ready means ready, with a whole fleet: machines that answer some time after their droplets are active, on either queue store.
// ARCADIA_READY_SAGAS and ARCADIA_READY_AFTER_MS make it as large as 200 sagas and 30 s.
import { createServer as createHttpServer } from 'node:http';
import { createServer } from 'node:net';
import { setTimeout as delay } from 'node:timers/promises';
import { describe, expect, onTestFinished, test } from 'vitest';
import { web, openFleet } from '../support/fleet.ts';
import type { Fleet, QueueStoreKind } from '../support/fleet.ts';
import { queueStoreKinds } from '../support/topology.ts';
import { loadConfig } from '../../src/platform/config.ts';
import { findPort } from '../../src/dev/free-port.ts';
import { textOf } from '../../src/platform/json.ts';
import { silentLog } from '../../src/platform/log.ts';
import { startWeb } from '../../src/processes/web.ts';
import type { LedgerEntry } from '../../src/sandbox/server.ts';
import { waitFor } from '../support/wait-for.ts';

const SAGAS = Number(process.env['ARCADIA_READY_SAGAS'] ?? 6);
const ANSWERS_AFTER_MS = Number(process.env['ARCADIA_READY_AFTER_MS'] ?? 1_500);
const DEADLINE_MS = 60_000 + 4 * ANSWERS_AFTER_MS;
// On all addresses.
const PORT = (await findPort({ host: '0.0.0.0', port: 0 })) ?? 0;

const names = Array.from({ length: SAGAS }, (_, index) => `web-${index + 1}`);
const isUnderWay = 'running';

// Each create gets its answer, however slow the machine is: one without it would be looked for again and again while droplets are registered.
const patientSettings = { DIGITALOCEAN_TIMEOUT_MS: '20000', WORKER_LOCK_MS: '30000', ADOPTION_GRACE_MS: '60000', READY_PROBE_ALLOW: '127.0.0.0/8' };

async function fleetOf(kind: QueueStoreKind): Promise<Fleet> {
  const fleet = await openFleet(kind, { activateAfterMs: 0, loopbackAddresses: true });
  onTestFinished(() => fleet[Symbol.asyncDispose]());
  await Promise.all([fleet.startWorker(patientSettings), fleet.startWorker(patientSettings)]);
  return fleet;
}

/** What the sagas asked of DigitalOcean: not the syncs, which read the account and its tags at a time of their own. */
function requestsOfSagas({ sandbox }: Fleet) {
  return sandbox.ledger().filter(({ path, query }) => path.startsWith('/v2/droplets') && query['type'] === undefined);
}

/** Has an address take connections. */
async function answerAt(address: string): Promise<number> {
  const server = createServer((socket) => void socket.on('error', () => undefined).end());
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject).listen(PORT, address, resolve);
  });
  onTestFinished(() => void server.close());
  return Date.now();
}

/** Provisions all, and has each machine answer so long after its droplet was active. */
async function provisionAll(fleet: Fleet, more: object) {
  const handles = await Promise.all(names.map((name) => fleet.client.provisionDroplet({ ...web, name, ...more })));
  return handles.map(({ sagaId }) => sagaId);
}

async function activeAt(fleet: Fleet, sagaId: string): Promise<number> {
  const event = await waitFor(async () => (await fleet.client.events(sagaId)).find(({ kind, step }) => kind === 'step_completed' && step === 'wait_droplet_active') ?? false, {
    what: `the droplet of saga ${sagaId} to be active`,
    deadlineMs: DEADLINE_MS,
  });
  return event.at.getTime();
}

/** Waits until a saga is in a step. */
async function reaches(fleet: Fleet, sagaId: string, step: string) {
  return waitFor(async () => {
    const saga = await fleet.client.get(sagaId);
    return saga !== null && saga.steps[saga.cursor] === step && saga;
  }, { what: `saga ${sagaId} to reach ${step}`, deadlineMs: DEADLINE_MS });
}

/** Requests by route, per droplet. */
function perDroplet(requests: readonly LedgerEntry[]): Record<string, number> {
  const byRoute = Map.groupBy(requests, ({ route }) => route);
  return Object.fromEntries([...byRoute].map(([route, { length }]) => [route, length / SAGAS]));
}

function changesOf(requests: readonly LedgerEntry[]): LedgerEntry[] {
  return requests.filter(({ method }) => method !== 'GET');
}

/** Reads since the first deletion. */
function readsAfterDeletions(requests: readonly LedgerEntry[]): number {
  const first = requests.findIndex(({ method }) => method === 'DELETE');
  return requests.slice(first).filter(({ method }) => method === 'GET').length;
}

describe.each(queueStoreKinds())('on %s', (kind) => {
  test('no saga is completed before its machine answers, and no request is spent on waiting for that', { timeout: 5 * DEADLINE_MS }, async () => {
    const fleet = await fleetOf(kind);
    const asked = await provisionAll(fleet, { ready: { tcp: PORT } });
    const activeTimes = await Promise.all(asked.map((sagaId) => activeAt(fleet, sagaId)));
    const answeredAt = await Promise.all(
      asked.map(async (sagaId, index) => {
        const dueAt = (activeTimes[index] ?? 0) + ANSWERS_AFTER_MS;
        await waitFor(() => Date.now() >= dueAt, { what: 'the machine to be up', deadlineMs: DEADLINE_MS });
        const saga = await fleet.client.get(sagaId);
        expect(saga?.status).toBe(isUnderWay);
        return answerAt(textOf(saga?.context['public_ipv4']));
      }),
    );
    const sagas = await Promise.all(asked.map((sagaId) => fleet.atRest(sagaId, DEADLINE_MS)));
    expect(sagas.map(({ status }) => status)).toEqual(names.map(() => 'completed'));
    // Both clocks are this machine's.
    expect(sagas.filter(({ finishedAt }, index) => (finishedAt?.getTime() ?? 0) < (answeredAt[index] ?? 0) - 50)).toEqual([]);
    // How often a droplet is polled until it is active depends on the machine. From then on it is read once at most, to be registered.
    // A read with each check would be many times that.
    const lastActiveAt = Math.max(...activeTimes);
    const afterwards = requestsOfSagas(fleet).filter(({ at }) => at > lastActiveAt + 50);
    expect(afterwards.length, `afterwards: ${JSON.stringify(afterwards.map(({ method, path, query }) => ({ method, path, query })))}`).toBeLessThanOrEqual(SAGAS);
  });

  test('machines that never answer: all rolled back, with what was seen, and nothing is left', { timeout: 3 * DEADLINE_MS }, async () => {
    const fleet = await fleetOf(kind);
    const asked = await provisionAll(fleet, { ready: { tcp: PORT, within_s: 1 } });
    const sagas = await Promise.all(asked.map((sagaId) => fleet.atRest(sagaId, DEADLINE_MS)));
    expect(sagas.map(({ status, error }) => [status, error?.code])).toEqual(names.map(() => ['compensated', 'droplet_not_ready']));
    expect(sagas.map(({ error }) => error?.message ?? '').filter((message) => !message.includes(`port ${PORT} of 127.`) || !message.includes('connection refused'))).toEqual([]);
    expect(fleet.sandbox.state({ alive: true })).toEqual([]);
  });

  test('machines whose user data fails: all rolled back with their last lines, nothing is left, and no request more than without readiness', { timeout: 6 * DEADLINE_MS }, async () => {
    const fleet = await openFleet(kind, { activateAfterMs: 3_600_000 });
    onTestFinished(() => fleet[Symbol.asyncDispose]());
    const reports = await startWeb(loadConfig(fleet.environment({ PORT: '0', DASHBOARD_USER: 'ada', DASHBOARD_PASSWORD: 'a password of the test' })), silentLog);
    onTestFinished(reports.close);
    const settings = { ...patientSettings, PUBLIC_URL: reports.url };
    await Promise.all([fleet.startWorker(settings), fleet.startWorker(settings)]);

    // Without readiness: each is rolled back while it waits for its droplet to become active.
    const others = await provisionAll(fleet, {});
    await Promise.all(others.map((sagaId) => reaches(fleet, sagaId, 'wait_droplet_active')));
    await Promise.all(others.map((sagaId) => fleet.client.cancel(sagaId, 'test')));
    await Promise.all(others.map((sagaId) => fleet.atRest(sagaId, DEADLINE_MS)));
    const without = requestsOfSagas(fleet);

    fleet.sandbox.clearLedger();
    fleet.sandbox.setFaults({ activateAfterMs: 0 });
    const asked = await provisionAll(fleet, { ready: { callback: true }, user_data: '#!/bin/sh\nexit 1\n' });
    const waiting = await Promise.all(asked.map((sagaId) => reaches(fleet, sagaId, 'wait_droplet_ready')));
    const active = requestsOfSagas(fleet).length;
    await delay(ANSWERS_AFTER_MS);
    expect(requestsOfSagas(fleet).slice(active)).toEqual([]);
    const answers = await Promise.all(
      waiting.map(async ({ input, context }) => {
        const [url = ''] = /http:\/\/[^']+\/v1\/ready\/[\w.-]+(?=')/.exec(fleet.sandbox.userData(Number(context['droplet_id'])) ?? '') ?? [];
        const answer = await fetch(url, { method: 'POST', headers: { 'content-type': 'text/plain' }, body: `failed\nReading package lists...\nE: no package for ${textOf(input['name'])}.\n` });
        return answer.status;
      }),
    );
    expect(new Set(answers)).toEqual(new Set([200]));
    const sagas = await Promise.all(asked.map((sagaId) => fleet.atRest(sagaId, DEADLINE_MS)));
    expect(sagas.map(({ status, error }) => [status, error?.code, error?.message])).toEqual(
      sagas.map(({ context }, index) => ['compensated', 'droplet_not_ready', `droplet ${textOf(context['droplet_id'])} is not ready: it reported that its user data failed. The end of its log: Reading package lists... | E: no package for ${names[index]}.`]),
    );
    expect(fleet.sandbox.state({ alive: true })).toEqual([]);
    expect(await fleet.db.sql`select 1 from arcadia.cloud_provisioned where released_at is null`).toEqual([]);
    const failed = requestsOfSagas(fleet);
    expect([perDroplet(changesOf(failed)), perDroplet(changesOf(without))]).toEqual([{ 'POST /v2/droplets': 1, 'DELETE /v2/droplets/:id': 1 }, { 'POST /v2/droplets': 1, 'DELETE /v2/droplets/:id': 1 }]);
    // How often a droplet is looked for after its deletion depends on the machine, but not on readiness.
    expect(readsAfterDeletions(failed)).toBeLessThanOrEqual(2 * readsAfterDeletions(without) + SAGAS);
  });
});

test('a worker checks few droplets at once, so that those that answer late leave room for other work', { timeout: 3 * DEADLINE_MS }, async () => {
  const fleet = await openFleet('redis', { activateAfterMs: 0, loopbackAddresses: true });
  onTestFinished(() => fleet[Symbol.asyncDispose]());
  let open = 0;
  let mostOpen = 0;
  const slow = createHttpServer((_request, response) => {
    open += 1;
    mostOpen = Math.max(mostOpen, open);
    response.once('close', () => void (open -= 1));
    setTimeout(() => response.end(), 700);
  });
  await new Promise<void>((resolve) => void slow.listen(PORT, '0.0.0.0', resolve));
  onTestFinished(() => void slow.close());
  await fleet.startWorker({ ...patientSettings, WORKER_CONCURRENCY: '10' });
  const asked = await provisionAll(fleet, { ready: { http: { port: PORT } } });
  const sagas = await Promise.all(asked.map((sagaId) => fleet.atRest(sagaId, DEADLINE_MS)));
  expect(sagas.map(({ status }) => status)).toEqual(names.map(() => 'completed'));
  expect(mostOpen).toBe(2);
});
