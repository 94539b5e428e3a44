// Never ours, never touched: whatever stands beside our droplets in the account, and however much it looks like them, is
// neither adopted nor destroyed.

import { once } from 'node:events';
import { createServer } from 'node:http';
import { randomUUID } from 'node:crypto';
import { describe, expect, test } from 'vitest';
import type { Sandbox } from '../../src/sandbox/server.ts';
import { openFaultStage } from '../support/fault-stage.ts';
import type { Stage } from '../support/fault-stage.ts';

const create = { method: 'POST', path: '/v2/droplets' } as const;
const createLost = { rules: [{ match: create, times: 1, effect: { lostAnswer: true as const } }] };

/** Droplets of others that look like those of a saga, each in its own way. */
function addLookalikes(sandbox: Sandbox, sagaId: string, name: string): number[] {
  const saga8 = sagaId.slice(0, 8);
  const longAgo = new Date(Date.now() - 3_600_000).toISOString();
  return [
    { name, tags: [] },
    { name, tags: [], created_at: longAgo },
    { name: 'somebody-elses', tags: [`arcadia-saga-${saga8}`] },
    { name, tags: [`arcadia-saga-${saga8}`], created_at: longAgo },
    { name, tags: [`arcadia-saga-${saga8}`, `arcadia-saga-id-${saga8}${randomUUID().slice(8)}`, 'managed-by-arcadia-cloud'] },
    { name, tags: ['managed-by-arcadia-cloud', `arcadia-saga-id-${randomUUID()}`] },
    { name, tags: [`arcadia-saga-${saga8}`, `arcadia-saga-id-${sagaId}`, `arcadia-saga-id-${randomUUID()}`] },
    { name, size_slug: 'gpu-h100x1-80gb', region: 'nyc2', tags: [`arcadia-saga-${saga8}`, `arcadia-saga-id-${randomUUID()}`] },
  ].map((droplet) => sandbox.addForeignDroplet(droplet).id);
}

function expectUntouched(stage: Stage, foreign: readonly number[]): void {
  const alive = new Set(stage.sandbox.state({ alive: true }).map(({ id }) => id));
  expect(foreign.filter((id) => !alive.has(id))).toEqual([]);
  const deletes = stage.sandbox.ledger().filter(({ method }) => method === 'DELETE');
  expect(deletes.map(({ path }) => path).filter((path) => foreign.some((id) => path === `/v2/droplets/${id}`))).toEqual([]);
  expect(deletes.filter(({ path }) => path === '/v2/droplets')).toEqual([]);
}

// The tests run at once. A create that times out before it arrives, or is not sent as its claim has become old (older than half
// the time between request and lock), would be none that lost its answer: a lookalike without tags is then waited for.
const patient = { DIGITALOCEAN_TIMEOUT_MS: '6000', WORKER_LOCK_MS: '16000', ADOPTION_GRACE_MS: '17000' };

describe.concurrent('never ours, never touched', () => {
  test('adopts its own droplet among eight that look like it', async () => {
    await using stage = await openFaultStage({ settings: patient, sandbox: { faults: createLost } });
    const sagaId = await stage.provision('web-1');
    const foreign = addLookalikes(stage.sandbox, sagaId, 'web-1');
    await stage.work();
    const [saga] = await stage.atRest();
    expect(saga?.status).toBe('completed');
    expect(saga?.context['droplet_origin']).toBe('adopted');
    expect(foreign).not.toContain(saga?.context['droplet_id']);
    expectUntouched(stage, foreign);
    await stage.expectLawful();
  });

  test('rolls back its own droplet among eight that look like it', async () => {
    await using stage = await openFaultStage({ settings: { ...patient, WAIT_MAX_POLLS: '3' }, sandbox: { faults: { ...createLost, neverActive: true } } });
    const sagaId = await stage.provision('web-1');
    const foreign = addLookalikes(stage.sandbox, sagaId, 'web-1');
    await stage.work();
    const [saga] = await stage.atRest();
    expect(saga?.status).toBe('compensated');
    expect(stage.sandbox.state().filter(({ tags, alive }) => !alive && tags.includes(`arcadia-saga-id-${sagaId}`))).toHaveLength(1);
    expectUntouched(stage, foreign);
    await stage.expectLawful();
  });

  test('destroys nothing where its create was lost for good and only lookalikes are left to find', async () => {
    await using stage = await openFaultStage({
      settings: { STEP_ATTEMPTS: '2' },
      sandbox: { faults: { rules: [{ match: create, effect: { html: 504 } }] } },
    });
    const sagaId = await stage.provision('web-1');
    const foreign = addLookalikes(stage.sandbox, sagaId, 'web-1').slice(1);
    const undecided = stage.sandbox.state({ alive: true }).map(({ id }) => id);
    await stage.work();
    const [saga] = await stage.atRest();
    expect(saga?.status).toBe('compensated');
    expectUntouched(stage, [...foreign, ...undecided]);
    await stage.expectLawful();
  });

  test('keeps one of three droplets of its own, and destroys the other two', async () => {
    await using stage = await openFaultStage({ settings: patient, sandbox: { faults: createLost } });
    const sagaId = await stage.provision('web-1');
    const tags = [`arcadia-saga-${sagaId.slice(0, 8)}`, 'managed-by-arcadia-cloud', `arcadia-saga-id-${sagaId}`];
    const own = [1, 2].map(() => stage.sandbox.addForeignDroplet({ name: 'web-1', tags }).id);
    await stage.work();
    const [saga] = await stage.atRest();
    expect(saga?.status).toBe('completed');
    expect(saga?.context['droplet_id']).toBe(own[0]);
    expect(stage.sandbox.state({ alive: true }).map(({ id }) => id)).toEqual([own[0]]);
    await stage.expectLawful();
  });

  test('destroys all three droplets of its own when it is rolled back', async () => {
    await using stage = await openFaultStage({ settings: { ...patient, WAIT_MAX_POLLS: '2' }, sandbox: { faults: { ...createLost, statusOverride: 'new' } } });
    const sagaId = await stage.provision('web-1');
    const tags = [`arcadia-saga-${sagaId.slice(0, 8)}`, 'managed-by-arcadia-cloud', `arcadia-saga-id-${sagaId}`];
    for (let copy = 0; copy < 2; copy += 1) stage.sandbox.addForeignDroplet({ name: 'web-1', tags });
    await stage.work();
    const [saga] = await stage.atRest();
    expect(saga?.status).toBe('compensated');
    expect(stage.sandbox.state().map(({ alive }) => alive)).toEqual([false, false, false]);
    await stage.expectLawful();
  });

  test('finds its droplet on the second page, and gives its token to no other host', async () => {
    const strangersRequests: unknown[] = [];
    const stranger = createServer((request, response) => {
      strangersRequests.push(request.headers);
      response.end('{}');
    });
    stranger.listen(0, '127.0.0.1');
    await once(stranger, 'listening');
    const address = stranger.address();
    const port = typeof address === 'object' && address !== null ? address.port : 0;
    await using stage = await openFaultStage({
      settings: { DIGITALOCEAN_TIMEOUT_MS: '1000' },
      sandbox: { faults: { ...createLost, nextHost: `http://127.0.0.1:${port}` } },
    });
    const sagaId = await stage.provision('web-1');
    const tags = [`arcadia-saga-${sagaId.slice(0, 8)}`];
    const foreign = Array.from({ length: 230 }, (_, at) => stage.sandbox.addForeignDroplet({ name: `other-${at}`, tags }).id);
    await stage.work();
    const [saga] = await stage.atRest();
    stranger.close();
    expect(saga?.status).toBe('completed');
    expect(saga?.context['droplet_origin']).toBe('adopted');
    expect(stage.sandbox.ledger().some(({ query }) => query['page'] === '2' && query['tag_name'] !== undefined)).toBe(true);
    expect(strangersRequests).toEqual([]);
    expectUntouched(stage, foreign);
    await stage.expectLawful();
  });

  test.for(['completed', 'compensated'] as const)('finds the GPU droplet that lists by tag hide, beside a foreign one that they show: %s', async (end) => {
    await using stage = await openFaultStage({
      settings: { WAIT_MAX_POLLS: end === 'completed' ? '96' : '3' },
      sandbox: { faults: { ...createLost, hideGpuFromTagLists: true, ...(end === 'completed' ? {} : { neverActive: true }) } },
    });
    const sagaId = await stage.provision('gpu-1', { size: 'gpu-h100x1-80gb', region: 'nyc2', image: 'ubuntu-24-04-x64' });
    const foreign = [
      stage.sandbox.addForeignDroplet({ name: 'somebody-elses', tags: [`arcadia-saga-${sagaId.slice(0, 8)}`] }).id,
      stage.sandbox.addForeignDroplet({ name: 'gpu-1', size_slug: 'gpu-h100x1-80gb', region: 'nyc2', tags: [`arcadia-saga-id-${randomUUID()}`] }).id,
    ];
    await stage.work();
    const [saga] = await stage.atRest();
    expect(saga?.error?.message ?? '').not.toContain('invalid');
    expect(saga?.status).toBe(end);
    expect(stage.sandbox.ledger().filter(({ made }) => made.length > 0)).toHaveLength(1);
    expectUntouched(stage, foreign);
    await stage.expectLawful();
  });

  test('a droplet that DigitalOcean names in answer to our create, and that is not ours, is neither kept nor destroyed', async () => {
    await using stage = await openFaultStage();
    const foreign = stage.sandbox.addForeignDroplet({ name: 'somebody-elses', tags: [] });
    stage.sandbox.setFaults({ rules: [{ match: create, times: 1, effect: { status: 202, body: { droplet: foreign } } }] });
    await stage.provision('web-1');
    await stage.work();
    const [saga] = await stage.atRest();
    expect(saga?.status).toBe('completed');
    expect(saga?.context['droplet_id']).not.toBe(foreign.id);
    expectUntouched(stage, [foreign.id]);
    await stage.expectLawful();
  });

  test('a droplet on record that turned out to be another saga’s is not destroyed by the rollback', async () => {
    await using stage = await openFaultStage({ sandbox: { faults: { statusOverride: 'new' } } });
    const sagaId = await stage.provision('web-1');
    await stage.work();
    const waiting = await stage.until(sagaId, 'waiting', ({ context }) => context['droplet_id'] !== undefined);
    const id = Number(waiting.context['droplet_id']);
    stage.sandbox.editDroplet(id, { tags: [`arcadia-saga-id-${randomUUID()}`, 'managed-by-arcadia-cloud'] });
    const saga = await stage.until(sagaId, 'rolled back', ({ status }) => status === 'compensated');
    expect(saga.error?.code).toBe('droplet_not_ours');
    expectUntouched(stage, [id]);
  });

  test('destroy_droplet leaves alone what was not provisioned here, or carries another saga’s id', async () => {
    await using stage = await openFaultStage();
    await stage.work();
    const sagaId = await stage.provision('web-1');
    const provisioned = await stage.until(sagaId, 'completed', ({ status }) => status === 'completed');
    const edited = Number(provisioned.context['droplet_id']);
    stage.sandbox.editDroplet(edited, { tags: [`arcadia-saga-id-${randomUUID()}`] });
    const foreign = [
      edited,
      stage.sandbox.addForeignDroplet({ name: 'web-1', tags: [`arcadia-saga-id-${sagaId}`, 'managed-by-arcadia-cloud'] }).id,
      stage.sandbox.addForeignDroplet({ name: 'web-1' }).id,
    ];
    const destroys = await Promise.all(foreign.map((id) => stage.client.destroyDroplet(id)));
    for (const { sagaId: id } of destroys) {
      const saga = await stage.until(id, 'refused', ({ status }) => status === 'compensated');
      expect(saga.error?.code).toBe('droplet_not_ours');
    }
    expectUntouched(stage, foreign);
  });
});
