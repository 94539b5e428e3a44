// Run again: a rolled-back saga is started anew, once, over HTTP, from its page, in bulk, by the client and on the command line.
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, onTestFinished, test } from 'vitest';
import { openClient } from '../../src/client/open-client.ts';
import { openSecret } from '../../src/saga/open-secret.ts';
import { bulkAnswer } from '../../src/web/api/bulk-shapes.ts';
import { rerunAnswer, sagaWithTimeline } from '../../src/web/api/saga-shapes.ts';
import { problemSchema } from '../../src/web/problems.ts';
import { runCommand } from '../support/fleet.ts';
import { encryptionKeys, keyRing } from '../support/keys.ts';
import type { Web } from './stage.ts';
import { backends, basic, bearer, droplet, openWebStage, sagaIdOf, secrets } from './stage.ts';

const USER_DATA = '#!/bin/sh\necho hello\n';
const tokens = `operator:operate:${secrets.operate},planner:read+start+operate:planner-secret-2b2b,${secrets.all}`;

describe.each(backends)('with queues in %s', (backend) => {
  let web: Web;
  beforeAll(async () => {
    web = await openWebStage({ DASHBOARD_USER: 'ada', DASHBOARD_PASSWORD: secrets.password, API_TOKENS: tokens, API_TOKENS_START_MAY_DESTROY: 'false' }, backend);
  });
  afterAll(() => web[Symbol.asyncDispose]());

  const all = { headers: bearer(secrets.all) };
  const start = async (input: object = {}, name = 'provision_droplet'): Promise<string> =>
    sagaIdOf(await web.call('POST', `/v1/sagas/${name}`, { body: name === 'provision_droplet' ? { ...droplet, ...input } : input, ...all }));
  const rolledBack = async (input: object = {}, name?: string): Promise<string> => {
    const id = await start(input, name);
    await web.call('POST', `/v1/sagas/${id}/cancel`, all);
    return id;
  };
  const rerun = (id: string, body?: object, secret: string = secrets.all) => web.call('POST', `/v1/sagas/${id}/rerun`, { ...(body === undefined ? {} : { body }), headers: bearer(secret) });
  const read = async (id: string) => sagaWithTimeline.parse((await web.call('GET', `/v1/sagas/${id}`, all)).json());
  const bulk = async (body: object) => bulkAnswer.parse((await web.call('POST', '/v1/bulk/rerun', { body, ...all })).json());
  const open = (id: string) => openSecret(web.db, keyRing, { sagaId: id, revision: 0 }, 'user_data');

  test('starts one new saga with the same input, however often it is asked; each names the other, and the audit who asked', async () => {
    const id = await rolledBack({ name: 'again-1', tags: ['blue'] });
    const answers = await Promise.all(Array.from({ length: 6 }, () => rerun(id)));
    expect(answers.map(({ status }) => status)).toEqual(Array.from({ length: 6 }, () => 202));
    const told = answers.map((answer) => rerunAnswer.parse(answer.json()));
    const sagaId = told[0]?.sagaId ?? '';
    expect(new Set(told.map((one) => one.sagaId))).toEqual(new Set([sagaId]));
    expect(told.filter(({ replayed }) => !replayed)).toHaveLength(1);
    expect(answers[0]?.headers.get('location')).toBe(`/v1/sagas/${sagaId}`);
    const [before, after] = [await read(id), await read(sagaId)];
    expect([before.status, before.rerunAs, before.rerunOf]).toEqual(['compensated', sagaId, null]);
    expect(after).toMatchObject({ name: 'provision_droplet', status: 'pending', input: before.input, rerunOf: id, rerunAs: null, startedBy: 'http:token-3', requestedBy: 'http:token-3' });
    expect(await web.db.sql`select actor, action, detail from arcadia.audit where saga_id = ${id} and action = 'saga_rerun'`).toMatchObject([{ actor: 'http:token-3', detail: { rerunAs: sagaId, startedBy: 'http:token-3' } }]);
    expect(await web.db.sql`select actor, detail from arcadia.audit where saga_id = ${sagaId}`).toMatchObject([{ actor: 'http:token-3', detail: { name: 'provision_droplet', rerunOf: id } }]);
    const board = await web.call('GET', `/queues/api/queues/saga-steps/${sagaId}_0`, { headers: basic() });
    expect(board.json()).toMatchObject({ job: { data: { sagaId } } });
  });

  test('of a saga whose rerun was rolled back too, the newer one can be run again', async () => {
    const first = await rolledBack();
    const second = rerunAnswer.parse((await rerun(first)).json()).sagaId;
    await web.call('POST', `/v1/sagas/${second}/cancel`, all);
    expect(rerunAnswer.parse((await rerun(first)).json())).toEqual({ sagaId: second, rerunOf: first, replayed: true });
    const third = rerunAnswer.parse((await rerun(second)).json());
    expect(third).toMatchObject({ rerunOf: second, replayed: false });
    expect(third.sagaId).not.toBe(second);
  });

  test('is refused for what was not rolled back, and says what to do instead', async () => {
    const id = await start();
    const refusals = async () => {
      const answer = await rerun(id);
      return [answer.status, problemSchema.parse(answer.json()).code, problemSchema.parse(answer.json()).detail];
    };
    expect(await refusals()).toEqual([409, 'saga_refused', expect.stringContaining('it has not started yet')]);
    for (const [status, why] of [['completed', 'it is completed'], ['stuck', 'fix the cause, then retry it'], ['compensating', 'still being rolled back']] as const) {
      await web.db.sql`update arcadia.sagas set status = ${status} where id = ${id}`;
      expect(await refusals()).toEqual([409, 'saga_refused', expect.stringContaining(why)]);
    }
    expect((await rerun('b7c9f6e0-1f5a-4a53-9d4e-1d9f64c1a001')).status).toBe(404);
    expect(await web.db.sql`select 1 from arcadia.sagas where rerun_of = ${id}`).toHaveLength(0);
  });

  test('asks for the secrets that were erased, says why, and seals what it is given', async () => {
    const id = await rolledBack({ name: 'secretive', user_data: USER_DATA });
    const asked = await rerun(id);
    expect([asked.status, problemSchema.parse(asked.json())]).toMatchObject([422, { code: 'secrets_missing', detail: expect.stringContaining('user_data was erased when the saga was rolled back'), errors: [{ field: 'secrets.user_data' }] }]);
    const { sagaId } = rerunAnswer.parse((await rerun(id, { secrets: { user_data: USER_DATA } })).json());
    expect(await open(sagaId)).toBe(USER_DATA);
    const { input } = await read(sagaId);
    expect(input['user_data']).toBe(`[sealed, ${USER_DATA.length} bytes]`);
    expect(rerunAnswer.parse((await rerun(id)).json())).toMatchObject({ sagaId, replayed: true });
    const plain = await rolledBack();
    const unknown = await rerun(plain, { secrets: { user_data: USER_DATA } });
    expect([unknown.status, problemSchema.parse(unknown.json()).errors]).toEqual([422, [{ field: 'secrets.user_data', message: expect.stringContaining('had no such secret') }]]);
    expect((await rerun(plain, { user_data: USER_DATA })).status).toBe(400);
  });

  test('needs the scope to start such a saga, beside operate', async () => {
    const provision = await rolledBack();
    expect(problemSchema.parse((await rerun(provision, undefined, secrets.operate)).json()).detail).toContain('needs the scope start');
    const destroy = await rolledBack({ droplet_id: 99 }, 'destroy_droplet');
    const refused = await rerun(destroy, undefined, 'planner-secret-2b2b');
    expect([refused.status, problemSchema.parse(refused.json()).detail]).toEqual([403, expect.stringContaining('needs the scope destroy')]);
    expect((await rerun(destroy)).status).toBe(202);
    expect((await rerun(provision, undefined, 'planner-secret-2b2b')).status).toBe(202);
  });

  test('in bulk leaves out what was run again before, and refuses each on its own', async () => {
    const [plain, secretive, repeated, running] = [await rolledBack({ name: 'bulk-1' }), await rolledBack({ name: 'bulk-2', user_data: USER_DATA }), await rolledBack({ name: 'bulk-3' }), await start({ name: 'bulk-4' })];
    const before = rerunAnswer.parse((await rerun(repeated)).json()).sagaId;
    const would = await bulk({ filter: { text: 'bulk-' } });
    expect([would.dryRun, new Set(would.ids)]).toEqual([true, new Set([plain, secretive])]);
    const done = await bulk({ ids: [plain, secretive, repeated, running], dryRun: false });
    const one = await read(plain);
    expect(done.sagas).toEqual([
      { sagaId: plain, result: 'accepted', status: 'pending', rerunAs: one.rerunAs },
      { sagaId: secretive, result: 'refused', status: 'compensated', why: expect.stringContaining('user_data was erased') },
      { sagaId: repeated, result: 'already', status: 'pending', rerunAs: before },
      { sagaId: running, result: 'refused', status: 'pending', why: expect.stringContaining('has not started yet') },
    ]);
    expect((await bulk({ filter: { text: 'bulk-' } })).ids).toEqual([secretive]);
  });

  const LEFT = 'Rolled back, but check droplet 7 at DigitalOcean.';
  const leaveBehind = (id: string) => web.db.sql`update arcadia.sagas set context = context || '{"unproven_droplets": [7]}' where id = ${id}`;

  test('is refused while a rollback may have left something, until the caller confirms that a person has checked', async () => {
    const id = await rolledBack({ name: 'leftover-1' });
    await leaveBehind(id);
    const refused = problemSchema.parse((await rerun(id)).json());
    expect(refused).toMatchObject({ status: 409, code: 'leftovers_unchecked', detail: expect.stringContaining(LEFT), errors: [{ field: 'despiteLeftovers' }] });
    expect(refused.detail).toContain('destroy it by hand');
    expect((await rerun(id, { despiteLeftovers: false })).status).toBe(409);
    expect((await read(id)).rerunAs).toBeNull();
    const confirmed = rerunAnswer.parse((await rerun(id, { despiteLeftovers: true })).json());
    expect(confirmed).toMatchObject({ rerunOf: id, replayed: false });
    expect(rerunAnswer.parse((await rerun(id)).json())).toEqual({ ...confirmed, replayed: true });
  });

  test('of a droplet that was not destroyed needs no confirmation, because nothing is made twice', async () => {
    const id = await rolledBack({ droplet_id: 98 }, 'destroy_droplet');
    expect((await web.call('GET', `/sagas/${id}`, { headers: { ...basic(), accept: 'text/html' } })).text).toContain('Droplet 98 was not destroyed.');
    expect((await rerun(id)).status).toBe(202);
  });

  test('in bulk lists what a rollback may have left, and never starts it', async () => {
    const [clean, left] = [await rolledBack({ name: 'mixed-1' }), await rolledBack({ name: 'mixed-2' })];
    await leaveBehind(left);
    const refused = { sagaId: left, result: 'refused', status: 'compensated', why: expect.stringContaining(LEFT) };
    expect((await bulk({ filter: { text: 'mixed-' } })).sagas).toEqual([refused, { sagaId: clean, result: 'would', status: 'compensated' }]);
    expect((await bulk({ ids: [left] })).sagas).toEqual([refused]);
    expect((await bulk({ ids: [left], dryRun: false })).sagas).toEqual([refused]);
    const form = { ...basic(), accept: 'text/html', 'content-type': 'application/x-www-form-urlencoded' };
    const preview = (await web.call('GET', '/sagas/bulk?action=rerun&q=mixed-', { headers: form })).text;
    expect(preview).toContain('<h1>Run 1 saga again?</h1>');
    expect(preview).toContain(`name="id" value="${clean}"`);
    expect(preview).not.toContain(`name="id" value="${left}"`);
    expect(preview.slice(preview.indexOf('<h2>Left out</h2>'))).toContain(LEFT);
    expect((await web.call('POST', '/sagas/bulk', { body: `action=rerun&q=mixed-&id=${left}`, headers: form })).text).toContain('could not be run again');
    expect((await bulk({ filter: { text: 'mixed-' }, dryRun: false })).sagas).toMatchObject([refused, { sagaId: clean, result: 'accepted' }]);
    expect((await read(left)).rerunAs).toBeNull();
    const rest = (await web.call('GET', '/sagas/bulk?action=rerun&q=mixed-', { headers: form })).text;
    expect(rest).toContain('Nothing to run again');
    expect(rest).toContain(LEFT);
  });

  test('from the page needs a tick beside what the rollback may have left', async () => {
    const form = { ...basic(), accept: 'text/html', 'content-type': 'application/x-www-form-urlencoded' };
    const [clean, left] = [await rolledBack(), await rolledBack()];
    await leaveBehind(left);
    const dialogOf = async (id: string) => (await web.call('GET', `/sagas/${id}`, { headers: form })).text.split('id="rerun"')[1] ?? '';
    expect(await dialogOf(clean)).not.toContain('despiteLeftovers');
    const shown = await dialogOf(left);
    expect(shown).toContain(LEFT);
    expect(shown).toContain('<input type="checkbox" name="despiteLeftovers" value="true" required>');
    const bare = await web.call('POST', `/sagas/${left}/rerun`, { body: '', headers: form });
    expect([bare.status, bare.text]).toEqual([409, expect.stringContaining(LEFT)]);
    const ticked = await web.call('POST', `/sagas/${left}/rerun`, { body: 'despiteLeftovers=true', headers: form });
    expect([ticked.status, ticked.headers.get('location')]).toEqual([303, `/sagas/${(await read(left)).rerunAs}?told=rerun`]);
  });

  test('from the page: a button, a field for each secret, and lines that end as they did', async () => {
    const form = { ...basic(), accept: 'text/html', 'content-type': 'application/x-www-form-urlencoded' };
    const id = await rolledBack({ name: 'from-page', user_data: USER_DATA });
    const shown = (await web.call('GET', `/sagas/${id}`, { headers: form })).text;
    expect(shown).toContain('popovertarget="rerun">Run again…</button>');
    expect(shown).toContain('<textarea name="user_data"');
    const bare = await web.call('POST', `/sagas/${id}/rerun`, { body: 'user_data=', headers: form });
    expect([bare.status, bare.text]).toEqual([422, expect.stringContaining('user_data was erased')]);
    const sent = await web.call('POST', `/sagas/${id}/rerun`, { body: new URLSearchParams({ user_data: USER_DATA.replaceAll('\n', '\r\n') }).toString(), headers: form });
    const { rerunAs } = await read(id);
    expect([sent.status, sent.headers.get('location')]).toEqual([303, `/sagas/${rerunAs}?told=rerun`]);
    expect(await open(rerunAs ?? '')).toBe(USER_DATA);
    const [old, fresh] = await Promise.all([id, rerunAs].map(async (one) => (await web.call('GET', `/sagas/${one}`, { headers: form })).text));
    expect(old).toContain(`Was run again as</dt><dd><a href="/sagas/${rerunAs}"`);
    expect(old).not.toContain('popovertarget="rerun"');
    expect(fresh).toContain(`Runs again</dt><dd><a href="/sagas/${id}"`);
    const again = await web.call('POST', `/sagas/${id}/rerun`, { body: 'user_data=other', headers: form });
    expect(again.headers.get('location')).toBe(`/sagas/${rerunAs}?told=rerun_before`);
  });

  test('from the page, many: a preview, then what came of each', async () => {
    const form = { ...basic(), accept: 'text/html', 'content-type': 'application/x-www-form-urlencoded' };
    const ids = [await rolledBack({ name: 'many-1' }), await rolledBack({ name: 'many-2' })];
    expect((await web.call('GET', '/sagas?q=many-', { headers: form })).text).toContain('action=rerun">Run again…</a>');
    const preview = (await web.call('GET', '/sagas/bulk?action=rerun&q=many-', { headers: form })).text;
    expect(preview).toContain('<h1>Run 2 sagas again?</h1>');
    const body = `action=rerun&q=many-&${ids.map((id) => `id=${id}`).join('&')}`;
    const done = (await web.call('POST', '/sagas/bulk', { body, headers: form })).text;
    expect(done).toContain('<h1>2 of 2 run again</h1>');
    expect(done).toContain(`new saga <a href="/sagas/${(await read(ids[0] ?? '')).rerunAs}"`);
    expect((await web.call('POST', '/sagas/bulk', { body, headers: form })).text).toContain('<h1>0 of 2 run again; 2 were run again before</h1>');
    expect((await web.call('GET', '/sagas/bulk?action=rerun&q=many-', { headers: form })).text).toContain('Nothing to run again');
  });
});

test('by the client and on the command line, which name the option for what is missing', async () => {
  await using web = await openWebStage();
  const client = openClient({ databaseUrl: web.config.databaseUrl ?? '', queueStore: web.queueStore, keyRing });
  onTestFinished(client.close);
  const { sagaId: id } = await client.provisionDroplet({ ...droplet, user_data: USER_DATA });
  await client.cancel(id, 'billing');
  expect(await client.rerun(id, 'billing')).toMatchObject({ kind: 'refused', missing: ['user_data'], saga: { id } });
  const folder = await mkdtemp(join(tmpdir(), 'arcadia-test-'));
  onTestFinished(() => rm(folder, { recursive: true }));
  const file = join(folder, 'init');
  await writeFile(file, USER_DATA);
  const environment = { PATH: process.env['PATH'], ARCADIA_ENV: 'test', DATABASE_URL: web.config.databaseUrl ?? '', ARCADIA_ENCRYPTION_KEYS: encryptionKeys, ...(web.queueStore.kind === 'redis' ? { REDIS_URL: web.queueStore.nodes.join(','), QUEUE_PREFIX: web.config.queuePrefix } : {}) };
  const arcadia = (...args: string[]) => runCommand(args, environment);
  expect(await arcadia('rerun', id)).toEqual({ code: 1, stdout: '', stderr: expect.stringContaining('run the saga again: --user-data-file <file>') });
  const accepted = await client.rerun(id, 'billing', { secrets: { user_data: USER_DATA } });
  if (accepted.kind !== 'accepted') throw new Error(`expected a new saga, found ${accepted.kind}`);
  expect(accepted.saga).toMatchObject({ rerunOf: id, requestedBy: 'billing', status: 'pending' });
  await client.cancel(accepted.saga.id, 'billing');
  const before = await arcadia('rerun', id, '--detach');
  expect([before.code, before.stdout.trim(), before.stderr]).toEqual([0, accepted.saga.id, expect.stringContaining(`run \`arcadia rerun ${accepted.saga.id}\``)]);
  const newest = await arcadia('rerun', accepted.saga.id, '--user-data-file', file, '--detach', '--json');
  expect([newest.code, newest.stderr]).toEqual([0, '']);
  const [saga] = await client.list({ limit: 1 });
  expect(JSON.parse(newest.stdout)).toEqual({ sagaId: saga?.id });
  expect(await openSecret(web.db, keyRing, { sagaId: saga?.id ?? '', revision: 0 }, 'user_data')).toBe(USER_DATA);
  const shown = (await arcadia('saga', accepted.saga.id)).stdout;
  expect(shown).toMatch(new RegExp(`^runs again +saga ${id}, which was rolled back$`, 'm'));
  expect(shown).toMatch(new RegExp(`^run again as +saga ${saga?.id}$`, 'm'));
  expect((await arcadia('rerun', id, '--secret-file', 'user_data')).code).toBe(2);

  const { sagaId: left } = await client.provisionDroplet(droplet);
  await client.cancel(left, 'billing');
  await web.db.sql`update arcadia.sagas set context = context || '{"unproven_droplets": [7, 8]}' where id = ${left}`;
  expect(await client.rerun(left, 'billing')).toMatchObject({ kind: 'refused', missing: [], leftovers: expect.stringContaining('check droplets 7, 8'), saga: { id: left } });
  const refused = await arcadia('rerun', left, '--detach');
  expect([refused.code, refused.stdout, refused.stderr.trim()]).toEqual([1, '', expect.stringMatching(/check droplets 7, 8 at DigitalOcean\..*: --despite-leftovers$/)]);
  const despite = await arcadia('rerun', left, '--despite-leftovers', '--detach');
  expect([despite.code, despite.stderr]).toEqual([0, '']);
  expect(await client.rerun(left, 'billing', { despiteLeftovers: true })).toMatchObject({ kind: 'already', saga: { id: despite.stdout.trim() } });
});
