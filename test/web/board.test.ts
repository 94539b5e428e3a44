// Bull Board on both backends: it renders under the policy, shows no secrets, links to sagas, and is audited.
import { expect, test } from 'vitest';
import { z } from 'zod';
import { silentLog } from '../../src/platform/log.ts';
import { openQueueConnection } from '../../src/queues/connection.ts';
import { queueNames } from '../../src/queues/jobs.ts';
import { startPrivateRedis } from '../support/services-redis-server.ts';
import { backends, basic, bearer, credentials, droplet, openWebStage, sagaIdOf, secrets } from './stage.ts';

const CANARY = 'canary-user-data-8c1f';

const boardAnswer = z.object({
  queues: z.array(z.looseObject({ name: z.string(), readOnlyMode: z.boolean(), allowRetries: z.boolean(), isPaused: z.boolean() })),
});

test.each(backends)('Bull Board, queues on %s', async (backend) => {
  await using web = await openWebStage(credentials, backend);
  const operator = basic();
  const reader = bearer(secrets.read);
  const board = async (headers: Record<string, string>, active: string) =>
    boardAnswer.parse((await web.call('GET', `/queues/api/queues?activeQueue=${active}&status=latest&page=1&jobsPerPage=10`, { headers })).json());

  const index = await web.call('GET', '/queues', { headers: reader });
  expect(index.status).toBe(200);
  const policy = index.headers.get('content-security-policy') ?? '';
  expect(policy).toContain("script-src 'self';");
  expect(policy).not.toContain('unsafe-eval');
  const files = [...index.text.matchAll(/(?:src|href)="(static\/[^"]+)"/g)].map(([, file]) => file ?? '');
  expect(files.length).toBeGreaterThan(3);
  const served = await Promise.all(files.map((file) => web.call('GET', `/queues/${file}`, { headers: reader })));
  expect(served.map(({ status }) => status)).toEqual(files.map(() => 200));

  const sagaId = sagaIdOf(await web.call('POST', '/v1/sagas/provision_droplet', { body: { ...droplet, user_data: CANARY }, headers: operator }));
  const shown = await board(operator, 'saga-steps');
  expect(shown.queues.map(({ name }) => name).toSorted()).toEqual(['inventory', 'saga-compensations', 'saga-steps', 'sagas']);
  const steps = shown.queues.find(({ name }) => name === 'saga-steps');
  expect(steps).toMatchObject({ readOnlyMode: false, jobs: [{ data: { sagaId }, externalUrl: { href: `/sagas/${sagaId}` } }] });
  expect((await board(reader, 'saga-steps')).queues.every(({ readOnlyMode, allowRetries }) => readOnlyMode && !allowRetries)).toBe(true);

  // What another producer put there, and nobody took yet.
  const connection = openQueueConnection(web.queueStore, silentLog);
  const intake = connection.queue(queueNames.intake);
  await intake.add('provision_droplet', { input: { ...droplet, user_data: CANARY } }, { jobId: 'from-elsewhere' });
  for (const path of ['/queues/api/queues?activeQueue=sagas&status=latest&page=1&jobsPerPage=10', '/queues/api/queues/sagas/from-elsewhere']) {
    const answer = await web.call('GET', path, { headers: operator });
    expect(answer.text).toContain('[redacted]');
    expect(answer.text).not.toContain(CANARY);
  }
  const rewritten = await web.call('PATCH', '/queues/api/queues/sagas/from-elsewhere/update-data', {
    body: { jobData: { input: { ...droplet, user_data: '[redacted]' } } },
    headers: operator,
  });
  expect(rewritten.status).toBe(422);
  expect(JSON.stringify((await intake.getJob('from-elsewhere'))?.data)).toContain(CANARY);
  await intake.close();
  await connection.close();

  expect((await web.call('PUT', '/queues/api/queues/saga-steps/pause', { headers: reader })).status).toBe(403);
  expect((await web.call('PUT', '/queues/api/queues/saga-steps/pause', { headers: operator })).status).toBe(200);
  expect((await board(operator, 'saga-steps')).queues.find(({ name }) => name === 'saga-steps')?.isPaused).toBe(true);
  expect((await web.call('PUT', `/queues/api/queues/saga-steps/${sagaId}_0/clean`, { headers: bearer(secrets.operate) })).status).toBeLessThan(300);
  const audited = await web.db.sql`select actor, action, saga_id from arcadia.audit where action like 'dashboard:%' order by id`;
  expect([...audited]).toMatchObject([
    { actor: 'http:ada', action: 'dashboard:PUT /queues/api/queues/:queueName/pause', sagaId: null },
    { actor: 'http:operator', action: 'dashboard:PUT /queues/api/queues/:queueName/:jobId/clean', sagaId },
  ]);
});

test('while the queue store hangs, the board says so in time, and records nothing of what it cannot do', async () => {
  const redis = await startPrivateRedis();
  try {
    await using web = await openWebStage({ ...credentials, REDIS_URL: redis.url });
    const headers = { ...basic(), accept: 'text/html' };
    const index = await web.call('GET', '/queues', { headers });
    const file = /src="(static\/[^"]+)"/.exec(index.text)?.[1] ?? '';
    redis.pause();
    try {
      for (const path of ['/queues', '/queues/', '/queues/queue/saga-steps', '/queues/queue/saga-steps/some-job']) {
        const startedAt = performance.now();
        const page = await web.call('GET', path, { headers });
        expect({ path, status: page.status, type: page.headers.get('content-type') }).toEqual({ path, status: 503, type: 'text/html; charset=utf-8' });
        expect(performance.now() - startedAt).toBeLessThan(6_000);
        expect(page.text).toContain('<h1>The queue store does not answer</h1>');
        expect(page.text).toContain('<a href="/fleet">Fleet page</a>');
      }
      for (const [method, path] of [['GET', '/queues/api/queues'], ['PUT', '/queues/api/queues/saga-steps/pause']] as const) {
        const answer = await web.call(method, path, { headers: basic() });
        expect([answer.status, answer.json()]).toEqual([503, expect.objectContaining({ code: 'unavailable', detail: 'the queue store does not answer; try again' })]);
      }
      expect((await web.call('GET', `/queues/${file}`, { headers })).status).toBe(200);
      expect((await web.call('GET', '/queues/api/queues')).status).toBe(401);
      expect(await web.db.sql`select 1 from arcadia.audit where action like 'dashboard:%'`).toHaveLength(0);
    } finally {
      redis.resume();
    }
    expect((await web.call('GET', '/queues', { headers })).text).toContain('<base href="/queues/"');
  } finally {
    await redis.stop();
  }
});
