// The whole of it: worker processes, Postgres, the queues on either store, and DigitalOcean's sandbox over HTTP.

import { Queue } from 'bullmq';
import { describe, expect, onTestFinished, test } from 'vitest';
import { z } from 'zod';
import type { SandboxOptions } from '../../src/sandbox/server.ts';
import { listInventory } from '../../src/inventory/resources.ts';
import { silentLog } from '../../src/platform/log.ts';
import { openQueueConnection } from '../../src/queues/connection.ts';
import { openFleet, runCommand, web } from '../support/fleet.ts';
import type { Fleet, QueueStoreKind } from '../support/fleet.ts';
import { connectTestRedis } from '../support/services-redis.ts';
import { queueStoreKinds } from '../support/topology.ts';
import { patience } from '../support/patience.ts';
import { waitFor } from '../support/wait-for.ts';

const stores = queueStoreKinds();

const attrsSchema = z.object({ networks: z.object({ v4: z.array(z.object({ ip_address: z.string(), type: z.string() })) }) });

async function fleetOf(kind: QueueStoreKind, options: SandboxOptions = {}): Promise<Fleet> {
  const fleet = await openFleet(kind, options);
  onTestFinished(() => fleet[Symbol.asyncDispose]());
  return fleet;
}

async function getStatus(fleet: Fleet, dropletId: number): Promise<number> {
  const answer = await fetch(`${fleet.sandbox.url}/v2/droplets/${dropletId}`, { headers: { authorization: 'Bearer test' } });
  return answer.status;
}

function alive(fleet: Fleet) {
  return fleet.sandbox.state({ alive: true });
}

function createsOf(fleet: Fleet) {
  return fleet.sandbox.ledger().filter((entry) => entry.method === 'POST');
}

describe.each(stores)('on %s', (kind) => {
  test('two workers share the steps of many sagas: each droplet is created, registered, and destroyed on request', async () => {
    // While an answer is held, a worker with two slots can ask for no third droplet.
    const fleet = await fleetOf(kind, { faults: { neverActive: true, rules: [{ match: { method: 'POST' }, effect: { holdAnswerMs: 500 } }] } });
    const [leaver, heir] = await Promise.all([fleet.startWorker({ WORKER_CONCURRENCY: '2' }), fleet.startWorker({ WORKER_CONCURRENCY: '2' })]);
    const names = Array.from({ length: 12 }, (_, index) => `web-${index + 1}`);
    const handles = await Promise.all(names.map((name) => fleet.client.provisionDroplet({ ...web, name })));
    const creations = async (): Promise<readonly { worker: string }[]> =>
      fleet.db.sql`select worker from arcadia.saga_events where kind = 'step_completed' and step = 'create_droplet'`;
    const creators = await waitFor(async () => (await creations()).length === 12 && creations(), { what: 'twelve droplets' });
    expect(new Set(creators.map(({ worker }) => worker))).toEqual(new Set([leaver.name, heir.name]));

    // A saga is nobody's: the other goes on with those that this one began.
    leaver.signal('SIGTERM');
    expect(await leaver.ended).toEqual({ code: 0, signal: null });
    fleet.sandbox.setFaults({ neverActive: false });
    const sagas = await Promise.all(handles.map(({ sagaId }) => fleet.atRest(sagaId)));
    expect(sagas.map((saga) => saga.status)).toEqual(names.map(() => 'completed'));
    expect([createsOf(fleet).length, alive(fleet).length]).toEqual([12, 12]);
    const steps = await fleet.db.sql<{ step: string; worker: string; count: number }[]>`
      select step, worker, count(*)::int from arcadia.saga_events where kind = 'step_completed' and step <> 'create_droplet' group by step, worker order by step`;
    expect(steps.map(({ worker, count }) => [worker, count])).toEqual([[heir.name, 12], [heir.name, 12]]);
    await fleet.startWorker({ WORKER_CONCURRENCY: '2' });

    const rows = await listInventory(fleet.db);
    expect(rows).toHaveLength(12);
    for (const saga of sagas) {
      const row = rows.find((candidate) => candidate.provisionedBy === `saga:${saga.id}`);
      expect(row).toMatchObject({ status: 'active', deletedAt: null, spec: { size_slug: web.size, region: web.region, image: web.image } });
      expect(Number(row?.providerId)).toBe(saga.context['droplet_id']);
      const address = attrsSchema.parse(row?.attrs).networks.v4.find((network) => network.type === 'public')?.ip_address;
      expect(address).toMatch(/^198\.18\./);
      expect(address).toBe(saga.context['public_ipv4']);
    }

    const destroys = await Promise.all(sagas.map((saga) => fleet.client.destroyDroplet(Number(saga.context['droplet_id']))));
    const destroyed = await Promise.all(destroys.map(({ sagaId }) => fleet.atRest(sagaId)));
    expect(destroyed.map((saga) => saga.status)).toEqual(names.map(() => 'completed'));
    expect((await listInventory(fleet.db)).filter((row) => row.deletedAt === null)).toEqual([]);
    expect(await Promise.all(sagas.map((saga) => getStatus(fleet, Number(saga.context['droplet_id']))))).toEqual(names.map(() => 404));
    expect(alive(fleet)).toEqual([]);
  });

  test('a step that fails for good leaves nothing behind, and the saga says what DigitalOcean said', async () => {
    const fleet = await fleetOf(kind, { dropletLimit: 1 });
    await fleet.startWorker();
    const first = await fleet.atRest((await fleet.client.provisionDroplet(web)).sagaId);
    const refused = await fleet.atRest((await fleet.client.provisionDroplet({ ...web, name: 'one-too-many' })).sagaId);
    expect([first.status, refused.status]).toEqual(['completed', 'compensated']);
    expect(refused.error).toMatchObject({ step: 'create_droplet', code: 'digitalocean_rejected' });
    expect(refused.error?.message).toContain('creating this/these droplet(s) will exceed your droplet limit');
    expect(fleet.sandbox.state({ name: 'one-too-many' })).toEqual([]);
    expect((await listInventory(fleet.db)).map((row) => row.name)).toEqual(['web-1']);
  });

  test('a droplet that never becomes active is destroyed again: no droplet, no row of what was asked for', async () => {
    const fleet = await fleetOf(kind, { faults: { neverActive: true } });
    await fleet.startWorker({ WAIT_POLL_INTERVAL_MS: '100', WAIT_MAX_POLLS: '4' });
    const saga = await fleet.atRest((await fleet.client.provisionDroplet(web)).sagaId);
    expect(saga).toMatchObject({ status: 'compensated', error: { code: 'droplet_not_active', step: 'wait_droplet_active' } });
    expect([createsOf(fleet).length, alive(fleet), await listInventory(fleet.db)]).toEqual([1, [], []]);
  });

  test('a worker that is killed between the POST and the save: another adopts the droplet, with one POST', async () => {
    const fleet = await fleetOf(kind);
    fleet.sandbox.setFaults({ rules: [{ match: { method: 'POST' }, times: 1, effect: { holdAnswerMs: 2_400 } }] });
    const victim = await fleet.startWorker();
    const { sagaId } = await fleet.client.provisionDroplet(web);
    const made = await waitFor(() => alive(fleet)[0], { what: 'the droplet' });
    victim.signal('SIGKILL');
    expect(await victim.ended).toEqual({ code: null, signal: 'SIGKILL' });
    expect((await fleet.client.get(sagaId))?.context).not.toHaveProperty('droplet_id');
    const heir = await fleet.startWorker();
    const saga = await fleet.atRest(sagaId);
    expect(saga).toMatchObject({ status: 'completed', context: { droplet_id: made.id, droplet_origin: 'adopted' } });
    expect([createsOf(fleet).length, alive(fleet).length]).toEqual([1, 1]);
    const adoption = (await fleet.client.events(sagaId)).find((event) => event.kind === 'step_completed');
    expect(adoption).toMatchObject({ step: 'create_droplet', worker: heir.name });
  });

  test('waiting holds no worker: with one slot and fifty sagas waiting, the fifty-first droplet is created at once', async () => {
    const fleet = await fleetOf(kind, { activateAfterMs: 3_600_000 });
    await fleet.startWorker({ WORKER_CONCURRENCY: '1', WAIT_POLL_INTERVAL_MS: '20000', ADOPTION_GRACE_MS: '60000' });
    await Promise.all(Array.from({ length: 50 }, (_, index) => fleet.client.provisionDroplet({ ...web, name: `waiting-${index}` })));
    const countWaiting = async (): Promise<number> => {
      const [row] = await fleet.db.sql<{ waiting: number }[]>`
        select count(*)::int as waiting from arcadia.sagas where status = 'running' and steps[cursor + 1] = 'wait_droplet_active'`;
      return row?.waiting ?? 0;
    };
    await waitFor(async () => (await countWaiting()) === 50, { what: 'fifty sagas to wait', deadlineMs: 60_000 });
    const askedAt = Date.now();
    await fleet.client.provisionDroplet({ ...web, name: 'the-next' });
    await waitFor(() => fleet.sandbox.state({ name: 'the-next' })[0], { what: 'the fifty-first droplet', everyMs: 10 });
    const create = createsOf(fleet).at(-1);
    expect((create?.at ?? Infinity) - askedAt).toBeLessThan(3_000 * patience());
    expect([createsOf(fleet).length, alive(fleet).length]).toEqual([51, 51]);
    expect(await countWaiting()).toBeGreaterThanOrEqual(50);
  });

  test('SIGTERM in the middle of a step: the step is finished, the exit code is 0, and nothing is lost', async () => {
    const fleet = await fleetOf(kind, { activateAfterMs: 0 });
    fleet.sandbox.setFaults({ rules: [{ match: { method: 'POST' }, times: 1, effect: { holdAnswerMs: 1_500 } }] });
    const leaving = await fleet.startWorker({ WORKER_SHUTDOWN_MS: '8000' });
    const { sagaId } = await fleet.client.provisionDroplet(web);
    await waitFor(() => alive(fleet)[0], { what: 'the droplet' });
    const toldAt = Date.now();
    leaving.signal('SIGTERM');
    expect(await leaving.ended).toEqual({ code: 0, signal: null });
    expect(Date.now() - toldAt).toBeLessThan(8_000 * patience());
    expect((await fleet.client.get(sagaId))?.context).toMatchObject({ droplet_origin: 'created' });
    await fleet.startWorker();
    expect((await fleet.atRest(sagaId)).status).toBe('completed');
    expect([createsOf(fleet).length, alive(fleet).length]).toEqual([1, 1]);
  });

  test('SIGTERM in a step that outlasts the limit: the worker leaves in time with exit code 0, and another adopts', async () => {
    const fleet = await fleetOf(kind, { activateAfterMs: 0 });
    fleet.sandbox.setFaults({ rules: [{ match: { method: 'POST' }, times: 1, effect: { holdAnswerMs: 2_400 } }] });
    const leaving = await fleet.startWorker({ WORKER_SHUTDOWN_MS: '300' });
    expect(leaving.output()).toContain('WORKER_SHUTDOWN_MS: 300 includes 1500 ms to close connections, so that running steps get 1 ms; set 2000 or more');
    const { sagaId } = await fleet.client.provisionDroplet(web);
    await waitFor(() => alive(fleet)[0], { what: 'the droplet' });
    const toldAt = Date.now();
    leaving.signal('SIGTERM');
    expect((await leaving.ended).code).toBe(0);
    expect(Date.now() - toldAt).toBeLessThan(2_000 * patience());
    await fleet.startWorker();
    expect(await fleet.atRest(sagaId)).toMatchObject({ status: 'completed' });
    expect([createsOf(fleet).length, alive(fleet).length]).toEqual([1, 1]);
  });

  test('a job that any BullMQ producer puts into the queue "sagas" starts a saga, and its input does not stay in the queue', async () => {
    const fleet = await fleetOf(kind);
    await fleet.startWorker();
    const queue = producerOf(fleet, 'sagas');
    const job = await queue.add('provision_droplet', { input: { ...web, user_data: 'canary-in-the-queue' }, requestedBy: 'billing' });
    const sagaId = await waitFor(async () => (await fleet.client.list())[0]?.id, { what: 'the saga' });
    const saga = await fleet.atRest(sagaId);
    expect(saga).toMatchObject({ status: 'completed', requestedBy: 'billing', input: { name: 'web-1' } });
    const kept = await waitFor(async () => (await queue.getJobs(['completed']))[0], { what: 'the job to be done' });
    expect([kept.id, kept.data, kept.returnvalue]).toEqual([job.id, { sagaId }, { sagaId }]);
  });

  test('a droplet that was made by hand is adopted by a job in the queue "sagas", and by SQL', async () => {
    const fleet = await fleetOf(kind);
    await fleet.startWorker();
    const [queued, called] = [fleet.sandbox.addForeignDroplet({ name: 'by-queue' }).id, fleet.sandbox.addForeignDroplet({ name: 'by-sql' }).id];
    await producerOf(fleet, 'sagas').add('adopt_droplet', { input: { droplet_id: queued }, requestedBy: 'billing' });
    const fromQueue = await waitFor(async () => (await fleet.client.list())[0]?.id, { what: 'the saga' });
    const [fromSql] = await fleet.db.sql<{ id: string }[]>`select arcadia.start_saga('adopt_droplet', jsonb_build_object('droplet_id', ${called}::int, 'protected', true), 'adopt-by-sql', 'billing') as id`;
    for (const [sagaId, id, isProtected] of [[fromQueue, queued, false], [fromSql?.id ?? '', called, true]] as const) {
      expect(await fleet.atRest(sagaId)).toMatchObject({ name: 'adopt_droplet', status: 'completed', requestedBy: 'billing', context: { droplet_id: id } });
      expect(alive(fleet).find((droplet) => droplet.id === id)?.tags.toSorted()).toEqual([`arcadia-adopted-${sagaId}`, 'managed-by-arcadia-cloud']);
      expect(await fleet.db.sql`select p.saga_id, p.protected from arcadia.cloud_provisioned p join arcadia.cloud_resources r on r.id = p.resource_id where r.provider_id = ${String(id)} and p.released_at is null`).toEqual([{ sagaId, protected: isProtected }]);
    }
  });

  test('a malformed job fails at once, with what is wrong on it, and starts nothing', async () => {
    const fleet = await fleetOf(kind);
    await fleet.startWorker();
    const queue = producerOf(fleet, 'sagas');
    await queue.add('provision_droplet', { input: { ...web, name: 'not a host name', colour: 'red' } }, { attempts: 5 });
    const failed = await waitFor(async () => (await queue.getJobs(['failed']))[0], { what: 'the job to fail' });
    expect([failed.attemptsMade, failed.failedReason]).toEqual([1, expect.stringContaining('name: expected a host name')]);
    expect(failed.failedReason).toContain('colour');
    expect([await fleet.client.list(), fleet.sandbox.ledger().map(({ path }) => path)]).toEqual([[], ['/v2/account']]);
  });

  test('no secret is printed by a worker, nor kept in the queue or in the events', async () => {
    const fleet = await fleetOf(kind);
    fleet.sandbox.setFaults({ rules: [{ match: { method: 'POST' }, times: 1, effect: { htmlAfterWork: 502 } }] });
    const worker = await fleet.startWorker({ LOG_LEVEL: 'trace', DIGITALOCEAN_TOKEN: 'dop_v1_canarytoken' });
    const { sagaId } = await fleet.client.provisionDroplet({ ...web, user_data: '#!/bin/sh canary-user-data' });
    expect((await fleet.atRest(sagaId)).status).toBe('completed');
    const jobs = await producerOf(fleet, 'saga-steps').getJobs();
    const told = [worker.output(), JSON.stringify(jobs.map((job) => job.asJSON())), JSON.stringify(await fleet.client.events(sagaId))];
    expect(jobs.length).toBeGreaterThan(0);
    for (const text of told) {
      expect(text).not.toContain('canarytoken');
      expect(text).not.toContain('canary-user-data');
    }
  });
});

/** What a backend that knows nothing but BullMQ opens. */
function producerOf(fleet: Fleet, name: string): Queue {
  const { queueStore } = fleet;
  if (queueStore.kind === 'redis') {
    const connection = connectTestRedis(queueStore.nodes.join(','), { maxRetriesPerRequest: null });
    const queue = new Queue(name, { connection, prefix: queueStore.prefix });
    onTestFinished(async () => {
      await queue.close();
      connection.disconnect();
    });
    return queue;
  }
  const connection = openQueueConnection(queueStore, silentLog);
  const queue = connection.queue(name);
  onTestFinished(async () => {
    await queue.close();
    await connection.close();
  });
  return queue;
}

describe('a worker refuses to start', () => {
  test("on another environment's database", async () => {
    const fleet = await fleetOf('redis');
    const ended = await runCommand(['worker'], fleet.environment({ ARCADIA_ENV: 'staging' }));
    expect(ended.code).toBe(78);
    expect(ended.stderr).toContain('ARCADIA_ENV is staging, but this database belongs to the environment test');
  });

  test('without a token, naming the variable and nothing secret', async () => {
    const fleet = await fleetOf('redis');
    const ended = await runCommand(['worker'], fleet.environment({ DIGITALOCEAN_TOKEN: undefined }));
    expect(ended.code).toBe(78);
    expect(ended.stderr).toContain('DIGITALOCEAN_TOKEN: not set');
    expect(ended.stdout + ended.stderr).not.toContain(fleet.databaseUrl);
  });

  test('with a token that cannot be one, without printing it', async () => {
    const fleet = await fleetOf('redis');
    const ended = await runCommand(['worker'], fleet.environment({ DIGITALOCEAN_TOKEN: 'dop_v1 canary' }));
    expect(ended.code).toBe(78);
    expect(ended.stderr).toContain('DIGITALOCEAN_TOKEN: expected');
    expect(ended.stdout + ended.stderr).not.toContain('canary');
  });

  test('on a database that was never migrated, saying what to do', async () => {
    const fleet = await fleetOf('redis');
    await fleet.db.sql`drop schema arcadia cascade`;
    const ended = await runCommand(['worker'], fleet.environment());
    expect(ended.code).toBe(1);
    expect(ended.stderr).toContain('arcadia migrate');
  });

  test('with limits that contradict each other, naming both', async () => {
    const fleet = await fleetOf('redis');
    const ended = await runCommand(['worker'], fleet.environment({ WORKER_LOCK_MS: '1000' }));
    expect(ended.code).toBe(78);
    expect(ended.stderr).toContain('WORKER_LOCK_MS: expected more than DIGITALOCEAN_TIMEOUT_MS (2500)');
  });

  test('where Redis cannot be reached, without printing its password', async () => {
    const fleet = await fleetOf('redis');
    const ended = await runCommand(['worker'], fleet.environment({ REDIS_URL: 'redis://:canary@127.0.0.1:9' }));
    expect(ended.code).toBe(1);
    expect(ended.stderr).toContain('REDIS_URL');
    expect(ended.stdout + ended.stderr).not.toContain('canary');
  });
});
