import { inspect } from 'node:util';
import got from 'got';
import { pino } from 'pino';
import { describe, expect, test } from 'vitest';
import { DigitalOceanError } from '../../src/do/errors.ts';
import { clientOf, createDroplet, errorOf, sendJson, startServer, TOKEN, type Received } from './support.ts';

const USER_DATA = '#cloud-config\nwrite_files:\n  - content: "user-data-canary-77"\n';
const request = { name: 'web-1', size: 's-1vcpu-1gb', image: 'ubuntu-24-04-x64', user_data: USER_DATA };

/** Everything that a log, a job record or a debugger would show of an error. */
function printed(error: Error): string {
  let logged = '';
  const logger = pino({}, { write: (line: string) => void (logged += line) });
  logger.error(error);
  logger.error({ err: error, error });
  return [
    JSON.stringify(error), JSON.stringify(error, Object.getOwnPropertyNames(error)), String(error), error.stack,
    inspect(error, { depth: Infinity, showHidden: true }), logged,
  ].join('\n');
}

function secretsIn(error: Error): string[] {
  const everything = printed(error);
  return [TOKEN, 'user-data-canary'].filter((secret) => everything.includes(secret));
}

describe('the token and user_data', () => {
  test.each([
    ['a hang', () => {}],
    ['a reset', (_: Received, response: { destroy: () => void }) => response.destroy()],
  ])('are not in the error after %s', async (_title, answer) => {
    const server = await startServer(answer);
    expect(secretsIn(await errorOf(createDroplet(clientOf(server, { timeoutMs: 150 }), request)))).toEqual([]);
    expect(secretsIn(await errorOf(clientOf(server, { timeoutMs: 150 }).getDroplet(7)))).toEqual([]);
  });

  test('would be in the error of the HTTP library, which is no cause of ours', async () => {
    const error = await errorOf(createDroplet(clientOf({ url: 'http://127.0.0.1:1' }), request));
    expect(error.cause).toBeUndefined();
    const foreign = await got.post('http://127.0.0.1:1', { headers: { authorization: TOKEN }, json: request, retry: { limit: 0 } }).catch((reason: Error) => reason);
    expect(inspect(foreign, { depth: Infinity })).toContain(TOKEN);
  });

  test('are not in the error when there was no connection', async () => {
    expect(secretsIn(await errorOf(createDroplet(clientOf({ url: 'http://127.0.0.1:1' }), request)))).toEqual([]);
  });

  test('are not in the error when the API repeats the whole request', async () => {
    const server = await startServer(({ headers, body }, response) =>
      sendJson(response, 422, { id: TOKEN, message: `Bad: ${headers.authorization} ${body}`, request_id: TOKEN }));
    const error = await errorOf(createDroplet(clientOf(server), request));
    expect(secretsIn(error)).toEqual([]);
    expect(error).toMatchObject({ code: 'http_422', requestId: null });
  });

  test.each([
    ['as it is', USER_DATA],
    ['as JSON', JSON.stringify(USER_DATA)],
    ['cut short', USER_DATA.slice(20, -12)],
    ['on one line', USER_DATA.replaceAll(/\s+/g, ' ')],
  ])('are not in the error when the API repeats user_data %s', async (_title, echo) => {
    const server = await startServer((_, response) => sendJson(response, 422, { id: 'unprocessable_entity', message: `user_data ${echo}` }));
    const error = await errorOf(createDroplet(clientOf(server), request));
    expect(secretsIn(error)).toEqual([]);
    expect(error.message).toBe('DigitalOcean returned 422 for POST /v2/droplets: it does not say why');
  });

  test('are struck out where the rest of a message can be kept', async () => {
    const server = await startServer((_, response) => sendJson(response, 401, { message: `The token ${TOKEN} has expired.` }));
    const error = await errorOf(clientOf(server).getDroplet(7));
    expect(secretsIn(error)).toEqual([]);
    expect(error.message).toContain('The token [redacted] has expired.');
  });

  test('are not in the error when they come back in a body that cannot be used', async () => {
    const server = await startServer(({ headers, body }, response) =>
      sendJson(response, 202, { droplet: { [`${headers.authorization}`]: body, id: `${headers.authorization}${body}` } }));
    expect(secretsIn(await errorOf(createDroplet(clientOf(server), request)))).toEqual([]);
  });
});

describe('a message of the API', () => {
  test.each([
    ['is cut to 500 characters', 'x'.repeat(2_000), 'x'.repeat(500)],
    ['is put on one line', 'one\r\n\ttwo\u0000\u001b[31m', 'one two [31m'],
    ['is dropped when it is a page', '<!DOCTYPE html><html>Oops</html>', 'it does not say why'],
    ['is dropped when it is empty', ' ', 'it does not say why'],
  ])('%s', async (_title, message, expected) => {
    const server = await startServer((_, response) => sendJson(response, 400, { message }));
    const error = await errorOf(clientOf(server).getDroplet(7));
    expect(error).toBeInstanceOf(DigitalOceanError);
    expect(error.message).toBe(`DigitalOcean returned 400 for GET /v2/droplets/7: ${expected}`);
  });
});
