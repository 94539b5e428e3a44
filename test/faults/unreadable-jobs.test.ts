// Jobs that somebody wrote into Redis by hand, badly, in every queue of a running worker.

import { describe, expect, inject, onTestFinished, test } from 'vitest';
import { openFleet, web } from '../support/fleet.ts';
import { connectTestRedis } from '../support/services-redis.ts';
import { queueStoreKinds } from '../support/topology.ts';
import { waitFor } from '../support/wait-for.ts';

const QUEUES = ['sagas', 'saga-steps', 'saga-compensations', 'inventory'];

describe.skipIf(!queueStoreKinds().includes('redis'))('with jobs that cannot be read in its queues', () => {
  test('a worker removes them, says so without their content, and does its other work', async () => {
    await using fleet = await openFleet('redis');
    const redis = connectTestRedis(inject('services').redisUrl);
    onTestFinished(() => redis.disconnect());
    const worker = await fleet.startWorker();
    const { queueStore } = fleet;
    if (queueStore.kind !== 'redis') throw new Error('not in Redis');
    for (const queue of QUEUES) {
      const prefix = `${queueStore.prefix}:${queue}`;
      await redis.hset(`${prefix}:broken1`, { name: 'create_droplet', data: '{"user_data":"hush', opts: '{}' });
      await redis.hset(`${prefix}:broken2`, { name: 'create_droplet', data: '{}', opts: '{bad' });
      await redis.lpush(`${prefix}:wait`, 'broken1', 'broken2');
      await redis.zadd(`${prefix}:marker`, 0, '0');
    }
    const removed = await waitFor(
      async () => {
        const rows = await fleet.db.sql<{ queue: string; jobId: string; actor: string }[]>`
          select detail->>'queue' as queue, detail->>'jobId' as "jobId", actor from arcadia.audit where action = 'job_removed'`;
        return rows.length >= 2 * QUEUES.length && rows;
      },
      { what: 'the jobs to be removed' },
    );
    expect(removed.map(({ queue, jobId }) => `${queue} ${jobId}`).toSorted()).toEqual(QUEUES.flatMap((queue) => [`${queue} broken1`, `${queue} broken2`]).toSorted());
    expect(new Set(removed.map(({ actor }) => actor))).toEqual(new Set([worker.name]));
    const { sagaId } = await fleet.client.provisionDroplet(web);
    expect((await fleet.atRest(sagaId)).status).toBe('completed');
    expect(worker.output()).toContain('a job could not be read and was removed: its data are not JSON');
    expect(worker.output()).not.toMatch(/hush|connection trouble/);
  });
});
