// Redis fails over: another server becomes the master, and the connections stay on the one that was. Workers and web find
// the new master within seconds, and nothing is lost.

import { Redis } from 'ioredis';
import { describe, expect, onTestFinished, test } from 'vitest';
import { loadConfig } from '../../src/platform/config.ts';
import { silentLog } from '../../src/platform/log.ts';
import { openQueueConnection, QueueStoreError } from '../../src/queues/connection.ts';
import { startWeb } from '../../src/processes/web.ts';
import { openFaultStage } from '../support/fault-stage.ts';
import type { PrivateRedis } from '../support/services-redis-server.ts';
import { startPrivateRedis, startPrivateSentinel } from '../support/services-redis-server.ts';
import { startTcpProxy } from '../support/tcp-proxy.ts';
import { waitFor } from '../support/wait-for.ts';
import { expectAllCompleted, provisionAll, untilUnderWay } from './sagas-under-way.ts';

// Seconds, where without a word of a failover it is half a minute.
const WITHIN_MS = 10_000;

/** A master and its replica, in step. */
async function startPair(): Promise<{ master: PrivateRedis; replica: PrivateRedis }> {
  const [master, replica] = await Promise.all([startPrivateRedis({ 'repl-diskless-sync-delay': '0' }), startPrivateRedis({ 'repl-diskless-sync-delay': '0' })]);
  onTestFinished(async () => void (await Promise.all([master.stop(), replica.stop()])));
  await replicate(replica, master);
  return { master, replica };
}

async function replicate(replica: PrivateRedis, master: PrivateRedis): Promise<void> {
  const admin = adminOf(replica);
  await admin.call('REPLICAOF', '127.0.0.1', master.port);
  await waitFor(async () => (await admin.info('replication')).includes('master_link_status:up'), { what: 'the replica to be in step' });
}

function adminOf({ url }: PrivateRedis): Redis {
  const admin = new Redis(url, { connectionName: 'admin' });
  admin.on('error', () => undefined);
  onTestFinished(() => admin.disconnect());
  return admin;
}

describe('behind one address', () => {
  test('sagas go on, and web starts sagas and is ready, within seconds of a failover that leaves all connections on the demoted server', async () => {
    const { master, replica } = await startPair();
    await using proxy = await startTcpProxy(master.url);
    await using stage = await openFaultStage({ redisUrl: replica.url, workersRedisUrl: proxy.through(master.url) });
    const worker = await stage.work();
    const web = await startWeb(loadConfig({ ...stage.env, PORT: '0' }), silentLog);
    // Before what it is connected to.
    await using stack = new AsyncDisposableStack();
    stack.defer(web.close);
    await provisionAll(stage);
    await untilUnderWay(stage);

    await adminOf(replica).call('REPLICAOF', 'NO', 'ONE');
    proxy.leadTo(replica.url);
    await replicate(master, replica);
    const since = performance.now();

    const answer = await fetch(`${web.url}/v1/sagas/provision_droplet`, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify({ name: 'web-late', region: 'fra1', size: 's-1vcpu-1gb', image: 'debian-12-x64' }),
    });
    expect(answer.status).toBe(202);
    expect((await fetch(`${web.url}/readyz`)).status).toBe(200);
    await expectAllCompleted(stage);
    expect(performance.now() - since).toBeLessThan(WITHIN_MS);
    expect(await Promise.race([worker.cannotGoOn, Promise.resolve('goes on')])).toBe('goes on');
  });

  test('an idle process that only reads leaves the demoted server, too', async () => {
    const { master, replica } = await startPair();
    await using proxy = await startTcpProxy(master.url);
    await using stage = await openFaultStage({ redisUrl: replica.url, workersRedisUrl: proxy.through(master.url) });
    // It hears of nothing before its next write.
    await stage.client.close();
    await stage.work();
    const demoted = adminOf(master);
    expect(await listOthers(demoted)).not.toBe('');
    await adminOf(replica).call('REPLICAOF', 'NO', 'ONE');
    proxy.leadTo(replica.url);
    await replicate(master, replica);
    await waitFor(async () => (await listOthers(demoted)) === '', { what: 'every connection to leave', deadlineMs: WITHIN_MS });
  });

  test('/readyz is red, and a process does not start, as long as the address leads to a replica; both heal by themselves', async () => {
    const { master, replica } = await startPair();
    await using stage = await openFaultStage({ redisUrl: master.url });
    const web = await startWeb(loadConfig({ ...stage.env, PORT: '0' }), silentLog);
    // Before what it is connected to.
    await using stack = new AsyncDisposableStack();
    stack.defer(web.close);
    expect((await fetch(`${web.url}/readyz`)).status).toBe(200);
    await adminOf(replica).call('REPLICAOF', 'NO', 'ONE');
    await replicate(master, replica);
    await waitFor(async () => (await fetch(`${web.url}/readyz`)).status === 503, { what: '/readyz to be red' });

    const connection = openQueueConnection({ kind: 'redis', nodes: [master.url], prefix: '{test}' }, silentLog);
    onTestFinished(() => connection.close());
    const refused = connection.check('test');
    await expect(refused).rejects.toThrow(QueueStoreError);
    await expect(refused).rejects.toThrow(/REDIS_URL.*READONLY.*leads to a replica/);

    await adminOf(master).call('REPLICAOF', 'NO', 'ONE');
    await waitFor(async () => (await fetch(`${web.url}/readyz`)).status === 200, { what: '/readyz to be green again' });
    await expect(connection.check('test')).resolves.toBeUndefined();
  });
});

describe('with Sentinels', () => {
  test('sagas go on after the master was killed, and after Sentinel moved it on purpose', async () => {
    const { master, replica } = await startPair();
    const sentinel = await startPrivateSentinel('the-master', master);
    onTestFinished(() => sentinel.stop());
    const url = `redis+sentinel://127.0.0.1:${sentinel.port}/the-master`;
    await using stage = await openFaultStage({ redisUrl: url });
    await stage.work();
    await provisionAll(stage);
    await untilUnderWay(stage);
    await master.kill();
    await expectAllCompleted(stage);
    expect(await adminOf(replica).info('replication')).toContain('role:master');

    await master.restart();
    const told = adminOf(sentinel);
    await waitFor(async () => told.call('SENTINEL', 'FAILOVER', 'the-master'), { what: 'Sentinel to know the old master as a replica', deadlineMs: 20_000 });
    await stage.provision('web-late');
    await waitFor(async () => (await adminOf(master).info('replication')).includes('role:master'), { what: 'the failover' });
    await stage.provision('web-later');
    await expectAllCompleted(stage);
  });
});

/** The clients of a server, but for those that replicate and for the test's own. */
async function listOthers(admin: Redis): Promise<string> {
  const clients = String(await admin.call('CLIENT', 'LIST', 'TYPE', 'normal')).trim().split('\n');
  return clients.filter((line) => !line.includes(' name=admin ')).join('\n');
}
