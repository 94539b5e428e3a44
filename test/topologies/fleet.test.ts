// A fleet on a Redis Cluster and behind PgBouncer in transaction mode, both at once: what people do with it, and a worker
// that is killed. The rest of the engine's tests run there by script/test-topologies.

import { afterAll, beforeAll, expect, inject, test } from 'vitest';
import { openFaultStage } from '../support/fault-stage.ts';
import type { Stage } from '../support/fault-stage.ts';
import { startPrivatePgBouncer } from '../support/services-pgbouncer.ts';
import type { PrivatePgBouncer } from '../support/services-pgbouncer.ts';
import { createTestDatabase } from '../support/services-postgres.ts';
import { startPrivateRedisCluster } from '../support/services-redis-cluster.ts';
import type { PrivateRedisCluster } from '../support/services-redis-cluster.ts';
import { waitFor } from '../support/wait-for.ts';

let pgBouncer: PrivatePgBouncer;
let cluster: PrivateRedisCluster;

beforeAll(async () => {
  [pgBouncer, cluster] = await Promise.all([startPrivatePgBouncer(inject('services').databaseUrl), startPrivateRedisCluster({ withReplicas: true })]);
});
afterAll(() => Promise.all([pgBouncer.stop(), cluster.stop()]));

async function setStage(stack: AsyncDisposableStack): Promise<Stage> {
  const database = stack.use(await createTestDatabase());
  return stack.use(await openFaultStage({ databaseUrl: pgBouncer.through(database.directUrl), redisUrl: cluster.url, settings: { WORKER_CONCURRENCY: '4' } }));
}

test('provisions, cancels and destroys, while a worker is killed', async () => {
  await using stack = new AsyncDisposableStack();
  const stage = await setStage(stack);
  const [doomed, other] = [stage.fork(), stage.fork()];
  await Promise.all([doomed.ready(), other.ready()]);
  const ids = await Promise.all(Array.from({ length: 12 }, (_, at) => stage.provision(`web-${at}`)));
  await waitFor(() => stage.sandbox.state().length >= 4, { what: 'the first droplets', everyMs: 10 });
  doomed.signal('SIGKILL');
  const cancels = await Promise.all(ids.slice(0, 3).map((id) => stage.client.cancel(id, 'test')));
  const sagas = await stage.atRest(40_000);
  const accepted = new Set(ids.filter((_id, at) => cancels[at]?.kind === 'accepted'));
  expect(sagas.map(({ status }) => status)).toEqual(sagas.map(({ id }) => (accepted.has(id) ? 'compensated' : 'completed')));
  await stage.expectLawful();

  // As any backend does, in SQL: nobody hears of it through PgBouncer, and the reconciler finds it.
  const droplet = sagas.at(-1)?.context['droplet_id'] ?? null;
  const [row] = await stage.db.sql<{ id: string }[]>`select arcadia.start_saga('destroy_droplet', ${JSON.stringify({ droplet_id: droplet })}::text::jsonb) as id`;
  await stage.until(row?.id ?? '', 'completed', ({ status }) => status === 'completed');
  await stage.expectLawful();
  expect(other.log().map(({ msg }) => msg)).toContainEqual(expect.stringContaining('statement_timeout is 0'));
  other.signal('SIGTERM');
  expect((await other.exit()).code).toBe(0);
});

test('goes on while the queues move to another node, and after the node that holds them has failed over', async () => {
  await using stack = new AsyncDisposableStack();
  const stage = await setStage(stack);
  const prefix = stage.env['QUEUE_PREFIX'] ?? '';
  await stage.work();
  const first = await cluster.holderOf(prefix);
  const elsewhere = cluster.servers.slice(0, 3).find((server) => server !== first) ?? first;
  await Promise.all(Array.from({ length: 10 }, (_, at) => stage.provision(`moved-${at}`)));
  await cluster.moveSlot(prefix, elsewhere);
  expect(await cluster.holderOf(prefix)).toBe(elsewhere);
  await stage.atRest();
  await stage.expectLawful();

  await Promise.all(Array.from({ length: 10 }, (_, at) => stage.provision(`failed-over-${at}`)));
  await elsewhere.kill();
  await Promise.all(Array.from({ length: 3 }, (_, at) => stage.provision(`meanwhile-${at}`)));
  await stage.atRest(45_000);
  await stage.expectLawful();
  expect(await cluster.holderOf(prefix)).not.toBe(elsewhere);
});
