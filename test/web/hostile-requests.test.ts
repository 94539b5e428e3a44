// Requests that nobody should send, to every route of the OpenAPI document, with every parameter and field that it names:
// each is answered, and none as if the fault were ours.
import { connect } from 'node:net';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { z } from 'zod';
import { problemSchema } from '../../src/web/problems.ts';
import { droplet, openWebStage, sagaIdOf } from './stage.ts';
import type { Answer, Web } from './stage.ts';

let web: Web;
let id: string;
beforeAll(async () => {
  web = await openWebStage();
  id = sagaIdOf(await web.call('POST', '/v1/sagas/provision_droplet', { body: droplet }));
  // A stream of a saga that is at rest ends.
  await web.db.sql`update arcadia.sagas set status = 'completed', finished_at = now(), wake_at = null where id = ${id}`;
});
afterAll(() => web[Symbol.asyncDispose]());

// Some two thousand requests: seconds, but for a machine that does much else.
const LONG_MS = 90_000;

const cursorOf = (place: unknown): string => Buffer.from(JSON.stringify(place)).toString('base64url');
const UUID = '00000000-0000-4000-8000-000000000000';

const texts: readonly string[] = [
  '', ' ', '\0', 'a\0b', '\ud800', 'x\udc00', '\u202e', "'; drop table x; --", '%', '%25', '\\', '{}', '[]', 'null', 'NaN', '-1', '0', '1.5', '1e9', '1e999', '9'.repeat(14), '9'.repeat(15), '9'.repeat(40),
  '2147483648', '9223372036854775808', '0000-01-01T00:00:00Z', '0001-01-01T00:00:00+14:00', '9999-12-31T23:59:59-14:00', '2026-02-30T00:00:00Z', '2026-01-01T24:00:00Z', '2026-01-01', 'infinity',
  'pending,,stuck', UUID, UUID.replaceAll('0', 'A'), 'x'.repeat(5_000), '🦀'.repeat(300), '__proto__', 'constructor',
  cursorOf(null), cursorOf([]), cursorOf(['0000-01-01T00:00:00.000000Z', UUID]), cursorOf(['2026-01-01T00:00:00.000000Z', 'x']), cursorOf(['\0', UUID]), cursorOf(['\ud800', UUID]), cursorOf(['x', 'y', 'z']),
  '0.', '1.x', '3.', `0.${cursorOf(['0000-01-01T00:00:00.000000Z', UUID])}`, 'gibberish',
];

const deep = (depth: number): string => '{"a":'.repeat(depth) + '1' + '}'.repeat(depth);
const values: readonly unknown[] = [
  ...texts.filter((_, index) => index % 4 === 0), '\0', '\ud800', '0000-01-01T00:00:00Z', '9999-12-31T23:59:59-14:00', null, true, 0, -1, 1.5, 1e300, Number.MAX_SAFE_INTEGER, 2 ** 53, 2_147_483_648, [], [null], ['\ud800'], [[['x']]], {}, { a: 1 }, { '\0': 1 }, { '\ud800': 1 },
  Array.from({ length: 3_000 }, () => 'x'), JSON.parse(deep(3_000)),
];

const schema = z.looseObject({ properties: z.record(z.string(), z.unknown()).optional() });
const documentSchema = z.object({
  paths: z.record(
    z.string(),
    z.record(
      z.string(),
      z.looseObject({
        parameters: z.array(z.looseObject({ name: z.string(), in: z.string() })).optional(),
        requestBody: z.looseObject({ content: z.looseObject({ 'application/json': z.looseObject({ schema }).optional() }) }).optional(),
      }),
    ),
  ),
});

type Route = { method: string; path: string; query: string[]; headers: string[]; fields: string[] };

async function routes(): Promise<Route[]> {
  const { paths } = documentSchema.parse((await web.call('GET', '/openapi.json')).json());
  return Object.entries(paths).flatMap(([path, operations]) =>
    Object.entries(operations).map(([method, { parameters = [], requestBody }]) => ({
      method: method.toUpperCase(),
      path,
      query: parameters.filter((parameter) => parameter.in === 'query').map(({ name }) => name),
      headers: parameters.filter((parameter) => parameter.in === 'header').map(({ name }) => name),
      fields: Object.keys(requestBody?.content['application/json']?.schema.properties ?? {}),
    })),
  );
}

const placed = (path: string, value = id): string => path.replaceAll(/\{\w+\}/g, value);
const encoded = (value: string): string => encodeURIComponent(value.toWellFormed());

/** Refused by Postgres, where no schema had named the field. */
const isUnnamed = ({ text }: Answer): boolean => text.includes('neither stored nor looked for');

/** What is the same for all routes is tried on one of them. */
const isFirst = (path: string): boolean => path === '/v1/sagas' || path === '/v1/bulk/cancel';

/** What was answered with a 5xx, or not as a problem document. */
const wrong: string[] = [];
async function send(what: string, method: string, path: string, more: Parameters<Web['call']>[2] = {}): Promise<Answer> {
  const answer = await web.call(method, path, more);
  const isProblem = answer.status < 400 || answer.status === 404 || problemSchema.safeParse(answer.text === '' ? null : answer.json()).success;
  if (answer.status >= 500 || !isProblem || isUnnamed(answer)) wrong.push(`${method} ${what}: ${answer.status} ${answer.text.slice(0, 200)}`);
  return answer;
}

async function inTurns(work: readonly (() => Promise<unknown>)[]): Promise<string[]> {
  wrong.length = 0;
  for (let start = 0; start < work.length; start += 20) await Promise.all(work.slice(start, start + 20).map((call) => call()));
  return wrong;
}

describe('no request is answered 5xx', () => {
  test('whatever stands in a path', async () => {
    const garbage = ['%', '%zz', '%ff', '%00', '%ed%a0%80', '%2e%2e%2f', 'a%2fb', '..', ...texts.filter((text) => text !== '').map(encoded)];
    const all = (await routes()).filter(({ path }) => path.includes('{'));
    expect(all.length).toBeGreaterThan(3);
    const calls = all.flatMap(({ method, path }) => garbage.map((value) => () => send(`${path} ${value.slice(0, 50)}`, method, placed(path, value))));
    expect(await inTurns(calls)).toEqual([]);
  });

  test('whatever a parameter of a query holds, once or twice, in the API and on the pages', async () => {
    const ofPages = [{ method: 'GET', path: '/sagas', query: ['q', 'status', 'name', 'tag', 'from', 'before', 'cursor'] }, { method: 'GET', path: '/sagas/bulk', query: ['action', 'q', 'status', 'from', 'tag', 'reason'] }];
    const all = [...(await routes()), ...ofPages].filter(({ query }) => query.length > 0);
    expect(all.length).toBeGreaterThan(4);
    const calls = all.flatMap(({ method, path, query }) =>
      [...query, '__proto__'].flatMap((name) =>
        [...texts.map((text) => `${name}=${encoded(text)}`), ...['%', '%zz', '%ed%a0%80'].map((value) => `${name}=${value}`), `${name}=1&${name}=1`, `${name}=a&${name}=b`, `${name}[]=1`].map((given) => async () => {
          const answer = await web.call(method, `${placed(path)}?${given}`, { headers: { accept: 'application/json' } });
          if (answer.status >= 500 || isUnnamed(answer)) wrong.push(`${method} ${path}?${given.slice(0, 80)}: ${answer.status} ${answer.text.slice(0, 200)}`);
        }),
      ),
    );
    expect(await inTurns(calls)).toEqual([]);
  }, LONG_MS);

  test('whatever a field of a body, or a body, is', async () => {
    const all = (await routes()).filter(({ method }) => method === 'POST');
    expect(all.length).toBeGreaterThan(4);
    const whole = [...values.map((value) => JSON.stringify(value)), '', '{', '"', '{"a":1}x', '{"__proto__":{"a":1}}', '[' + '['.repeat(20_000) + ']'.repeat(20_000) + ']', deep(20_000), '\ufeff{}'];
    const calls = all.flatMap(({ method, path, fields }) => [
      ...(isFirst(path) ? whole : whole.slice(-12)).map((body) => () => send(`${path} ${body.slice(0, 50)}`, method, placed(path), { body })),
      ...[...fields, 'unheard_of'].flatMap((field) => values.map((value) => () => send(`${path} ${field} ${JSON.stringify(value).slice(0, 50)}`, method, placed(path), { body: { ...(path.includes('provision') ? droplet : {}), [field]: value } }))),
      ...['name', 'tag', 'from', 'before', 'text', 'requested_by', 'droplet_id', 'status'].flatMap((field) =>
        path.includes('/bulk/') ? values.map((value) => () => send(`${path} filter.${field} ${JSON.stringify(value).slice(0, 50)}`, method, placed(path), { body: { filter: { [field]: value } } })) : [],
      ),
    ]);
    expect(await inTurns(calls)).toEqual([]);
  }, LONG_MS);

  test('whatever a header holds', async () => {
    const given = ['', ' ', 'x'.repeat(4_000), '-1', '1e9', '9'.repeat(40), '\u00ff', 'a,b', '"', '%00'];
    const names = ['authorization', 'content-type', 'accept', 'host', 'traceparent', 'idempotency-key', 'last-event-id', 'x-forwarded-for'];
    const calls = (await routes()).flatMap(({ method, path, headers }) =>
      (isFirst(path) ? names : headers).flatMap((name) => given.map((value) => () => send(`${path} ${name}`, method, placed(path), { ...(method === 'POST' ? { body: {} } : {}), headers: { [name]: value } }))),
    );
    expect(await inTurns(calls)).toEqual([]);
  });
});

describe('what is wrong is named', () => {
  test.each<[string, string, unknown, string, RegExp]>([
    ['GET', '/v1/sagas?from=0000-01-01T00:00:00Z', undefined, 'from', /expected a time from the year 1 to 9999/],
    ['GET', '/v1/sagas?before=9999-12-31T23:59:59-14:00', undefined, 'before', /expected a time from the year 1 to 9999/],
    ['GET', '/v1/sagas?tag=%00', undefined, 'tag', /expected text without NUL/],
    ['GET', '/v1/sagas?limit=5&limit=6', undefined, 'limit', /expected/],
    ['GET', `/v1/sagas?cursor=${cursorOf(['0000-01-01T00:00:00.000000Z', UUID])}`, undefined, 'cursor', /expected the nextCursor/],
    ['GET', `/v1/resources?cursor=${cursorOf(['\0', UUID])}`, undefined, 'cursor', /expected the nextCursor/],
    ['POST', '/v1/bulk/cancel', { filter: { tag: '\ud800' } }, 'filter.tag', /expected text without NUL characters and broken surrogates/],
    ['POST', '/v1/bulk/retry', { filter: { from: '0000-01-01T00:00:00Z' } }, 'filter.from', /expected a time from the year 1 to 9999/],
    ['POST', '/v1/bulk/cancel', JSON.parse(deep(33)), 'body', /expected at most 32 levels of nesting/],
    ['GET', '/v1/sagas/%zz', undefined, 'path', /expected UTF-8 that is percent-encoded/],
    ['GET', `/v1/sagas/${'x'.repeat(101)}`, undefined, 'path', /expected at most 100 characters/],
  ])('%s %s with %j: %s', async (method, path, body, field, message) => {
    const answer = await web.call(method, path, body === undefined ? {} : { body });
    const problem = problemSchema.parse(answer.json());
    expect([answer.status, problem.errors?.map((error) => error.field)]).toEqual([400, [field]]);
    expect(problem.errors?.[0]?.message).toMatch(message);
  });

  test.each<[string, string, unknown, string, string]>([
    ['GET', '/v1/sagas?from=now', undefined, 'from', 'expected a time, such as 2026-01-31T12:00:00Z'],
    ['GET', '/v1/sagas?limit=-1', undefined, 'limit', 'expected a whole number from 1 to 200'],
    ['POST', '/v1/sagas/provision_droplet', { ...droplet, lease: { ttl_s: 1e300 } }, 'lease.ttl_s', 'expected whole seconds from 1 to 31622400 (366 days)'],
    ['POST', '/v1/sagas/provision_droplet', { ...droplet, size: '' }, 'size', 'expected at least 1 character'],
    ['POST', '/v1/bulk/cancel', { ids: [UUID], limit: 1e300 }, 'limit', 'expected a whole number from 1 to 1000'],
  ])('%s %s with %j: one problem a field', async (method, path, body, field, message) => {
    const answer = await web.call(method, path, body === undefined ? {} : { body });
    expect(answer.json()).toMatchObject({ errors: [{ field, message }] });
  });

  test('ten fields at most, with the beginning of their names', async () => {
    const body = Object.fromEntries(Array.from({ length: 2_000 }, (_, index) => [`${'x'.repeat(200)}${index}`, 1]));
    for (const path of ['/v1/sagas/provision_droplet', '/v1/bulk/retry']) {
      const answer = await web.call('POST', path, { body });
      expect([path, answer.status < 500, answer.text.length < 5_000]).toEqual([path, true, true]);
      expect(problemSchema.parse(answer.json()).errors).toHaveLength(11);
    }
  });

  test('a reason of 1,000 characters is taken, one of 1,001 is not', async () => {
    const answers = await Promise.all([1_000, 1_001].map((length) => web.call('POST', `/v1/sagas/${id}/cancel`, { body: { reason: 'x'.repeat(length) } })));
    expect(answers.map(({ status }) => status)).toEqual([409, 400]);
  });
});

test('an id in capitals is the same id, in the API, on the pages and for a stream', async () => {
  const capitals = id.toUpperCase();
  expect((await web.call('GET', `/v1/sagas/${capitals}`)).json()).toMatchObject({ id });
  expect((await web.call('GET', `/sagas/${capitals}`, { headers: { accept: 'text/html' } })).text).toContain(`<code data-copy>${id}</code>`);
  expect((await web.call('GET', `/v1/sagas/${capitals}/events`)).text).toContain('event: end');
  expect((await web.call('POST', `/v1/sagas/${capitals}/cancel`)).json()).toMatchObject({ code: 'saga_refused' });
});

test.each([
  ['headers that are too large', `GET /v1/sagas HTTP/1.1\r\nhost: a\r\nx: ${'y'.repeat(20_000)}\r\n\r\n`, 431, 'headers_too_large'],
  ['a path that is too long', `GET /v1/sagas/${'y'.repeat(20_000)} HTTP/1.1\r\nhost: a\r\n\r\n`, 431, 'headers_too_large'],
  ['no HTTP', 'hello\r\n\r\n', 400, 'invalid_request'],
  ['a length that is none', 'POST /v1/bulk/cancel HTTP/1.1\r\nhost: a\r\ncontent-length: -1\r\n\r\n', 400, 'invalid_request'],
])('%s is answered with a problem document', async (_what, bytes, status, code) => {
  const { hostname, port } = new URL(web.url);
  const socket = connect(Number(port), hostname);
  socket.on('error', () => undefined);
  let answer = '';
  socket.setEncoding('utf8').on('data', (text: string) => (answer += text));
  const closed = new Promise((resolve) => socket.once('close', resolve));
  socket.write(bytes);
  await closed;
  const [head = '', body = ''] = answer.split('\r\n\r\n');
  expect(head).toMatch(new RegExp(String.raw`^HTTP/1\.1 ${status} [^]*content-type: application/problem\+json`));
  expect(problemSchema.parse(JSON.parse(body))).toMatchObject({ status, code });
  expect(head).toContain(`content-length: ${Buffer.byteLength(body)}`);
});

test('raw bytes that are no HTTP end their own connection, and nothing else', async () => {
  const { hostname, port } = new URL(web.url);
  for (const bytes of ['\0\0\0\0', `GET /\ud800 HTTP/1.1\r\n\r\n`, `GET / HTTP/1.1\r\nhost: a\r\nx: ${'y'.repeat(100_000)}\r\n\r\n`, 'POST /v1/bulk/cancel HTTP/1.1\r\nhost: a\r\ncontent-length: -1\r\n\r\n']) {
    const socket = connect(Number(port), hostname);
    const closed = new Promise((resolve) => socket.once('close', resolve));
    // Reset, as what was sent is not read to its end.
    socket.on('error', () => undefined);
    socket.end(bytes);
    socket.resume();
    await closed;
  }
  expect((await web.call('GET', '/healthz')).status).toBe(200);
});
