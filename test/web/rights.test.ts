// What each token may start, what a repeated idempotency key tells to others, and who stands on record as having started a saga.

import { afterAll, beforeAll, describe, expect, onTestFinished, test } from 'vitest';
import { z } from 'zod';
import { defineApp, defineSaga, defineStep, done } from '../../src/engine.ts';
import { loadConfig } from '../../src/platform/config.ts';
import { startWeb } from '../../src/processes/web.ts';
import { silentLog } from '../../src/platform/log.ts';
import { catalog } from '../../src/steps/catalog.ts';
import { startSaga } from '../../src/saga/start.ts';
import { openClient } from '../../src/client/open-client.ts';
import { openQueueConnection } from '../../src/queues/connection.ts';
import { queueNames } from '../../src/queues/jobs.ts';
import { encryptionKeys } from '../support/keys.ts';
import { parseKeyRing } from '../../src/platform/key-ring.ts';
import { basic, bearer, droplet, openLog, openWebStage, sagaIdOf, secrets } from './stage.ts';
import type { Web } from './stage.ts';

const others = { destroyer: 'destroyer-secret-0f11', starter2: 'starter2-secret-77aa', reading: 'reading-secret-12bc', board: 'board-secret-98fe', planner: 'planner-secret-3c3c', wrecker: 'wrecker-secret-4d4d' } as const;
const tokens =
  `reader:read:${secrets.read},starter:start:${secrets.start},operator:operate:${secrets.operate},destroyer:start+destroy:${others.destroyer},` +
  `starter2:start:${others.starter2},reading:read+start:${others.reading},board:read+operate+start+destroy:${others.board},planner:read+operate+start:${others.planner},wrecker:read+operate+destroy:${others.wrecker}`;
const strict = { DASHBOARD_USER: 'ada', DASHBOARD_PASSWORD: secrets.password, API_TOKENS: tokens, API_TOKENS_START_MAY_DESTROY: 'false' };

let web: Web;
beforeAll(async () => {
  web = await openWebStage(strict);
});
afterAll(() => web[Symbol.asyncDispose]());

const provision = (secret: string, body: object, key?: string) =>
  web.call('POST', '/v1/sagas/provision_droplet', { body, headers: { ...bearer(secret), ...(key === undefined ? {} : { 'idempotency-key': key }) } });
const statuses = async (...answers: Promise<{ status: number }>[]) => (await Promise.all(answers)).map(({ status }) => status);
const startedBy = async (sagaId: string) => (await web.db.sql`select requested_by, started_by from arcadia.sagas where id = ${sagaId}`)[0];

describe('the scope destroy', () => {
  const destroy = { body: { droplet_id: 99 } };

  test('is needed to start a saga that destroys', async () => {
    const refused = await web.call('POST', '/v1/sagas/destroy_droplet', { ...destroy, headers: bearer(secrets.start) });
    expect([refused.status, refused.json()]).toMatchObject([403, { code: 'forbidden', detail: 'this needs the scope destroy; starter has start' }]);
    expect(await web.db.sql`select 1 from arcadia.sagas where name = 'destroy_droplet'`).toHaveLength(0);
    expect((await web.call('POST', '/v1/sagas/destroy_droplet', { ...destroy, headers: bearer(others.destroyer) })).status).toBe(202);
    expect((await web.call('POST', '/v1/sagas/destroy_droplet', { ...destroy, headers: basic() })).status).toBe(202);
  });

  test('comes with start for one version, and the log says what to write', async () => {
    const { log, lines } = openLog();
    await using before = await openWebStage({ ...strict, API_TOKENS_START_MAY_DESTROY: '' }, 'redis', log);
    expect((await before.call('POST', '/v1/sagas/destroy_droplet', { ...destroy, headers: bearer(secrets.start) })).status).toBe(202);
    const warnings = lines.filter(({ msg }) => String(msg).includes('Write start+destroy where the token is to destroy droplets'));
    expect(warnings.map(({ tokenName }) => tokenName)).toEqual(['starter', 'starter2', 'reading', 'planner']);
  });

  test('comes with start for destroy_droplet alone, and for nothing else that destroys', async () => {
    await using before = await openWebStage({ ...strict, API_TOKENS_START_MAY_DESTROY: '' });
    const post = (path: string, body: object, headers: Record<string, string> = bearer(others.planner)) => before.call('POST', path, { body, headers });
    const form = (path: string, fields: Record<string, string>) => before.call('POST', path, { body: new URLSearchParams(fields).toString(), headers: { ...bearer(others.planner), 'content-type': 'application/x-www-form-urlencoded' } });
    const adopting = { droplet_id: 4711, lease: { ttl_s: 5 } };
    const refused = await post('/v1/sagas/adopt_droplet', adopting, bearer(secrets.start));
    expect([refused.status, refused.json()]).toMatchObject([403, { detail: 'this needs the scope destroy; starter has start' }]);
    expect(await statuses(post('/v1/leases/approve', { saga_ids: ['b7c9f6e0-1f5a-4a53-9d4e-1d9f64c1a001'] }, bearer(secrets.start)), form('/leases/approve', {}), form('/droplets/orphans', { id: '1' }), form('/droplets/7/adopt', {}))).toEqual([403, 403, 403, 403]);
    expect(await statuses(form('/droplets/7/destroy', { confirm: '7' }))).toEqual([303]);

    const rolledBack = async (name: string, input: object) => {
      const id = sagaIdOf(await post(`/v1/sagas/${name}`, input, basic()));
      await post(`/v1/sagas/${id}/cancel`, {}, basic());
      return id;
    };
    const [destruction, adoption] = [await rolledBack('destroy_droplet', { droplet_id: 8 }), await rolledBack('adopt_droplet', { droplet_id: 9 })];
    expect((await post('/v1/bulk/rerun', { ids: [adoption], dryRun: false })).json()).toMatchObject({ sagas: [{ result: 'refused', why: expect.stringContaining('this needs the scope destroy') }] });
    expect(await statuses(post(`/v1/sagas/${adoption}/rerun`, {}), post(`/v1/sagas/${destruction}/rerun`, {}))).toEqual([403, 202]);

    const job = (name: string) => post('/queues/api/queues/sagas/add', { name, data: { input: { droplet_id: 10 } }, options: { jobId: name } });
    expect(await statuses(job('destroy_droplet'), job('adopt_droplet'), job('unknown'))).toEqual([200, 403, 403]);
  });

  test("never comes with start for an app's own sagas, not even for one called destroy_droplet", async () => {
    const step = defineStep({ name: 'wipe', execute: async () => Promise.resolve(done()), compensate: async () => Promise.resolve(done()) });
    const own = ['wipe_disk', 'destroy_droplet'].map((name) => defineSaga({ name, input: z.object({}), steps: [step], isDestructive: true }));
    const running = await startWeb(loadConfig({ ...strict, API_TOKENS_START_MAY_DESTROY: '', ARCADIA_ENV: 'test', DATABASE_URL: web.config.databaseUrl ?? '', PORT: '0' }), silentLog, { app: defineApp({ sagas: own, deps: () => ({}) }) });
    onTestFinished(running.close);
    for (const { name } of own) {
      const answer = await fetch(`${running.url}/v1/sagas/${name}`, { method: 'POST', headers: { ...bearer(secrets.start), 'content-type': 'application/json' }, body: '{}' });
      expect([name, answer.status]).toEqual([name, 403]);
    }
  });
});

describe('a repeated idempotency key', () => {
  const secretly = { ...droplet, user_data: '#!/bin/sh\necho right-guess' };

  test('finds its saga over another channel', async () => {
    const started = sagaIdOf(await provision(secrets.start, droplet, 'over-http'));
    const client = openClient({ databaseUrl: web.config.databaseUrl ?? '', keyRing: parseKeyRing(encryptionKeys) });
    onTestFinished(client.close);
    expect((await client.provisionDroplet(droplet, { idempotencyKey: 'over-http' })).sagaId).toBe(started);
    const [bySql] = await web.db.sql<{ id: string }[]>`select arcadia.start_saga('provision_droplet', (select input from arcadia.sagas where id = ${started}), 'over-http') as id`;
    expect(bySql?.id).toBe(started);
    expect(sagaIdOf(await provision(others.reading, droplet, 'over-http'))).toBe(started);
  });

  test('tells whoever used it first whether the user data was the same, and nobody else', async () => {
    const started = sagaIdOf(await provision(secrets.start, secretly, 'guessed'));
    const guesses = [secretly.user_data, '#!/bin/sh\necho wrong-guess', 'x'];
    const answersTo = async (secret: string) => {
      const answers = [];
      for (const user_data of guesses) {
        const { status, text } = await provision(secret, { ...droplet, user_data }, 'guessed');
        answers.push({ status, text: text.replaceAll(started, 'its id') });
      }
      return answers;
    };
    for (const erased of [false, true]) {
      if (erased) await web.db.sql`update arcadia.sagas set sealed_user_data = null, input = jsonb_set(input, '{user_data}', to_jsonb(replace(input->>'user_data', 'sealed', 'erased'))) where id = ${started}`;
      expect((await answersTo(secrets.start)).map(({ status }) => status)).toEqual([202, 409, 409]);
      // With and without the scope read: the same answer to every guess.
      for (const secret of [others.reading, others.starter2]) expect(new Set((await answersTo(secret)).map((answer) => JSON.stringify(answer))).size).toBe(1);
      const bySql = await Promise.all(
        guesses.map(async (user_data) => {
          const [row] = await web.db.sql<{ id: string }[]>`
            select arcadia.start_saga('provision_droplet', (select input || jsonb_build_object('user_data', ${user_data}::text) from arcadia.sagas where id = ${started}), 'guessed') as id`;
          return row?.id;
        }),
      );
      expect(bySql).toEqual([started, started, started]);
    }
  });

  test('tells no producer of the queue what another one sent: nobody can tell them apart', async () => {
    const keyRing = parseKeyRing(encryptionKeys);
    const queue = { name: 'queue', mayRead: true, isShared: true } as const;
    const ask = (user_data: string) => startSaga(web.db, catalog, { name: 'provision_droplet', input: { ...secretly, user_data }, idempotencyKey: 'by-queue', starter: queue }, 0, keyRing);
    const { sagaId } = await ask(secretly.user_data);
    for (const guess of [secretly.user_data, 'wrong', 'x']) expect((await ask(guess)).sagaId).toBe(sagaId);
  });

  test('of a saga that an older version started finds it, and tells nothing of its user data', async () => {
    const started = sagaIdOf(await provision(secrets.start, secretly, 'older'));
    await web.db.sql`update arcadia.sagas set started_by = null where id = ${started}`;
    for (const user_data of [secretly.user_data, 'wrong']) expect(sagaIdOf(await provision(secrets.start, { ...secretly, user_data }, 'older'))).toBe(started);
    expect((await provision(others.starter2, secretly, 'older')).status).toBe(409);
  });

  test('is only taken, to a token that may not read and did not use it', async () => {
    const started = sagaIdOf(await provision(secrets.start, { ...droplet, name: 'of-starter' }, 'taken'));
    const same = await provision(others.starter2, { ...droplet, name: 'of-starter' }, 'taken');
    const other = await provision(others.starter2, { ...droplet, name: 'another' }, 'taken');
    expect(same.status).toBe(409);
    expect(same.json()).toMatchObject({ code: 'idempotency_conflict', errors: [{ field: 'Idempotency-Key', message: 'is taken' }] });
    expect(other.text).toBe(same.text);
    expect(same.text).not.toContain(started);
    expect(sagaIdOf(await provision(secrets.start, { ...droplet, name: 'of-starter' }, 'taken'))).toBe(started);
    expect((await provision(others.reading, { ...droplet, name: 'another' }, 'taken')).json()).toMatchObject({ sagaId: started });
  });

  test('is only taken to a database role that may not read, too', async () => {
    const started = sagaIdOf(await provision(secrets.start, droplet, 'by-role'));
    const role = `producer_${started.slice(0, 8)}`;
    await web.db.sql.unsafe(`create role ${role}; grant usage on schema arcadia to ${role}; grant execute on function arcadia.start_saga to ${role}`);
    onTestFinished(async () => {
      await web.db.sql.unsafe(`drop owned by ${role}; drop role ${role}`);
    });
    const asked = web.db.sql.begin(async (sql) => {
      await sql.unsafe(`set local session authorization ${role}`);
      return sql`select arcadia.start_saga('provision_droplet', '{"name": "other"}', 'by-role')`;
    });
    await expect(asked).rejects.toMatchObject({ code: 'SG409', message: 'idempotency_key: "by-role" is taken; use a new key for a new request' });
  });
});

describe('who started a saga', () => {
  test('is kept as it was proven, apart from what the caller says', async () => {
    const overHttp = sagaIdOf(await provision(secrets.start, droplet));
    expect(await startedBy(overHttp)).toEqual({ requestedBy: 'http:starter', startedBy: 'http:starter' });
    const [role] = await web.db.sql<{ role: string }[]>`select session_user::text as role`;
    const database = `sql:${role?.role}`;
    const [bySql] = await web.db.sql<{ id: string }[]>`select arcadia.start_saga('destroy_droplet', '{"droplet_id": 4}', null, 'http:ada') as id`;
    expect(await startedBy(bySql?.id ?? '')).toEqual({ requestedBy: 'http:ada', startedBy: database });
    const client = openClient({ databaseUrl: web.config.databaseUrl ?? '' });
    onTestFinished(client.close);
    const { sagaId } = await client.provisionDroplet(droplet, { requestedBy: 'http:ada' });
    expect(await startedBy(sagaId)).toEqual({ requestedBy: 'http:ada', startedBy: database });
    expect(await web.db.sql`select actor, database_role from arcadia.audit where saga_id = ${sagaId}`).toEqual([{ actor: 'http:ada', databaseRole: role?.role }]);
    const shown = await web.call('GET', `/v1/sagas/${sagaId}`, { headers: bearer(secrets.read) });
    expect(shown.json()).toMatchObject({ requestedBy: 'http:ada', startedBy: database });
    const page = await web.call('GET', `/sagas/${sagaId}`, { headers: basic() });
    expect(page.text).toContain(`<code>${database}</code>`);
  });
});

const add = (secret: string, name: string, data: object, jobId: string) =>
  web.call('POST', '/queues/api/queues/sagas/add', { body: { name, data, options: { jobId } }, headers: bearer(secret) });
const edit = (secret: string, jobId: string, jobData: object) =>
  web.call('PATCH', `/queues/api/queues/sagas/${jobId}/update-data`, { body: { jobData }, headers: bearer(secret) });

describe('on Bull Board', () => {
  test('adding and changing a request need what starting it needs, and name who pressed', async () => {
    const connection = openQueueConnection(web.queueStore, silentLog);
    onTestFinished(connection.close);
    const intake = connection.queue(queueNames.intake);
    onTestFinished(() => intake.close());
    const provisioning = { input: droplet, requestedBy: 'http:ada' };
    const destroying = { input: { droplet_id: 7 }, requestedBy: 'http:ada' };

    expect((await add(secrets.operate, 'provision_droplet', provisioning, 'a')).status).toBe(403);
    expect((await add(others.planner, 'destroy_droplet', destroying, 'b')).status).toBe(403);
    expect((await add(others.planner, 'provision_droplet', provisioning, 'c')).status).toBe(200);
    expect((await add(others.board, 'destroy_droplet', destroying, 'd')).status).toBe(200);
    expect(await Promise.all(['a', 'b', 'c', 'd'].map(async (id) => (await intake.getJob(id))?.data as unknown))).toEqual([
      undefined,
      undefined,
      { ...provisioning, requestedBy: 'http:planner' },
      { ...destroying, requestedBy: 'http:board' },
    ]);

    expect((await edit(secrets.operate, 'c', provisioning)).status).toBe(403);
    expect((await edit(others.planner, 'd', destroying)).status).toBe(403);
    expect((await edit(others.board, 'd', { input: { droplet_id: 8 } })).status).toBe(200);
    expect((await intake.getJob('d'))?.data).toEqual({ input: { droplet_id: 8 }, requestedBy: 'http:board' });
    expect(await web.db.sql`select 1 from arcadia.audit where action like 'dashboard:%'`).toHaveLength(3);

    // A token that may destroy, and start nothing else, adds what destroys.
    expect((await add(others.wrecker, 'destroy_droplet', destroying, 'e')).status).toBe(200);
    expect((await add(others.wrecker, 'provision_droplet', provisioning, 'f')).status).toBe(403);
    // Whatever a scheduler adds, it adds again and again.
    await intake.upsertJobScheduler('nightly', { every: 86_400_000 }, { name: 'destroy_droplet', data: destroying });
    const scheduler = '/queues/api/queues/sagas/job-schedulers/nightly';
    expect((await web.call('PUT', `${scheduler}/run`, { body: { name: 'provision_droplet', data: {} }, headers: bearer(others.planner) })).status).toBe(403);
    expect((await web.call('PATCH', scheduler, { body: { every: 1_000 }, headers: bearer(secrets.operate) })).status).toBe(403);
    await intake.removeJobScheduler('nightly');
  });
});

test('wrong credentials are counted, and logged with their address', async () => {
  const { log, lines } = openLog();
  await using guessed = await openWebStage(strict, 'redis', log);
  for (let guess = 0; guess < 15; guess += 1) await guessed.call('GET', '/v1/sagas', { headers: bearer(`guess-${guess}-with-some-length`) });
  await guessed.call('GET', '/v1/sagas', { headers: basic('ada', 'wrong-password') });
  const { text } = await guessed.call('GET', '/metrics', { headers: bearer(secrets.read) });
  expect(text).toContain('arcadia_refused_credentials_total{kind="bearer"} 15');
  expect(text).toContain('arcadia_refused_credentials_total{kind="basic"} 1');
  const refused = lines.filter(({ msg }) => msg === 'wrong credentials were refused');
  // Ten of the one kind; then one line says that there are more.
  expect(refused.map(({ kind }) => kind)).toEqual([...Array<string>(10).fill('bearer'), 'basic']);
  expect(refused[0]).toMatchObject({ address: '127.0.0.1', path: '/v1/sagas' });
  expect(lines.filter(({ msg }) => String(msg).startsWith('too many wrong credentials'))).toHaveLength(1);
  expect(JSON.stringify(lines)).not.toMatch(/guess-|wrong-password/);
});
