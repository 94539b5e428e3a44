// Ready means ready, with a whole fleet: machines that answer some time after their droplets are active, on either queue store.
// ARCADIA_READY_SAGAS and ARCADIA_READY_AFTER_MS make it as large as 200 sagas and 30 s.
import { createServer } from 'node:net';
import { describe, expect, onTestFinished, test } from 'vitest';
import { web, openFleet } from '../support/fleet.ts';
import type { Fleet, QueueStoreKind } from '../support/fleet.ts';
import { queueStoreKinds } from '../support/topology.ts';
import { textOf } from '../../src/platform/json.ts';
import { waitFor } from '../support/wait-for.ts';

const SAGAS = Number(process.env['ARCADIA_READY_SAGAS'] ?? 6);
const ANSWERS_AFTER_MS = Number(process.env['ARCADIA_READY_AFTER_MS'] ?? 1_500);
const DEADLINE_MS = 60_000 + 4 * ANSWERS_AFTER_MS;
const PORT = 20_000 + (process.pid % 20_000);

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
    const afterwards = fleet.sandbox.ledger().filter(({ at, path }) => path.startsWith('/v2/droplets') && at > lastActiveAt + 50);
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
});
