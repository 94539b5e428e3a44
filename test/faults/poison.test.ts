// Jobs that nobody should have made, in all three queues, beside sagas that have to go on: none is run as something that
// it isn't, none is retried for ever, none takes anything from its neighbours.

import type { Job, Queue } from 'bullmq';
import { expect, inject, test } from 'vitest';
import { queueNames } from '../../src/queues/jobs.ts';
import { openFaultStage } from '../support/fault-stage.ts';
import { connectTestRedis } from '../support/services-redis.ts';
import { waitFor } from '../support/wait-for.ts';

const SAGAS = 50;
const unknownSaga = '0c4d2c9e-6c2f-4b51-9a52-6a2f0a6f2f00';
const input = { name: 'web-1', region: 'fra1', size: 's-1vcpu-1gb', image: 'debian-12-x64' };

type Poison = readonly [name: string, data: unknown];

/** What the queues of steps are given; `sagaId` is a saga that is under way. */
const stepPoisons = (sagaId: string): Poison[] => [
  ['create_droplet', null],
  ['create_droplet', 0],
  ['create_droplet', true],
  ['create_droplet', 'text'],
  ['create_droplet', []],
  ['create_droplet', [{ sagaId, revision: 0 }]],
  ['create_droplet', {}],
  ['create_droplet', { sagaId: null, revision: 0 }],
  ['create_droplet', { sagaId: 'x', revision: 0 }],
  ['create_droplet', { sagaId: "' or 1=1; drop table arcadia.sagas; --", revision: 0 }],
  ['create_droplet', { sagaId: [sagaId], revision: 0 }],
  ['create_droplet', { sagaId: { toString: sagaId }, revision: 0 }],
  ['create_droplet', { sagaId }],
  ['create_droplet', { sagaId, revision: -1 }],
  ['create_droplet', { sagaId, revision: 1.5 }],
  ['create_droplet', { sagaId, revision: '0' }],
  ['create_droplet', { sagaId, revision: 1e300 }],
  ['create_droplet', { sagaId, revision: 2 ** 53 }],
  ['create_droplet', { sagaId, revision: 0, memo: 'polls' }],
  ['create_droplet', { sagaId, revision: 0, memo: { polls: -1 } }],
  ['create_droplet', { sagaId, revision: 0, memo: { polls: 'many' } }],
  ['create_droplet', JSON.parse(`{"__proto__":{"sagaId":"${sagaId}","revision":0}}`)],
  ['create_droplet', { constructor: { prototype: { sagaId } } }],
  ['create_droplet', { sagaId: 'x'.repeat(2_000_000), revision: 0 }],
  ['create_droplet', JSON.parse(`${'['.repeat(900)}${']'.repeat(900)}`)],
  // These look like jobs of ours; the row decides what becomes of them.
  ['create_droplet', { sagaId: unknownSaga, revision: 0 }],
  ['register_droplet', { sagaId, revision: 0 }],
  ['constructor', { sagaId, revision: 0, step: '__proto__', position: 'last' }],
  ['wait_droplet_active', { sagaId, revision: 2_000_000_000 }],
  ['wait_droplet_active', { sagaId, revision: 3, memo: { polls: 999_999_999, misses: 999_999_999 } }],
];

const intakePoisons: Poison[] = [
  ['provision_droplet', null],
  ['provision_droplet', 7],
  ['provision_droplet', []],
  ['provision_droplet', {}],
  ['provision_droplet', { input: null }],
  ['provision_droplet', { input: { ...input, name: 'not a host name!' } }],
  ['provision_droplet', { input: { ...input, surprise: true } }],
  ['provision_droplet', { input: { ...input, tags: ['managed-by-arcadia-cloud'] } }],
  ['provision_droplet', { input: { ...input, user_data: 'x'.repeat(65_537) } }],
  ['provision_droplet', { input: { ...input, user_data: 'a\0b' } }],
  ['provision_droplet', { input, idempotencyKey: '' }],
  ['provision_droplet', { input, idempotencyKey: 'k'.repeat(300) }],
  ['provision_droplet', { input, idempotencyKey: 'a\0b' }],
  ['provision_droplet', { input, status: 'completed' }],
  ['provision_droplet', { input, requestedBy: { name: 'root' } }],
  ['destroy_droplet', { input: { droplet_id: '1; drop' } }],
  ['destroy_droplet', { input: { droplet_id: 0 } }],
  ['destroy_droplet', { input: { droplet_id: 2 ** 53 } }],
  ['no_such_saga', { input }],
  ['__proto__', { input }],
  ['toString', { input }],
  ['', { input }],
];

async function feed(queue: Queue, poisons: readonly Poison[]): Promise<{ queue: Queue; job: Job }[]> {
  return Promise.all(poisons.map(async ([name, data]) => ({ queue, job: await queue.add(name, data, { attempts: 1_000 }) })));
}

test(`poison jobs beside ${SAGAS} sagas hurt nobody, and end with a reason on them`, async () => {
  await using stage = await openFaultStage();
  const ids = await Promise.all(Array.from({ length: SAGAS }, (_, at) => stage.provision(`web-${at}`)));
  const steps = stage.queue(queueNames.steps);
  const compensations = stage.queue(queueNames.compensations);
  const intake = stage.queue(queueNames.intake);
  const fed = [
    ...(await feed(steps, stepPoisons(ids[0] ?? ''))),
    ...(await feed(compensations, stepPoisons(ids[1] ?? ''))),
    ...(await feed(intake, intakePoisons)),
  ];
  // What isn't even JSON can only be written past BullMQ.
  const raw = await steps.add('raw', {}, { delay: 1_500 });
  const redis = connectTestRedis(inject('services').redisUrl);
  await redis.hset(`${stage.env['QUEUE_PREFIX']}:${queueNames.steps}:${raw.id}`, 'data', '{"sagaId":');
  redis.disconnect();

  await stage.work();
  const sagas = await stage.atRest();
  expect(sagas).toHaveLength(SAGAS);
  expect(sagas.map(({ status }) => status)).toEqual(ids.map(() => 'completed'));
  await stage.expectLawful();
  expect(stage.sandbox.ledger().filter(({ method }) => method === 'POST')).toHaveLength(SAGAS);

  const reasons: string[] = [];
  for (const { queue, job } of fed) {
    const end = await waitFor(
      async () => {
        const found = await queue.getJob(job.id ?? '');
        return found?.finishedOn === undefined ? null : found;
      },
      { what: `the end of poison ${job.queueName} ${job.name} ${JSON.stringify(job.data).slice(0, 100)}` },
    );
    expect(end.attemptsStarted).toBeLessThanOrEqual(3);
    if (queue === intake) reasons.push(end.failedReason);
  }
  expect(reasons.filter((reason) => !/expected|no saga|unknown|invalid/i.test(reason ?? ''))).toEqual([]);
  // A saga that comes after all that is done as well, though the job that is no JSON still lies about.
  const after = await stage.provision('after');
  await stage.until(after, 'completed', ({ status }) => status === 'completed');
});
