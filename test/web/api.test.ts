// The HTTP API, with nobody working on the sagas: starting, finding, cancelling, retrying, and what is said of wrong requests.
import { readFileSync } from 'node:fs';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { z } from 'zod';
import { bulkAnswer } from '../../src/web/api/bulk-shapes.ts';
import { acceptedAnswer, acknowledgedAnswer, driftsAnswer, orphansAnswer, resourcesAnswer } from '../../src/web/api/inventory-shapes.ts';
import { sagaWithTimeline, sagasAnswer, startedAnswer, actionAnswer } from '../../src/web/api/saga-shapes.ts';
import { problemSchema } from '../../src/web/problems.ts';
import { holdSaga } from '../support/held-saga.ts';
import { droplet, openWebStage } from './stage.ts';
import type { Answer, Web } from './stage.ts';

let web: Web;
beforeAll(async () => {
  web = await openWebStage();
});
afterAll(() => web[Symbol.asyncDispose]());

const start = async (input: object = {}, headers: Record<string, string> = {}): Promise<string> => {
  const answer = await web.call('POST', '/v1/sagas/provision_droplet', { body: { ...droplet, ...input }, headers });
  expect(answer.status).toBe(202);
  return startedAnswer.parse(answer.json()).sagaId;
};

function expectProblem(answer: Answer, status: number, code: string): z.infer<typeof problemSchema> {
  const problem = problemSchema.parse(answer.json());
  expect({ status: answer.status, problem }).toMatchObject({ status, problem: { status, code, type: `urn:arcadia-cloud:problem:${code}` } });
  expect(answer.headers.get('content-type')).toContain('application/problem+json');
  expect(answer.text).not.toMatch(/\bat .*\.(ts|js):\d+/);
  return problem;
}

const list = async (query: string) => sagasAnswer.parse((await web.call('GET', `/v1/sagas?${query}`)).json());
const idsOf = async (query: string) => (await list(query)).sagas.map(({ id }) => id);

const fieldsOf = (problem: z.infer<typeof problemSchema>): string[] => (problem.errors ?? []).map(({ field }) => field);

describe('starting a saga', () => {
  test('answers 202 with the place of the saga, which stands there with its timeline', async () => {
    const answer = await web.call('POST', '/v1/sagas/provision_droplet', { body: droplet });
    const { sagaId, replayed } = startedAnswer.parse(answer.json());
    expect(answer.headers.get('location')).toBe(`/v1/sagas/${sagaId}`);
    expect(replayed).toBe(false);
    const saga = sagaWithTimeline.parse((await web.call('GET', `/v1/sagas/${sagaId}`)).json());
    expect(saga).toMatchObject({ id: sagaId, status: 'pending', name: 'provision_droplet', requestedBy: 'http:anybody', events: [{ seq: 0, kind: 'saga_created' }] });
  });

  test('says of a saga that waits until somebody acts why it does, alone and in a list', async () => {
    const sagaId = await start({ name: 'held' });
    const found = async () => [(await web.call('GET', `/v1/sagas/${sagaId}`)).json(), (await list('text=held')).sagas[0]];
    expect(await found()).toMatchObject([{ held: null }, { held: null }]);
    const { held, release } = await holdSaga(web.db, sagaId);
    expect(await found()).toMatchObject([{ status: 'pending', held }, { status: 'pending', held }]);
    await release();
    expect(await found()).toMatchObject([{ held: null }, { held: null }]);
  });

  test('takes a priority, and says what it may be', async () => {
    const answer = await web.call('POST', '/v1/sagas/provision_droplet?priority=low', { body: droplet });
    const { sagaId } = startedAnswer.parse(answer.json());
    expect((await web.call('GET', `/v1/sagas/${sagaId}`)).json()).toMatchObject({ priority: 'low' });
    const refused = await web.call('POST', '/v1/sagas/provision_droplet?priority=urgent', { body: droplet });
    expect(expectProblem(refused, 422, 'invalid_input').errors).toEqual([{ field: 'priority', message: 'expected high, normal, low' }]);
  });

  test('refuses a query that it does not know, and starts nothing', async () => {
    for (const [name, body] of [['provision_droplet', { ...droplet, name: 'misspelled' }], ['destroy_droplet', { droplet_id: 4712 }]] as const) {
      const refused = await web.call('POST', `/v1/sagas/${name}?prority=high`, { body });
      expect(expectProblem(refused, 422, 'invalid_input').errors).toEqual([{ field: 'prority', message: 'unknown field' }]);
    }
    expect([(await list('text=misspelled')).sagas, (await list('droplet_id=4712')).sagas]).toEqual([[], []]);
  });

  test('gives the same saga for the same key and input, whatever the order of the fields', async () => {
    const headers = { 'idempotency-key': 'order-1' };
    const first = await start({}, headers);
    const again = await web.call('POST', '/v1/sagas/provision_droplet', { body: Object.fromEntries(Object.entries(droplet).toReversed()), headers });
    expect(startedAnswer.parse(again.json())).toEqual({ sagaId: first, replayed: true });
    expect(again.headers.get('idempotency-replayed')).toBe('true');
  });

  test('makes one saga of many that come at once with one key', async () => {
    const ids = await Promise.all(Array.from({ length: 10 }, () => start({ name: 'at-once' }, { 'idempotency-key': 'at-once' })));
    expect(new Set(ids).size).toBe(1);
  });

  test('refuses a key that was used with another input, and names the saga that has it', async () => {
    const headers = { 'idempotency-key': 'order-2' };
    const first = await start({}, headers);
    const conflict = await web.call('POST', '/v1/sagas/provision_droplet', { body: { ...droplet, name: 'other' }, headers });
    const problem = expectProblem(conflict, 409, 'idempotency_conflict');
    expect(problem.sagaId).toBe(first);
    expect(fieldsOf(problem)).toEqual(['Idempotency-Key']);
    const otherSaga = await web.call('POST', '/v1/sagas/destroy_droplet', { body: { droplet_id: 1 }, headers });
    expectProblem(otherSaga, 409, 'idempotency_conflict');
  });

  test.each([
    [{ ...droplet, region: 'f ra' }, ['region']],
    [{ ...droplet, name: undefined, size: 7 }, ['name', 'size']],
    [{ ...droplet, tags: ['fine', 'managed-by-arcadia-cloud'] }, ['tags.1']],
    [{ ...droplet, colour: 'red', shape: 'round' }, ['colour', 'shape']],
    [{ ...droplet, user_data: 'x'.repeat(64 * 1024 + 1) }, ['user_data']],
    [[], ['input']],
  ])('names each field that is wrong: %#', async (body, fields) => {
    const problem = expectProblem(await web.call('POST', '/v1/sagas/provision_droplet', { body }), 422, 'invalid_input');
    expect(fieldsOf(problem)).toEqual(fields);
  });

  test('names the header whose key is too long', async () => {
    const answer = await web.call('POST', '/v1/sagas/provision_droplet', { body: droplet, headers: { 'idempotency-key': 'k'.repeat(300) } });
    expect(fieldsOf(expectProblem(answer, 422, 'invalid_input'))).toEqual(['Idempotency-Key']);
  });

  test('takes 64 KiB of user data, however it is escaped, and refuses a larger body with 413', async () => {
    const escaped = `{"name":"big","region":"fra1","size":"s","image":1,"user_data":"${String.raw`\u0061`.repeat(64 * 1024)}"}`;
    expect((await web.call('POST', '/v1/sagas/provision_droplet', { body: escaped })).status).toBe(202);
    const tooLarge = await web.call('POST', '/v1/sagas/provision_droplet', { body: { ...droplet, user_data: 'x'.repeat(600 * 1024) } });
    expect(expectProblem(tooLarge, 413, 'body_too_large').detail).toBe('expected a body of at most 512 KiB');
  });

  test.each([
    ['{"name": "s3cr3t-', 400, 'invalid_request'],
    ['', 400, 'invalid_request'],
    ['{"__proto__": {"name": "x"}}', 400, 'invalid_request'],
    ['null', 422, 'invalid_input'],
  ])('says what is wrong with the body %j', async (body, status, code) => {
    const answer = await web.call('POST', '/v1/sagas/provision_droplet', { body });
    expectProblem(answer, status, code);
    expect(answer.text).not.toContain('s3cr3t');
  });

  test.each([
    ['{"__proto__": {"name": "s3cr3t"}, "name": "web-1"}', '__proto__'],
    ['\ufeff{"tags": [{"\\u005f_proto__": "s3cr3t"}]}', 'tags.0.__proto__'],
    ['{"constructor": {"prototype": 1}}', 'constructor.prototype'],
    [`${'{"a":'.repeat(3_000)}{"__proto__": 1}${'}'.repeat(3_000)}`, 'a.a.a.a.a.a.a.a.a.a.__proto__'],
  ])('names the field that no body may have: %#', async (body, field) => {
    const answer = await web.call('POST', '/v1/sagas/provision_droplet', { body });
    const problem = expectProblem(answer, 400, 'invalid_request');
    expect(problem).toMatchObject({ detail: `${field}: a field of this name is not accepted`, errors: [{ field }] });
    expect(answer.text).not.toContain('s3cr3t');
  });

  test('says which sagas there are when it is asked for another', async () => {
    for (const name of ['nope', 'constructor', '__proto__']) {
      const problem = expectProblem(await web.call('POST', `/v1/sagas/${name}`, { body: {} }), 404, 'unknown_saga');
      expect(fieldsOf(problem)).toEqual(['name']);
      expect(problem.detail).toContain('provision_droplet, destroy_droplet');
    }
    expectProblem(await web.call('POST', '/v1/sagas/provision_droplet', { body: 'a=b', headers: { 'content-type': 'text/plain' } }), 415, 'unsupported_media_type');
  });
});

describe('finding sagas', () => {
  test('by status, saga, tag, time, text and droplet', async () => {
    const tagged = await start({ name: 'find-me', tags: ['team:blue', 'x'] });
    const destroying = startedAnswer.parse((await web.call('POST', '/v1/sagas/destroy_droplet', { body: { droplet_id: 4_711 } })).json()).sagaId;
    for (const tag of ['team:blue', 'TEAM:Blue']) expect(await idsOf(`tag=${tag}`)).toEqual([tagged]);
    expect(await idsOf('text=IND-m')).toEqual([tagged]);
    expect(await idsOf('text=%25')).toEqual([]);
    expect(await idsOf('droplet_id=4711')).toEqual([destroying]);
    expect(await idsOf('name=destroy_droplet')).toEqual([destroying]);
    expect(await idsOf('status=completed,stuck')).toEqual([]);
    expect((await idsOf('status=pending&status=running')).length).toBeGreaterThan(1);
    const { createdAt } = sagaWithTimeline.parse((await web.call('GET', `/v1/sagas/${tagged}`)).json());
    expect(await idsOf(`text=find-me&from=${createdAt}`)).toEqual([tagged]);
    expect(await idsOf(`text=find-me&before=${createdAt}`)).toEqual([]);
  });

  test('shows each once, page by page, while others are started', async () => {
    const wanted = new Set<string>();
    for (let index = 0; index < 12; index += 1) wanted.add(await start({ name: `page-${index}` }));
    // All of one moment: only the id tells them apart.
    await web.db.sql`update arcadia.sagas set created_at = '2026-01-01T00:00:00.123456Z' where input->>'name' in ('page-3', 'page-4', 'page-5', 'page-6')`;
    const seen: string[] = [];
    let cursor: string | null = '';
    while (cursor !== null) {
      const page = await list(`text=page-&limit=3${cursor === '' ? '' : `&cursor=${cursor}`}`);
      seen.push(...page.sagas.map(({ id }) => id));
      cursor = page.nextCursor;
      await start({ name: 'page-late' });
    }
    expect(seen.length).toBe(new Set(seen).size);
    expect(new Set(seen)).toEqual(wanted);
  });

  test.each([
    ['status=nope', 'status.0'],
    ['limit=0', 'limit'],
    ['limit=1e3', 'limit'],
    ['droplet_id=-1', 'droplet_id'],
    ['from=yesterday', 'from'],
    ['cursor=nonsense', 'cursor'],
    [`cursor=${Buffer.from('["2026-01-01T00:00:00Z","x"]').toString('base64url')}`, 'cursor'],
    ['colour=red', 'colour'],
    ['text=%00', 'text'],
  ])('names what is wrong with ?%s', async (query, field) => {
    expect(fieldsOf(expectProblem(await web.call('GET', `/v1/sagas?${query}`), 400, 'invalid_request'))).toContain(field);
  });

  test('tells what is no id from an id of nothing', async () => {
    expect(fieldsOf(expectProblem(await web.call('GET', '/v1/sagas/17'), 400, 'invalid_request'))).toEqual(['id']);
    const nobody = 'b7c9f6e0-1f5a-4a53-9d4e-1d9f64c1a001';
    for (const [method, path] of [['GET', ''], ['GET', '/events'], ['POST', '/cancel'], ['POST', '/retry'], ['POST', '/rerun']] as const) {
      expectProblem(await web.call(method, `/v1/sagas/${nobody}${path}`), 404, 'saga_not_found');
    }
    const asBrowser = { headers: { accept: 'text/html' } };
    for (const more of [{}, asBrowser]) expectProblem(await web.call('GET', '/v1/nothing', more), 404, 'not_found');
    expectProblem(await web.call('GET', '/nothing'), 404, 'not_found');
    const page = await web.call('GET', '/nothing', asBrowser);
    expect([page.status, page.headers.get('content-type')]).toEqual([404, 'text/html; charset=utf-8']);
    expect(page.text).toContain('nothing is at GET /nothing');
  });
});

describe('cancelling and retrying', () => {
  test('cancels once, says so when asked again, and audits it with the transition', async () => {
    const id = await start();
    const first = await web.call('POST', `/v1/sagas/${id}/cancel`, { body: { reason: 'too large' } });
    expect(first.status).toBe(202);
    expect(actionAnswer.parse(first.json())).toMatchObject({ result: 'accepted', saga: { status: 'compensated', error: { code: 'cancelled' } } });
    expect(actionAnswer.parse((await web.call('POST', `/v1/sagas/${id}/cancel`)).json()).result).toBe('already');
    expectProblem(await web.call('POST', `/v1/sagas/${id}/retry`), 409, 'saga_refused');
    const rows = await web.db.sql`select actor, action, detail from arcadia.audit where saga_id = ${id} order by id`;
    expect([...rows]).toEqual([
      { actor: 'http:anybody', action: 'saga_created', detail: { name: 'provision_droplet', startedBy: 'http:anybody' } },
      { actor: 'http:anybody', action: 'cancel_requested', detail: { by: 'http:anybody', reason: 'too large', status: 'compensated' } },
    ]);
  });

  test('takes an empty body as none, whatever its content type says', async () => {
    const ids = await Promise.all([start(), start()]);
    const cancel = async (id: string, headers: Record<string, string>) => actionAnswer.parse((await web.call('POST', `/v1/sagas/${id}/cancel`, { body: '', headers })).json());
    expect(await cancel(ids[0], {})).toMatchObject({ result: 'accepted', saga: { status: 'compensated' } });
    expect(await cancel(ids[1], { 'content-type': 'application/json; charset=utf-8' })).toMatchObject({ result: 'accepted' });
    expect((await web.call('POST', `/v1/sagas/${ids[0]}/rerun`, { body: '' })).status).toBe(202);
    expectProblem(await web.call('POST', `/v1/sagas/${ids[1]}/retry`, { body: '' }), 409, 'saga_refused');
  });

  test.each([
    ['/v1/sagas/provision_droplet', 'body: expected a JSON object with name, region, size, image'],
    ['/v1/bulk/cancel', 'body: expected a JSON object with filter, ids, dryRun, limit, reason'],
    ['/v1/droplets/4711/lease', 'body: expected a JSON object with ttl_s'],
  ])('says what the body of %s must have, if it is empty', async (path, detail) => {
    expect(expectProblem(await web.call('POST', path, { body: '' }), 400, 'invalid_request')).toMatchObject({ detail, errors: [{ field: 'body' }] });
  });

  test.each([undefined, 'null'])('says what the body of a bulk action must have, if it is %s', async (body) => {
    expect(expectProblem(await web.call('POST', '/v1/bulk/cancel', { body }), 400, 'invalid_request').detail).toBe('body: expected a JSON object with filter, ids, dryRun, limit, reason');
  });

  test('refuses to cancel what is completed', async () => {
    const id = await start();
    await web.db.sql`update arcadia.sagas set status = 'completed', finished_at = now() where id = ${id}`;
    const problem = expectProblem(await web.call('POST', `/v1/sagas/${id}/cancel`), 409, 'saga_refused');
    expect(problem.detail).toContain('completed');
  });

  test('resumes what is stuck, and enqueues it', async () => {
    const id = await start();
    await web.db.sql`update arcadia.sagas set status = 'stuck', wake_at = null where id = ${id}`;
    const answer = await web.call('POST', `/v1/sagas/${id}/retry`);
    expect(actionAnswer.parse(answer.json())).toMatchObject({ result: 'accepted', saga: { status: 'compensating' } });
    const board = await web.call('GET', `/queues/api/queues/saga-compensations/${id}_1`);
    expect(board.json()).toMatchObject({ job: { data: { sagaId: id }, externalUrl: { href: `/sagas/${id}` } } });
  });

  test('in bulk: says first whom it would be, then does it, as far as the limit goes', async () => {
    const ids = await Promise.all(Array.from({ length: 5 }, (_, index) => start({ name: `bulk-${index}` })));
    const bulk = async (body: object) => bulkAnswer.parse((await web.call('POST', '/v1/bulk/cancel', { body })).json());
    const would = await bulk({ filter: { text: 'bulk-' } });
    expect(would).toMatchObject({ dryRun: true, matched: 5, remaining: 0 });
    expect(new Set(would.sagas.map(({ sagaId }) => sagaId))).toEqual(new Set(ids));
    const some = await bulk({ filter: { text: 'bulk-' }, dryRun: false, limit: 3, reason: 'clean up' });
    expect(some).toMatchObject({ dryRun: false, matched: 5, remaining: 2 });
    expect(some.sagas.map(({ result }) => result)).toEqual(['accepted', 'accepted', 'accepted']);
    expect((await bulk({ filter: { text: 'bulk-' } })).matched).toBe(2);
    expect((await bulk({ filter: { text: 'bulk-', status: ['completed'] } })).matched).toBe(0);
    const audited = await web.db.sql`select saga_id from arcadia.audit where action = 'cancel_requested' and saga_id in ${web.db.sql(ids)}`;
    expect(audited.length).toBe(3);
    for (const body of [{}, { filter: {} }, { ids: [] }, { ids: ['1'] }]) expectProblem(await web.call('POST', '/v1/bulk/cancel', { body }), 400, 'invalid_request');
    expect(fieldsOf(expectProblem(await web.call('POST', '/v1/bulk/retry', { body: { filter: { colour: 1 } } }), 400, 'invalid_request'))).toContain('filter.colour');
  });
});

const bulk = async (action: string, body: object) => bulkAnswer.parse((await web.call('POST', `/v1/bulk/${action}`, { body })).json());
const setStatus = (id: string, status: string) => web.db.sql`update arcadia.sagas set status = ${status}, wake_at = case when ${status} not in ('completed', 'stuck') then wake_at end where id = ${id}`;

describe('in bulk by the ids of a dry run', () => {
  test('only those are cancelled, and what changed meanwhile is told', async () => {
    const ids = [await start({ name: 'named-1' }), await start({ name: 'named-2' }), await start({ name: 'named-3' })];
    const [first = '', second = '', third = ''] = ids;
    const filter = { text: 'named-' };
    const would = await bulk('cancel', { filter });
    expect(new Set(would.ids)).toEqual(new Set(ids));
    const late = await start({ name: 'named-4' });
    await setStatus(second, 'completed');
    const gone = '00000000-0000-4000-8000-000000000000';
    const done = await bulk('cancel', { filter, ids: [first, second, third.toUpperCase(), third, gone], dryRun: false });
    expect(done).toEqual({
      dryRun: false,
      matched: 2,
      ids: [...ids, gone],
      sagas: [
        { sagaId: first, result: 'accepted', status: 'compensated' },
        { sagaId: second, result: 'refused', status: 'completed', why: 'the saga is already completed' },
        { sagaId: third, result: 'accepted', status: 'compensated' },
        { sagaId: gone, result: 'not_found' },
      ],
      remaining: 0,
    });
    expect(await bulk('cancel', { filter })).toMatchObject({ matched: 1, ids: [late] });
  });

  test('is a dry run by default, and stays within the filter where there is one', async () => {
    const [inside, outside, over] = [await start({ name: 'fenced-in' }), await start({ name: 'fenced-out' }), await start({ name: 'fenced-in-2' })];
    await setStatus(over, 'compensating');
    const ids = [inside, outside, over];
    const would = await bulk('cancel', { ids });
    expect(would.sagas.map(({ result }) => result)).toEqual(['would', 'would', 'refused']);
    const done = await bulk('cancel', { ids, filter: { text: 'fenced-in' }, dryRun: false, limit: 1 });
    expect(done.sagas.map(({ result, why }) => [result, why])).toEqual([['accepted', undefined], ['refused', 'the saga does not match the filter'], ['already', undefined]]);
  });

  test('those that are stuck are retried', async () => {
    const [shown, late] = [await start({ name: 'wedged-1' }), await start({ name: 'wedged-2' })];
    await setStatus(shown, 'stuck');
    const { ids } = await bulk('retry', { filter: { text: 'wedged-' } });
    await setStatus(late, 'stuck');
    expect(await bulk('retry', { ids, dryRun: false })).toMatchObject({ matched: 1, sagas: [{ sagaId: shown, result: 'accepted', status: 'compensating' }] });
    expect((await bulk('retry', { filter: { text: 'wedged-' } })).ids).toEqual([late]);
  });
});

describe('the inventory', () => {
  test('is shown by name, page by page, without what is gone', async () => {
    for (let index = 0; index < 5; index += 1) {
      await web.db.sql`
        insert into arcadia.cloud_resources (provider, provider_id, kind, name, region, status, tags, deleted_at)
        values ('digitalocean', ${String(index)}, 'droplet', ${index < 3 ? 'same-name' : `name-${index}`}, 'fra1', 'active', ${['t']}, ${index === 4 ? new Date() : null})`;
    }
    const resources = async (query: string) => resourcesAnswer.parse((await web.call('GET', `/v1/resources?${query}`)).json());
    const first = await resources('limit=2&tag=t');
    const second = await resources(`limit=2&tag=t&cursor=${first.nextCursor}`);
    expect([...first.resources, ...second.resources].map(({ providerId }) => providerId).toSorted()).toEqual(['0', '1', '2', '3']);
    expect(second.nextCursor).toBeNull();
    await web.db.sql`update arcadia.cloud_resources set tags = '{MY-TAG}', region = 'syd1' where provider_id = '2'`;
    for (const query of ['tag=my-tag', 'tag=MY-TAG', 'region=SYD1', 'region=syd1&tag=My-Tag']) {
      expect([query, (await resources(query)).resources.map(({ providerId }) => providerId)]).toEqual([query, ['2']]);
    }
    expect((await resources('deleted=true')).resources.length).toBe(5);
    expect((await resources('droplet_id=2')).resources.map(({ name }) => name)).toEqual(['same-name']);
    expectProblem(await web.call('GET', '/v1/resources?cursor=x'), 400, 'invalid_request');
  });
});

describe('the description', () => {
  test('shows the input of each saga, and every route of the API', async () => {
    const document = z
      .object({ openapi: z.string(), paths: z.record(z.string(), z.record(z.string(), z.looseObject({}))) })
      .parse((await web.call('GET', '/openapi.json')).json());
    expect(document.openapi).toBe('3.1.0');
    expect(Object.keys(document.paths).toSorted()).toEqual([
      '/v1/audit', '/v1/bulk/cancel', '/v1/bulk/rerun', '/v1/bulk/retry', '/v1/drift', '/v1/drift/{id}/accept', '/v1/droplets/{id}/lease', '/v1/droplets/{id}/protection', '/v1/leases', '/v1/leases/approve', '/v1/orphans', '/v1/orphans/acknowledge', '/v1/orphans/unacknowledge', '/v1/outcomes', '/v1/outcomes/{subscription}/resume', '/v1/plans', '/v1/ready/{token}', '/v1/resources', '/v1/sagas', '/v1/sagas/adopt_droplet', '/v1/sagas/destroy_droplet', '/v1/sagas/provision_droplet',
      '/v1/sagas/{id}', '/v1/sagas/{id}/cancel', '/v1/sagas/{id}/events', '/v1/sagas/{id}/rerun', '/v1/sagas/{id}/retry',
    ]);
    expect(JSON.stringify(document.paths['/v1/sagas/provision_droplet'])).toContain('ssh_keys');
    // A client that stops at a short page would miss sagas.
    expect(JSON.stringify(document.paths['/v1/sagas'])).toContain('a page may have fewer sagas than the limit, or none, and still be followed by others');
    // The page for people lists them all; one of several in a row by its last part.
    const reference = readFileSync(new URL('../../docs/reference/web.md', import.meta.url), 'utf8');
    const told = (path: string) => reference.includes(path.replaceAll(/\{(\w+)\}/g, ':$1')) || reference.includes(`\`/${path.split('/').at(-1) ?? ''}\``);
    expect(Object.keys(document.paths).filter((path) => !/^\/v1\/sagas\/(provision|destroy|adopt)_droplet$/.test(path) && !told(path))).toEqual([]);
    const page = await web.call('GET', '/docs');
    expect(page.headers.get('content-type')).toContain('text/html');
    expect(page.text).toContain('/v1/sagas/{id}/events');
  });
});

describe('drift and orphans', () => {
  test('are listed; drift is accepted once, by whom is on record', async () => {
    const [resource] = await web.db.sql<{ id: string }[]>`
      insert into arcadia.cloud_resources (provider, provider_id, kind, name, status, size_slug) values ('digitalocean', '4711', 'droplet', 'web-9', 'active', 's-2vcpu-4gb') returning id`;
    const sagaId = crypto.randomUUID();
    const resourceId = resource?.id ?? '';
    await web.db.sql`
      insert into arcadia.cloud_provisioned (resource_id, spec, provisioned_by, saga_id)
      values (${resourceId}, '{"size_slug": "s-1vcpu-1gb", "region": "fra1", "image": "debian-12-x64"}', ${`saga:${sagaId}`}, ${sagaId})`;
    await web.db.sql`insert into arcadia.cloud_drift (resource_id, field, desired, actual) values (${resourceId}, 'size_slug', 's-1vcpu-1gb', 's-2vcpu-4gb')`;
    await web.db.sql`
      insert into arcadia.cloud_orphans (resource_id, category, reason, price_usd_per_hour, created_at, first_sync, last_sync)
      values (${resourceId}, 'unknown', 'it carries no id of a saga', 0.5, now(), 1, 2)`;
    const { drift } = driftsAnswer.parse((await web.call('GET', '/v1/drift')).json());
    expect(drift).toMatchObject([{ providerId: '4711', name: 'web-9', field: 'size_slug', desired: 's-1vcpu-1gb', actual: 's-2vcpu-4gb', sagaId, resolution: null }]);
    const { orphans } = orphansAnswer.parse((await web.call('GET', '/v1/orphans?limit=5')).json());
    expect(orphans).toMatchObject([{ providerId: '4711', category: 'unknown', priceUsdPerHour: 0.5, approvedAt: null }]);
    expect(orphansAnswer.parse((await web.call('GET', '/v1/orphans?limit=1')).json())).toMatchObject({ more: false });
    const [{ id: orphanId } = { id: 0 }] = orphans;
    const acknowledged = async (path: string, body: unknown) => acknowledgedAnswer.parse((await web.call('POST', `/v1/orphans/${path}`, { body })).json());
    expect(await acknowledged('acknowledge', { ids: [orphanId, 999_999], reason: 'that of staging' })).toEqual({ ids: [orphanId] });
    expect(orphansAnswer.parse((await web.call('GET', '/v1/orphans')).json()).orphans).toMatchObject([{ id: orphanId, category: 'unknown', acknowledgedReason: 'that of staging' }]);
    expect(await acknowledged('unacknowledge', { ids: [orphanId] })).toEqual({ ids: [orphanId] });
    expect(orphansAnswer.parse((await web.call('GET', '/v1/orphans')).json()).orphans).toMatchObject([{ acknowledgedAt: null, acknowledgedReason: null }]);
    expect((await web.call('POST', '/v1/orphans/acknowledge', { body: { ids: [] } })).status).toBe(400);
    await web.db.sql`insert into arcadia.cloud_drift (resource_id, field, desired, actual) values (${resourceId}, 'region', 'fra1', 'nyc3')`;
    expect(driftsAnswer.parse((await web.call('GET', '/v1/drift?limit=1')).json())).toMatchObject({ drift: [{ field: 'size_slug' }], more: true });
    expect(driftsAnswer.parse((await web.call('GET', '/v1/drift')).json())).toMatchObject({ drift: [{}, {}], more: false });
    await web.db.sql`delete from arcadia.cloud_drift where field = 'region'`;

    const accept = () => web.call('POST', `/v1/drift/${drift[0]?.id}/accept`);
    expect(acceptedAnswer.parse((await accept()).json()).drift.id).toBe(drift[0]?.id);
    expectProblem(await accept(), 409, 'drift_refused');
    expectProblem(await web.call('POST', '/v1/drift/999999/accept'), 404, 'not_found');
    expectProblem(await web.call('POST', '/v1/drift/first/accept'), 400, 'invalid_request');
    expect(driftsAnswer.parse((await web.call('GET', '/v1/drift')).json()).drift).toEqual([]);
    expect(driftsAnswer.parse((await web.call('GET', '/v1/drift?resolved=true')).json()).drift).toMatchObject([{ resolution: 'accepted' }]);
    const [row] = await web.db.sql<{ spec: object; actor: string }[]>`
      select spec, (select actor from arcadia.audit where action = 'drift_accepted') as actor from arcadia.cloud_provisioned where resource_id = ${resourceId}`;
    expect(row).toEqual({ spec: { size_slug: 's-2vcpu-4gb', region: 'fra1', image: 'debian-12-x64' }, actor: 'http:anybody' });
  });
});
