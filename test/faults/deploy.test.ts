// Deploys: workers that are told to stop in the middle of a step, and workers of two versions side by side.

import { describe, expect, test } from 'vitest';
import { z } from 'zod';
import { catalog } from '../../src/steps/catalog.ts';
import type { JsonObject } from '../../src/platform/json.ts';
import { checkCatalog } from '../../src/saga/definition.ts';
import { startSaga } from '../../src/saga/start.ts';
import { done } from '../../src/saga/step.ts';
import type { Step } from '../../src/saga/step.ts';
import type { StepDeps } from '../../src/steps/deps.ts';
import { openFaultStage } from '../support/fault-stage.ts';
import { queueStoreKinds } from '../support/topology.ts';
import { waitFor } from '../support/wait-for.ts';
import { patience } from '../support/patience.ts';

const input = { name: 'web-1', region: 'fra1', size: 's-1vcpu-1gb', image: 'debian-12-x64' };

const checkHealth: Step<StepDeps> = {
  name: 'check_health',
  execute: () => Promise.resolve(done({ healthy: true })),
  compensate: () => Promise.resolve(done()),
};

/** The next version: a step more, and an input that may have fields which this version refuses. */
const nextCatalog = checkCatalog({
  ...catalog,
  provision_droplet: { input: z.custom<JsonObject>(), steps: [...catalog.provision_droplet.steps, checkHealth] },
});

describe.concurrent('a deploy', () => {
  test('SIGTERM in mid-step: the step is finished, the process ends with 0, and its successor goes on', async () => {
    await using stage = await openFaultStage({ settings: { DIGITALOCEAN_TIMEOUT_MS: '3000', WORKER_LOCK_MS: '4000', ADOPTION_GRACE_MS: '5000', WORKER_SHUTDOWN_MS: '6000' } });
    stage.sandbox.setFaults({ rules: [{ match: { method: 'POST', path: '/v2/droplets' }, effect: { holdAnswerMs: 1_000 } }] });
    const old = stage.fork();
    await old.ready();
    await Promise.all([1, 2, 3].map((at) => stage.provision(`web-${at}`)));
    await waitFor(() => stage.sandbox.state().length === 3, { what: 'three creates on their way', everyMs: 5 });
    old.signal('SIGTERM');
    const end = await old.exit();
    expect(end).toMatchObject({ code: 0, signal: null });
    expect(end.afterMs).toBeLessThan(5_000 * patience());
    expect((await stage.client.list()).map(({ context }) => context['droplet_origin'])).toEqual(['created', 'created', 'created']);
    expect(old.log().some(({ msg }) => msg === 'worker stopped')).toBe(true);
    await stage.work();
    expect((await stage.atRest()).map(({ status }) => status)).toEqual(['completed', 'completed', 'completed']);
    expect(stage.sandbox.ledger().filter(({ method }) => method === 'POST')).toHaveLength(3);
    await stage.expectLawful();
  });

  test.for(queueStoreKinds())('SIGTERM in a step that takes longer than WORKER_SHUTDOWN_MS: the process ends in time, and its successor adopts (queues on %s)', async (queues) => {
    await using stage = await openFaultStage({
      ...(queues === 'postgres' ? { redisUrl: null } : {}),
      settings: { DIGITALOCEAN_TIMEOUT_MS: '8000', WORKER_LOCK_MS: '9000', ADOPTION_GRACE_MS: '10000', WORKER_SHUTDOWN_MS: '3000' },
    });
    stage.sandbox.setFaults({ rules: [{ match: { method: 'POST', path: '/v2/droplets' }, times: 1, effect: { holdAnswerMs: 7_500 } }] });
    const old = stage.fork();
    await old.ready();
    await stage.provision('web-1');
    await waitFor(() => stage.sandbox.state().length === 1, { what: 'the create on its way', everyMs: 5 });
    old.signal('SIGTERM');
    const end = await old.exit();
    expect(end).toMatchObject({ code: 0, signal: null });
    expect(end.afterMs).toBeLessThan((3_000 + 1_500) * patience());
    expect(old.log().some(({ msg }) => msg === 'steps were still running at the deadline: left to other workers')).toBe(true);
    await stage.work();
    const [saga] = await stage.atRest();
    expect(saga).toMatchObject({ status: 'completed', context: { droplet_origin: 'adopted' } });
    expect(stage.sandbox.ledger().filter(({ method }) => method === 'POST')).toHaveLength(1);
    await stage.expectLawful();
  });

  test('a rolling one, with sagas under way all the time: each worker is replaced twice, and nothing is lost', async () => {
    await using stage = await openFaultStage();
    let workers = [stage.fork(), stage.fork()];
    let started = 0;
    for (let round = 0; round < 2; round += 1) {
      for (let at = 0; at < 2; at += 1) {
        await Promise.all([1, 2, 3, 4].map(() => stage.provision(`web-${(started += 1)}`)));
        await waitFor(() => stage.sandbox.state().length >= started - 2, { what: 'droplets on their way', everyMs: 5 });
        const [oldest, ...rest] = workers;
        workers = [...rest, stage.fork()];
        await oldest?.ready();
        oldest?.signal('SIGTERM');
        expect(await oldest?.exit()).toMatchObject({ code: 0 });
      }
    }
    const sagas = await stage.atRest();
    expect(sagas.map(({ status }) => status)).toEqual(Array.from({ length: started }, () => 'completed'));
    expect(stage.sandbox.ledger().filter(({ method }) => method === 'POST')).toHaveLength(started);
    await stage.expectLawful();
  });

  test('old and new workers side by side: an unknown step waits for a new worker, and keys and fields that the old one does not know survive it', async () => {
    await using stage = await openFaultStage();
    // In a process of its own: of two workers in one process, the older would always be the first to wake.
    const old = stage.fork();
    await old.ready();
    const { sagaId } = await startSaga(stage.db, nextCatalog, { name: 'provision_droplet', input: { ...input, new_field: { nested: [1] } } }, 0);
    await stage.db.run('test.context', (sql) => sql`update arcadia.sagas set context = context || '{"new_key": {"kept": true}}' where id = ${sagaId}`);
    await waitFor(() => old.log().some(({ msg }) => msg === 'step is unknown to this version: left to a newer worker'), { what: 'the old worker to meet the new step' });
    const held = await stage.client.get(sagaId);
    expect(held).toMatchObject({ status: 'running', cursor: 3, attempt: 0, error: null });
    await stage.work({ sagas: nextCatalog });
    const [saga] = await stage.atRest();
    expect(saga).toMatchObject({ status: 'completed', context: { new_key: { kept: true }, healthy: true }, input: { new_field: { nested: [1] } } });
    expect(typeof saga?.context['cloud_resource_id']).toBe('string');
    await stage.expectLawful();
  });

  test('old workers only: a saga of the new version can be cancelled, and is rolled back by the first new worker', async () => {
    await using stage = await openFaultStage();
    const old = stage.fork();
    await old.ready();
    const { sagaId } = await startSaga(stage.db, nextCatalog, { name: 'provision_droplet', input }, 0);
    await waitFor(() => old.log().some(({ msg }) => msg.startsWith('step is unknown')), { what: 'the old worker to meet the new step' });
    expect((await stage.client.cancel(sagaId, 'test')).kind).toBe('accepted');
    await stage.work({ sagas: nextCatalog });
    const [saga] = await stage.atRest();
    expect(saga?.status).toBe('compensated');
    await stage.expectLawful();
  });
});
