// Plans of provisions over HTTP, and the start page: what DigitalOcean's lists say of an input, its price and its start, without a
// request that creates.

import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import { z } from 'zod';
import { startSandbox } from '../../src/sandbox/server.ts';
import type { Sandbox } from '../../src/sandbox/server.ts';
import { planAnswer } from '../../src/web/api/plans.ts';
import { basic, bearer, credentials, droplet, openWebStage, secrets } from './stage.ts';
import type { Web } from './stage.ts';

let sandbox: Sandbox;
let web: Web;
beforeAll(async () => {
  sandbox = await startSandbox({ ratePerMinute: null, ratePerHour: null });
  web = await openWebStage({ ...credentials, DIGITALOCEAN_TOKEN: 'any', DIGITALOCEAN_API_URL: sandbox.url, LEASE_MAX_S: '86400' });
});
afterEach(async () => {
  sandbox.resetFaults();
  await web.db.sql`delete from arcadia.workers`;
});
afterAll(async () => {
  await web[Symbol.asyncDispose]();
  await sandbox.close();
});

type Plan = z.infer<typeof planAnswer>;

const ask = (input: object, of: Web = web) => of.call('POST', '/v1/plans', { body: input, headers: bearer(secrets.all) });
const plan = async (changes: object = {}, of: Web = web): Promise<Plan> => {
  const answer = await ask({ ...droplet, ...changes }, of);
  expect(answer.status).toBe(200);
  return planAnswer.strict().parse(answer.json());
};
const check = ({ checks }: Plan, name: string): string => {
  const found = checks.find((one) => one.name === name);
  return found === undefined ? 'none' : `${found.result}: ${found.message}`;
};
const runWorker = async (of: Web = web): Promise<void> => {
  await of.db.sql`insert into arcadia.workers (id, name, host, pid, version, node_version, concurrency, jobs) values (gen_random_uuid(), 'a:1', 'a', 1, '1', '24', 50, 0)`;
};
/** What DigitalOcean answers to the create itself. */
const created = async (changes: object): Promise<number> =>
  (await fetch(`${sandbox.url}/v2/droplets`, { method: 'POST', headers: { authorization: 'Bearer any' }, body: JSON.stringify({ ...droplet, ...changes }) })).status;

describe('POST /v1/plans', () => {
  test('says that a good input is possible, what it costs, and that it would start now; it sends GETs alone, with every page of each list', async () => {
    await runWorker();
    sandbox.clearLedger();
    const found = await plan();
    expect(found).toMatchObject({ possible: 'yes', price: { usdPerHour: 0.00893, usdPerMonth: 6, message: '$0.00893 an hour, at most $6.00 a month.' }, start: { inSeconds: 0 } });
    expect(found.checks.map(({ name, result }) => `${name} ${result}`)).toEqual(['account ok', 'room ok', 'region ok', 'size ok', 'image ok']);
    expect(found.listsAgeSeconds).toBe(0);
    const requests = sandbox.ledger();
    expect(requests.length).toBeGreaterThan(4);
    expect(new Set(requests.map(({ method }) => method))).toEqual(new Set(['GET']));
    expect(await web.db.sql`select 1 from arcadia.sagas`).toHaveLength(0);
  });

  test('reads the lists once for many plans, and says how old they are', async () => {
    await plan();
    sandbox.clearLedger();
    await Promise.all([plan(), plan(), plan({ size: 's-2vcpu-4gb' })]);
    expect(Object.keys(sandbox.ledgerSummary().byRoute).filter((route) => /regions|sizes|images/.test(route))).toEqual([]);
  });

  test.for([
    ['a region that does not exist', { region: 'fra9' }, 'region', /^problem: There is no region "fra9"\. The nearest names are fra1, /],
    ['a region that takes no droplets', { region: 'sfo1' }, 'region', /^problem: sfo1 takes no new droplets/],
    ['a size that does not exist', { size: 's-1vcpu-1g' }, 'size', /^problem: There is no size "s-1vcpu-1g"\. The nearest names are s-1vcpu-1gb, /],
    ['a size that is not in the region', { region: 'lon1', size: 's-1vcpu-512mb-10gb' }, 'size', /^problem: .*not available in lon1\. It is available in ams3, /],
    ['a size that is closed', { size: 's-3vcpu-1gb' }, 'size', /^problem: .*not available for new droplets/],
    ['an image that does not exist', { image: 'debian-12' }, 'image', /^problem: The account can use no image "debian-12"\. The nearest names are debian-12-x64, /],
    ['an image id that does not exist', { image: 4_711 }, 'image', /^problem: The account can use no image "4711"\.$/],
    ['an image that is not in the region', { region: 'lon1', image: 7_555_620 }, 'image', /^problem: 7555620 \(Debian golden-2026-10\) is not available in lon1\. It is available in fra1 and nyc3\.$/],
    ['an image that is too large for the disk', { region: 'nyc3', size: 's-1vcpu-512mb-10gb', image: 'docker-20-04' }, 'image', /^problem: .*needs a disk of 25 GB; s-1vcpu-512mb-10gb has 10 GB\.$/],
  ] as const)('finds %s, as the create does', async ([, changes, name, message]) => {
    const found = await plan(changes);
    expect([found.possible, check(found, name)]).toEqual(['no', expect.stringMatching(message)]);
    expect(await created(changes)).toBe(422);
  });

  test('accepts a prefix of regions, an image of the account by its id, and ids as text', async () => {
    for (const changes of [{ region: 'nyc' }, { region: 'nyc', image: 7_555_620 }, { image: '139080871' }]) {
      expect(await plan(changes)).toMatchObject({ possible: 'yes' });
    }
  });

  test('counts the droplets of the account, and the creates under way, against its limit', async () => {
    sandbox.addForeignDroplet({ name: 'other' });
    const { total } = { total: sandbox.state().filter(({ deletedAt }) => deletedAt === null).length };
    sandbox.setFaults({ dropletLimit: total + 1 });
    const free = await openWebStage({ ...credentials, DIGITALOCEAN_TOKEN: 'other', DIGITALOCEAN_API_URL: sandbox.url });
    try {
      expect(check(await plan({}, free), 'room')).toBe(`ok: The account has ${total} of ${total + 1} droplets.`);
      await free.call('POST', '/v1/sagas/provision_droplet', { body: droplet, headers: bearer(secrets.all) });
      const full = await plan({}, free);
      expect([full.possible, check(full, 'room')]).toEqual(['no', `problem: The account has ${total} of ${total + 1} droplets, and 1 more is being created: there is no room for another one.`]);
    } finally {
      await free[Symbol.asyncDispose]();
    }
  });

  test('looks up SSH keys, the project and the VPC that the input names', async () => {
    const missing = await plan({ ssh_keys: ['ada', 4_711], project: 'shop', vpc_uuid: crypto.randomUUID() });
    expect(missing.possible).toBe('no');
    expect([check(missing, 'ssh_keys'), check(missing, 'project'), check(missing, 'vpc_uuid')]).toEqual([
      'problem: The account has no SSH key "ada". There is none.',
      expect.stringMatching(/^problem: The account has no project "shop"\. The nearest name is /),
      expect.stringMatching(/^problem: The account has no VPC /),
    ]);
    const headers = { authorization: 'Bearer any' };
    const key = 'ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGVxZXhhbXBsZWtleWZvcnRlc3RzMDAwMDAwMDAwMDAwMDA ada@example';
    const addKey = async (name: string, publicKey: string) => {
      const response = await fetch(`${sandbox.url}/v2/account/keys`, { method: 'POST', headers, body: JSON.stringify({ name, public_key: publicKey }) });
      return z.object({ ssh_key: z.object({ id: z.int() }) }).parse(await response.json()).ssh_key.id;
    };
    await addKey('ada', key);
    await fetch(`${sandbox.url}/v2/projects`, { method: 'POST', headers, body: JSON.stringify({ name: 'shop', purpose: 'Shop' }) });
    // Both are newer than the lists that this process keeps.
    const found = await plan({ ssh_keys: ['ada'], project: 'shop' });
    expect([found.possible, check(found, 'ssh_keys'), check(found, 'project')]).toEqual(['yes', 'ok: The account has the SSH key.', 'ok: The account has the project.']);
    // Digits are an id, never a name.
    const id = await addKey('12345', key.replace('ada@', 'bob@').replace('AAAAC3Nz', 'AAAAC3Ny'));
    expect(check(await plan({ ssh_keys: ['12345'] }), 'ssh_keys')).toBe(`problem: The account has no SSH key with the id 12345. Digits are read as an id, never as a name. A key of that name has the id ${id}: give that.`);
    expect(check(await plan({ ssh_keys: [99_999] }), 'ssh_keys')).toBe('problem: The account has no SSH key with the id 99999. Digits are read as an id, never as a name.');
    expect(check(await plan({ ssh_keys: ['aa:bb'] }), 'ssh_keys')).toBe('problem: The account has no SSH key with the fingerprint aa:bb. This form is read as a fingerprint, never as a name.');
    expect(check(await plan({ ssh_keys: [await addKey('eve', key.replace('ada@', 'eve@').replace('AAAAC3Nz', 'AAAAC3Nx'))] }), 'ssh_keys')).toBe('ok: The account has the SSH key.');
    expect(check(await plan({ volumes: [crypto.randomUUID()] }), 'volumes')).toMatch(/^unknown: Volumes are not checked/);
  });

  test('knows the policy of leases, and what this process needs for secrets and callbacks', async () => {
    expect(check(await plan({ lease: { ttl_s: 7_200 } }), 'lease')).toBe('ok: The droplet is destroyed 2 h 0 min after its create, unless somebody renews the lease.');
    expect(check(await plan({ lease: { ttl_s: 172_800 } }), 'lease')).toMatch(/^problem: lease\.ttl_s: expected at most 86400 seconds \(LEASE_MAX_S/);
    expect(check(await plan({ user_data: '#!/bin/sh' }), 'user_data')).toMatch(/^ok: /);
    expect(check(await plan({ ready: { callback: true } }), 'ready')).toMatch(/^problem: .*PUBLIC_URL is not set/);
    expect((await ask({ ...droplet, user_data: '#!/bin/sh\necho canary-in-user-data' })).text).not.toContain('canary');
  });

  test('never takes for fine what could not be read', async () => {
    await using fresh = await openWebStage({ ...credentials, DIGITALOCEAN_TOKEN: 'fresh', DIGITALOCEAN_API_URL: sandbox.url });
    sandbox.setFaults({ rules: [{ match: { path: '/v2/sizes' }, effect: { status: 500 } }, { match: { path: '/v2/images' }, effect: { status: 403 } }] });
    const some = await plan({}, fresh);
    expect([some.possible, check(some, 'size'), check(some, 'image')]).toEqual([
      'unknown',
      expect.stringMatching(/^unknown: The sizes could not be read: DigitalOcean returned 500 for GET \/v2\/sizes/),
      'unknown: The image could not be read: the token lacks the scope image:read.',
    ]);
    expect(some.price).toEqual({ usdPerHour: null, usdPerMonth: null, message: expect.stringMatching(/^The price could not be read: /) });
    sandbox.setFaults({ rules: [{ match: { path: '/v2/account' }, effect: { status: 200, body: { account: { uuid: 'u', status: 'locked', status_message: 'Please pay.' } } } }] });
    const locked = await plan({}, fresh);
    expect([locked.possible, check(locked, 'account'), check(locked, 'room')]).toEqual(['no', 'problem: The account is locked: Please pay.', expect.stringMatching(/^unknown: The droplet limit could not be read/)]);
    sandbox.setFaults({ rules: [], unauthorized: true });
    expect(check(await plan({}, fresh), 'account')).toBe('problem: DigitalOcean refuses the token (401). Check DIGITALOCEAN_TOKEN.');
    // The lists are kept; nothing else can be read.
    sandbox.setFaults({ unauthorized: false, down: true });
    const down = await plan({}, fresh);
    expect(down.possible).toBe('unknown');
    expect(down.checks.filter(({ result }) => result === 'ok').map(({ name }) => name)).toEqual(['region', 'size', 'image']);
  });

  test('names another account than that of the droplets on record', async () => {
    await web.db.sql`update arcadia.environment set account = 'another'`;
    expect(check(await plan(), 'account')).toMatch(/^problem: The token belongs to the account \S+, but the droplets of this database are in the account another\.$/);
    await web.db.sql`update arcadia.environment set account = null`;
  });

  test('says without a token what it cannot know', async () => {
    await using blind = await openWebStage(credentials);
    const found = await plan({ ssh_keys: ['ada'] }, blind);
    expect(found.possible).toBe('unknown');
    for (const { result, message } of found.checks) expect([result, message]).toEqual(['unknown', expect.stringMatching(/could not be read: this process has no DIGITALOCEAN_TOKEN\.$/)]);
    expect(found).toMatchObject({ price: { usdPerHour: null }, start: { inSeconds: null }, listsAgeSeconds: null });
  });

  test('says when the create would be sent: workers, pauses and the budget of requests', async () => {
    expect((await plan()).start).toEqual({ inSeconds: null, message: 'No worker is running. The saga would start once one runs.' });
    const open = (perMinute: number) => openWebStage({ ...credentials, DIGITALOCEAN_TOKEN: `${perMinute}-a-minute`, DIGITALOCEAN_API_URL: sandbox.url, DIGITALOCEAN_REQUESTS_PER_MINUTE: String(perMinute) });
    await using small = await open(10);
    await runWorker(small);
    // Its own reads leave room for creates: they are of the lowest priority.
    const first = await plan({}, small);
    expect(first.start.inSeconds).toBe(0);
    // With room for every read, DigitalOcean's refusal is certain to be met.
    await using large = await open(100);
    await runWorker(large);
    sandbox.setFaults({ rules: [{ match: { path: '/v2/account' }, times: 1, effect: { retryAfterS: 45 } }] });
    await plan({}, large);
    const { start, possible } = await plan({}, large);
    expect(possible).toBe('unknown');
    expect(start.message).toMatch(/^In about (\d+ s|1 min \d+ s), when the budget/);
    expect(start.inSeconds).toBeGreaterThan(30);
  });

  test('refuses an invalid input with the fields, and needs the scope read', async () => {
    const refused = await ask({ ...droplet, region: undefined, size: 'no good', lease: { ttl_s: 0 }, extra: 1 });
    expect([refused.status, refused.json()]).toMatchObject([400, { code: 'invalid_request', errors: [{ field: 'region' }, { field: 'size' }, { field: 'lease.ttl_s' }, { field: 'extra', message: 'unknown field' }] }]);
    expect((await ask({})).status).toBe(400);
    expect((await web.call('POST', '/v1/plans', { body: 'x', headers: bearer(secrets.all) })).status).toBe(400);
    const forbidden = await web.call('POST', '/v1/plans', { body: droplet, headers: bearer(secrets.start) });
    expect([forbidden.status, forbidden.json()]).toMatchObject([403, { detail: 'this needs the scope read; starter has start' }]);
    expect((await web.call('POST', '/v1/plans', { body: droplet, headers: bearer(secrets.read) })).status).toBe(200);
    expect((await web.call('POST', '/v1/plans', { body: droplet, headers: { ...basic(), origin: 'https://elsewhere.example' } })).status).toBe(403);
  });
});

const form = (path: string, fields: Record<string, string | string[]>, headers: Record<string, string> = basic(), of: Web = web) =>
  of.call('POST', path, { body: new URLSearchParams(Object.entries(fields).flatMap(([name, value]) => [value].flat().map((one): [string, string] => [name, one]))).toString(), headers: { 'content-type': 'application/x-www-form-urlencoded', ...headers } });
const good = { name: 'web-1', region: 'fra1', size: 's-1vcpu-1gb', image: 'debian-12-x64' };
const sagasOf = async (name: string) => web.db.sql<{ id: string; input: Record<string, unknown>; requestedBy: string }[]>`select id, input, requested_by from arcadia.sagas where input->>'name' = ${name} order by created_at`;

describe('the start form', () => {
  test('offers the lists of DigitalOcean, sizes with their price', async () => {
    const page = await web.call('GET', '/start', { headers: basic() });
    expect(page.status).toBe(200);
    expect(page.text).toContain('<option value="s-1vcpu-1gb">s-1vcpu-1gb: $0.00893 an hour, at most $6.00 a month</option>');
    expect(page.text).toContain('<option value="fra1">Frankfurt 1 (fra1)</option>');
    expect(page.text).toContain('<option value="7555620">golden-2026-10 (7555620)</option>');
    for (const closed of ['sfo1', 's-3vcpu-1gb']) expect(page.text).not.toContain(`value="${closed}"`);
    expect(page.text).toMatch(/<a href="\/start" aria-current="page">New droplet<\/a>/);
  });

  test('shows the price and the checks first, and starts nothing until that is confirmed', async () => {
    sandbox.clearLedger();
    const preview = await form('/start', { ...good, name: 'previewed', user_data: '#!/bin/sh\r\necho canary-4711', size: 's-2vcpu-4gb', key: crypto.randomUUID() });
    expect(preview.status).toBe(200);
    for (const text of ['Create previewed?', '$0.03571 an hour, at most $24.00 a month.', 'This is possible now.', 'debian-12-x64 (Debian 12 x64) is available in fra1', 'bytes, not shown']) expect(preview.text).toContain(text);
    expect(await sagasOf('previewed')).toHaveLength(0);
    expect(new Set(sandbox.ledger().map(({ method }) => method))).not.toContain('POST');
    const refused = await form('/start', { ...good, region: 'lon1', size: 's-1vcpu-512mb-10gb' });
    expect(refused.text).toContain('DigitalOcean would refuse this now.');
    expect(refused.text).toContain('Start it anyway');
  });

  test('makes one saga, however often it is sent, with all that it asked for', async () => {
    const fields = {
      ...good, name: 'made', ssh_keys: ['7', 'ada'], tags: 'shop, env:prod', user_data: '#!/bin/sh\r\necho hi\r\n', lease: '2h', lease_max: '1d', ready: 'http', ready_port: '8080', ready_path: '/healthz', ready_within: '10m', monitoring: 'on', protected: 'on', key: crypto.randomUUID(),
    };
    const answers = await Promise.all([form('/start/confirm', fields), form('/start/confirm', fields)]);
    const [saga, ...others] = await sagasOf('made');
    expect(others).toEqual([]);
    expect(saga).toMatchObject({
      requestedBy: 'http:ada',
      input: { ...good, name: 'made', ssh_keys: [7, 'ada'], tags: ['shop', 'env:prod'], lease: { ttl_s: 7_200, max_s: 86_400 }, ready: { http: { port: 8_080, path: '/healthz' }, within_s: 600 }, monitoring: true, protected: true },
    });
    for (const { status, headers } of answers) expect([status, headers.get('location')?.replace('?told=already', '')]).toEqual([303, `/sagas/${saga?.id}`]);
    // Other values under the same key are another droplet: a person must send them again to mean that.
    const changed = await form('/start/confirm', { ...fields, name: 'made-2' });
    expect([changed.status, changed.text]).toEqual([422, expect.stringContaining(`This form has started saga ${saga?.id} already, with other values.`)]);
    expect(await sagasOf('made-2')).toHaveLength(0);
  });

  test('shows errors beside the fields and keeps the input; user data stands in no URL and no log', async () => {
    const wrong = await form('/start', { name: 'not a name', region: 'fra1', size: '', image: 'debian-12-x64', tags: 'no good', lease: 'soon', lease_max: '1d', ready: 'tcp', user_data: '#!/bin/sh\n# <b>kept</b>', ssh_keys: 'ghost' });
    expect(wrong.status).toBe(422);
    for (const [field, message] of [
      ['name', 'Expected a host name'], ['size', 'Choose a size.'], ['tags', 'Expected 1 to 255 letters'], ['lease', 'Enter a duration'], ['ready_port', 'Enter a port'],
    ]) expect(wrong.text).toMatch(new RegExp(`<p class="error" id="${field}-error">${message}`));
    for (const kept of ['value="not a name"', 'value="no good"', 'value="soon"', '# &lt;b&gt;kept&lt;/b&gt;</textarea>', '<option value="fra1" selected>', '<option value="tcp" selected>', 'value="ghost" checked']) expect(wrong.text).toContain(kept);
    const again = await form('/start/edit', { ...good, name: 'edited', user_data: 'line 1\r\nline 2' });
    expect([again.status, again.text]).toEqual([200, expect.stringMatching(/value="edited"[\s\S]*line 1\nline 2<\/textarea>/)]);
    expect((await form('/start', { ...good, surprise: 'x'.repeat(10) })).status).toBe(200);
  });

  test('has text fields and says why where the lists cannot be read', async () => {
    await using blind = await openWebStage(credentials);
    const page = await blind.call('GET', '/start', { headers: basic() });
    expect(page.text).toContain('Not every list of DigitalOcean could be read: this process has no DIGITALOCEAN_TOKEN.');
    expect(page.text).toMatch(/<input id="region" name="region"/);
    const preview = await form('/start', good, basic(), blind);
    expect(preview.text).toContain('Not everything could be checked.');
    expect((await form('/start/confirm', { ...good, key: crypto.randomUUID() }, basic(), blind)).status).toBe(303);
  });

  test('says beside the field what this process lacks for the start', async () => {
    await using keyless = await openWebStage({ ...credentials, ARCADIA_ENCRYPTION_KEYS: '' });
    const refused = await form('/start/confirm', { ...good, user_data: '#!/bin/sh' }, basic(), keyless);
    expect([refused.status, refused.text]).toEqual([422, expect.stringMatching(/id="user_data-error">/)]);
    const callback = await form('/start/confirm', { ...good, ready: 'callback' }, basic(), keyless);
    expect([callback.status, callback.text]).toEqual([422, expect.stringContaining('PUBLIC_URL is not set here')]);
  });

  test('is for those who may start sagas, and takes nothing from another site', async () => {
    for (const path of ['/start', '/sagas']) expect((await web.call('GET', path, { headers: { ...bearer(secrets.read), accept: 'text/html' } })).text).not.toContain('href="/start"');
    expect((await web.call('GET', '/start', { headers: bearer(secrets.read) })).status).toBe(403);
    expect((await form('/start/confirm', good, bearer(secrets.read))).status).toBe(403);
    expect((await form('/start/confirm', good, bearer(secrets.operate))).status).toBe(403);
    for (const path of ['/start', '/start/edit', '/start/confirm']) {
      expect((await form(path, good, { ...basic(), 'sec-fetch-site': 'cross-site' })).status).toBe(403);
      expect((await form(path, good, { ...basic(), origin: 'https://elsewhere.example' })).status).toBe(403);
    }
    expect((await web.call('GET', '/sagas', { headers: basic() })).text).toContain('href="/start"');
  });
});
