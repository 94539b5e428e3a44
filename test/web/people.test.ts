// People on the web: several, each with a role; passwords as hashes; or logged in by a proxy.
import { spawnSync } from 'node:child_process';
import { randomBytes, scryptSync } from 'node:crypto';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { requireClosedWeb } from '../../src/platform/closed-ports.ts';
import { loadConfig } from '../../src/platform/config.ts';
import { hashPassword, isPassword, parsePasswordHash } from '../../src/platform/passwords.ts';
import { listAudit } from '../../src/saga/audit.ts';
import { parseUsers, readUsers } from '../../src/web/users.ts';
import { programFile } from '../support/programs.ts';
import { waitFor } from '../support/wait-for.ts';
import { basic, bearer, credentials, droplet, openLog, openWebStage, sagaIdOf, secrets } from './stage.ts';
import type { Web } from './stage.ts';

const passwords = { rita: 'rita reads the pages', stan: 'stan starts some sagas', olga: 'ölga operates: all of it' } as const;
const folder = mkdtempSync(join(tmpdir(), 'arcadia-users-'));
const usersFile = join(folder, 'users');
let lines: string[];

beforeAll(async () => {
  const hashes = [hashCheaply(passwords.rita), hashCheaply(passwords.stan), await hashPassword(passwords.olga)];
  lines = ['# who may do what', '', `rita:read:${hashes[0]}`, `stan:start:${hashes[1]}`, `olga:operate:${hashes[2]}`, 'petra:operate'];
  writeFileSync(usersFile, lines.join('\n'));
});
afterAll(() => rmSync(folder, { recursive: true }));

/** As weak as the file takes one, to spare the processor. Olga's is as strong as `arcadia hash-password` makes them. */
function hashCheaply(password: string): string {
  const salt = randomBytes(16);
  const hash = scryptSync(password, salt, 32, { N: 2 ** 14, r: 8, p: 1 });
  const [saltText, hashText] = [salt, hash].map((bytes) => bytes.toString('base64').replace(/=+$/, ''));
  return `$scrypt$ln=14,r=8,p=1$${saltText}$${hashText}`;
}

const statusesFor = async (web: Web, headers: Record<string, string>) => {
  const ask = async (method: string, path: string, body?: unknown) => (await web.call(method, path, { headers, ...(body === undefined ? {} : { body }) })).status;
  return {
    read: await ask('GET', '/sagas'),
    start: await ask('POST', '/v1/sagas/provision_droplet', droplet),
    destroy: await ask('POST', '/v1/sagas/destroy_droplet', { droplet_id: 4711 }),
    operate: await ask('POST', '/v1/bulk/retry', { filter: { text: 'nothing-has-this-name' } }),
  };
};

/** The line of a user. */
const lineOf = (name: string) => lines.find((line) => line.startsWith(`${name}:`)) ?? '';

/** The banner of a page, without its tags. */
const textOfStrip = (page: string) => (/<section id="fleet".*?<\/section>/s.exec(page)?.[0] ?? '').replaceAll(/<[^>]*>/g, '');

const mayRead = { read: 200, start: 403, destroy: 403, operate: 403 };
const mayStart = { read: 200, start: 202, destroy: 403, operate: 403 };
const mayDoAll = { read: 200, start: 202, destroy: 202, operate: 200 };
const nobody = { read: 401, start: 401, destroy: 401, operate: 401 };

describe('with a file of users', () => {
  let web: Web;
  beforeAll(async () => {
    web = await openWebStage({ DASHBOARD_USERS_FILE: usersFile, API_TOKENS: `reader:read:${secrets.read}` });
  });
  afterAll(() => web[Symbol.asyncDispose]());

  test.each([
    ['rita', mayRead],
    ['stan', mayStart],
    ['olga', mayDoAll],
  ] as const)('lets %s do what the role says, and no more', async (name, expected) => {
    expect(await statusesFor(web, basic(name, passwords[name]))).toEqual(expected);
  });

  test.each([
    ['a wrong password', basic('rita', passwords.stan)],
    ['an unknown user', basic('eve', passwords.rita)],
    ['a user whom only a proxy logs in', basic('petra', '')],
    ['no credentials', {}],
  ])('refuses %s', async (_what, headers) => {
    expect((await web.call('GET', '/sagas', { headers })).status).toBe(401);
    expect((await web.call('POST', '/v1/sagas/provision_droplet', { body: droplet, headers })).status).toBe(401);
  });

  test('takes the password however its accents are typed, and the tokens as before', async () => {
    expect((await web.call('GET', '/sagas', { headers: basic('olga', passwords.olga.normalize('NFD')) })).status).toBe(200);
    expect((await web.call('GET', '/v1/sagas', { headers: bearer(secrets.read) })).status).toBe(200);
  });

  test('checks a password once for all requests that come with it', async () => {
    const headers = basic('rita', passwords.rita);
    const pages = await Promise.all(Array.from({ length: 40 }, () => web.call('GET', '/v1/sagas', { headers })));
    expect(new Set(pages.map(({ status }) => status))).toEqual(new Set([200]));
  });

  test('writes the name of the person into the audit', async () => {
    const started = await web.call('POST', '/v1/sagas/provision_droplet', { body: droplet, headers: basic('stan', passwords.stan) });
    const audit = await listAudit(web.db, sagaIdOf(started));
    expect(audit.map(({ actor }) => actor)).toEqual(['http:stan']);
  });
});

describe('behind a proxy that logs people in', () => {
  const settings = { ...credentials, DASHBOARD_USERS_FILE: usersFile, AUTH_PROXY_HEADER: 'X-Forwarded-User' };

  test('believes its header: roles come from the file, and are AUTH_PROXY_ROLE for all others', async () => {
    await using web = await openWebStage({ ...settings, TRUSTED_PROXIES: '127.0.0.1', AUTH_PROXY_ROLE: 'start' });
    expect(await statusesFor(web, { 'x-forwarded-user': 'petra' })).toEqual(mayDoAll);
    expect(await statusesFor(web, { 'x-forwarded-user': 'rita' })).toEqual(mayRead);
    expect(await statusesFor(web, { 'x-forwarded-user': 'somebody@example.com' })).toEqual(mayStart);
    expect((await web.call('GET', '/statusz', { headers: { 'x-forwarded-user': 'rita' } })).json()).toHaveProperty('conditions');

    const started = await web.call('POST', '/v1/sagas/provision_droplet', { body: droplet, headers: { 'x-forwarded-user': 'petra' } });
    expect((await listAudit(web.db, sagaIdOf(started))).map(({ actor }) => actor)).toEqual(['http:petra']);
  });

  test('lets people read only, unless AUTH_PROXY_ROLE says more; refuses bad names, and pages of other sites', async () => {
    await using web = await openWebStage({ ...settings, TRUSTED_PROXIES: '127.0.0.1' });
    expect(await statusesFor(web, { 'x-forwarded-user': 'somebody' })).toEqual(mayRead);
    expect(await statusesFor(web, { 'x-forwarded-user': 'one, other' })).toEqual(nobody);
    expect(await statusesFor(web, { 'x-forwarded-user': Buffer.from('Müller').toString('latin1') })).toEqual(mayRead);
    expect(await statusesFor(web, { 'x-forwarded-user': 'Müller' })).toEqual(nobody);
    // The audit could not tell it from the token of this name.
    expect((await web.call('GET', '/sagas', { headers: { 'x-forwarded-user': 'reader' } })).status).toBe(403);
    const foreign = { 'x-forwarded-user': 'petra', 'sec-fetch-site': 'cross-site' };
    expect((await web.call('POST', '/v1/bulk/retry', { body: { filter: { text: 'x' } }, headers: foreign })).status).toBe(403);
    expect((await web.call('GET', '/v1/sagas', { headers: { ...bearer(secrets.read), 'x-forwarded-user': 'petra' } })).status).toBe(200);
  });

  test('does not believe the header from anywhere else, and says so', async () => {
    await using web = await openWebStage({ ...settings, TRUSTED_PROXIES: '10.1.2.3' });
    expect(await statusesFor(web, { 'x-forwarded-user': 'petra' })).toEqual(nobody);
    const refused = await web.call('GET', '/v1/sagas', { headers: { 'x-forwarded-user': 'petra' } });
    expect(refused.text).toContain('the request does not come from one of TRUSTED_PROXIES');
    // Nor is it enough to claim the address of the proxy.
    expect((await web.call('GET', '/sagas', { headers: { 'x-forwarded-user': 'petra', 'x-forwarded-for': '10.1.2.3' } })).status).toBe(401);
    expect((await web.call('GET', '/sagas', { headers: { ...basic('rita', passwords.rita), 'x-forwarded-user': 'petra' } })).status).toBe(200);
  });

  test.each([
    ['no proxies', { AUTH_PROXY_HEADER: 'x-user' }, 'AUTH_PROXY_HEADER: TRUSTED_PROXIES is not set'],
    ['a header with another meaning', { AUTH_PROXY_HEADER: 'X-Forwarded-For', TRUSTED_PROXIES: '10.0.0.1' }, 'AUTH_PROXY_HEADER: expected the name of the header'],
    ['a role without a header', { AUTH_PROXY_ROLE: 'read' }, 'AUTH_PROXY_ROLE: AUTH_PROXY_HEADER is not set'],
    ['an unknown role', { AUTH_PROXY_HEADER: 'x-user', TRUSTED_PROXIES: '10.0.0.1', AUTH_PROXY_ROLE: 'admin' }, 'AUTH_PROXY_ROLE: expected read, start, operate'],
  ])('refuses %s at the start', (_what, environment, message) => {
    expect(() => loadConfig(environment)).toThrow(message);
  });

  test('counts as closed where others reach the address', () => {
    expect(() => requireClosedWeb(loadConfig({ HOST: '0.0.0.0', AUTH_PROXY_HEADER: 'x-user', TRUSTED_PROXIES: '10.0.0.1' }).web)).not.toThrow();
    expect(() => requireClosedWeb(loadConfig({ HOST: '0.0.0.0', DASHBOARD_USERS_FILE: usersFile }).web)).not.toThrow();
  });
});

describe('the file of users', () => {
  test.each([
    ['rita:admin', 'line 1: expected name:role:hash with a role of read, start, operate'],
    ['rita:read:secret-in-plain-text', 'line 1: expected a hash made by `arcadia hash-password`'],
    ['rita:read:$scrypt$ln=4,r=8,p=1$c2FsdHNhbHRzYWx0c2FsdA$c2FsdHNhbHRzYWx0c2FsdA', 'line 1: expected a hash'],
    ['\n# people\nrita:read\nrita:operate', 'line 4: the name rita is taken'],
    ['reader:read', 'line 1: the name reader is taken'],
    ['# nobody yet', 'the file lists nobody'],
  ])('is refused for %j, without repeating what may be a password', (text, message) => {
    const parse = () => parseUsers(text, ['reader']);
    expect(parse).toThrow(message);
    expect(parse).not.toThrow('secret-in-plain-text');
  });

  test('is named when it cannot be read', async () => {
    await expect(readUsers(join(folder, 'none'), [])).rejects.toThrow(/DASHBOARD_USERS_FILE: .*none cannot be read \(ENOENT\)/);
  });
});

describe('a change of the file of users', () => {
  const file = join(folder, 'changing');
  const write = (...people: string[]) => writeFileSync(file, people.join('\n'));

  test('counts within seconds: people who come, go, or have another role or password', async () => {
    write(lineOf('rita'), lineOf('stan'));
    const { log, lines: logged } = openLog('info');
    await using web = await openWebStage({ DASHBOARD_USERS_FILE: file, DASHBOARD_USER: 'ada', DASHBOARD_PASSWORD: secrets.password }, 'redis', log);
    const statusOf = async (name: keyof typeof passwords, password: string = passwords[name]) => (await web.call('GET', '/sagas', { headers: basic(name, password) })).status;
    // Asking for somebody whom the file does not list costs as much as a strong password: the log tells when to ask again.
    const readAgain = () => logged.filter(({ msg }) => msg === 'the users file was read again');
    expect([await statusOf('rita'), await statusOf('stan'), await statusOf('olga')]).toEqual([200, 200, 401]);

    // Rita has another password, Stan another role, and Olga comes.
    const [, , olgasHash = ''] = lineOf('olga').split(':');
    write(`rita:read:${olgasHash}`, lineOf('stan').replace(':start:', ':operate:'), lineOf('olga'));
    await waitFor(() => readAgain().length === 1, { what: 'the file to be read again' });
    expect([await statusOf('olga'), await statusOf('rita'), await statusOf('rita', passwords.olga)]).toEqual([200, 401, 200]);
    expect(await statusesFor(web, basic('stan', passwords.stan))).toEqual(mayDoAll);
    expect(readAgain()[0]).toMatchObject({ added: ['olga'], removed: [], changed: ['rita', 'stan'] });
    expect(JSON.stringify(logged)).not.toContain(olgasHash);

    write(lineOf('olga'));
    await waitFor(() => readAgain().length === 2, { what: 'the file to be read again' });
    expect([await statusOf('stan'), await statusOf('olga')]).toEqual([401, 200]);
  });

  test('that makes it unusable changes nothing, and stands in the log, on every page and in /statusz until it is mended', async () => {
    write(lineOf('rita'), lineOf('olga'));
    const { log, lines: logged } = openLog();
    await using web = await openWebStage({ DASHBOARD_USERS_FILE: file }, 'redis', log);
    const headers = basic('olga', passwords.olga);
    const strip = async () => textOfStrip((await web.call('GET', '/fleet', { headers: { ...headers, accept: 'text/html' } })).text);
    expect(await strip()).not.toContain('users file');

    write(lineOf('olga'), 'rita:admin');
    await waitFor(async () => (await strip()).includes('The users file cannot be used.'), { what: 'the strip to name the users file', everyMs: 500 });
    expect(await strip()).toContain('DASHBOARD_USERS_FILE: line 2: expected name:role:hash with a role of read, start, operate');
    expect(await strip()).toContain('Users of its last valid version can still log in');
    expect((await web.call('GET', '/sagas', { headers: basic('rita', passwords.rita) })).status).toBe(200);
    expect((await web.call('GET', '/statusz', { headers })).text).toContain('users_file_broken');

    rmSync(file);
    await waitFor(async () => (await strip()).includes('cannot be read (ENOENT)'), { what: 'the strip to say that the file is gone', everyMs: 500 });
    expect((await web.call('GET', '/sagas', { headers })).status).toBe(200);

    write(lineOf('olga'));
    await waitFor(async () => !(await strip()).includes('users file'), { what: 'the strip to be silent again', everyMs: 500 });
    expect((await web.call('GET', '/sagas', { headers: basic('rita', passwords.rita) })).status).toBe(401);
    expect(logged.filter(({ msg }) => String(msg).startsWith('the users file cannot be used'))).toHaveLength(2);
  });
});

const run = (input: string, ...args: string[]) => spawnSync(process.execPath, [programFile('main'), 'hash-password', ...args], { input, encoding: 'utf8' });

describe('arcadia hash-password', () => {
  test('prints a line of the file', async () => {
    const { stdout, status } = run(`${passwords.rita}\n`, '--user', 'rita', '--role', 'start');
    expect(status).toBe(0);
    const [user] = parseUsers(stdout);
    expect(user).toMatchObject({ name: 'rita', role: 'start' });
    const hash = parsePasswordHash(stdout.trim().split(':')[2] ?? '');
    expect(hash !== null && (await isPassword(passwords.rita, hash))).toBe(true);
    expect(hash !== null && (await isPassword(passwords.stan, hash))).toBe(false);
  });

  test.each([
    ['short\n', [], 'at least 16 characters'],
    [passwords.rita, ['--user', 'a:b'], '--user: expected a name'],
    [passwords.rita, ['--user', 'a', '--role', 'admin'], 'Allowed choices are read, start, operate'],
  ])('refuses what the file would not take: %j %j', (input, args, message) => {
    const { stderr, status } = run(input, ...args);
    expect(stderr).toContain(message);
    expect(status).toBe(2);
  });
});
