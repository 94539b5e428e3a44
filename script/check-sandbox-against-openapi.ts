// Checks the sandbox against DigitalOcean's official API description: makes each call, including errors and pagination, and
// validates status, body and rate limit headers of every response against the schema in the description.
//
//   node script/check-sandbox-against-openapi.ts <bundled description as JSON>
//
// The description (OpenAPI 3.0) comes from github.com/digitalocean/openapi. It may be incomplete: calls of paths that it lacks
// are listed and do not count as mismatches. Prints one line per call; exits with 1 on a mismatch.
import { readFile } from 'node:fs/promises';
import { Ajv } from 'ajv';
import addFormatsModule from 'ajv-formats';
import type { Sandbox } from '../src/sandbox/server.ts';
import { startSandbox } from '../src/sandbox/server.ts';
import { isObject } from '../src/sandbox/json.ts';

type Check = {
  readonly does: string;
  readonly method: 'GET' | 'POST' | 'PUT' | 'PATCH' | 'DELETE';
  /** Path as the description writes it. */
  readonly operation: string;
  /** Path and query of the request. */
  readonly url: string;
  readonly body?: unknown;
  readonly token?: string;
  readonly expect: number;
};

const addFormats = addFormatsModule.default;
const publicKey = 'ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGVxYW1wbGVrZXlmb3J0ZXN0c29ubHkxMjM0NTY3ODkw ada@example.com';
const newDroplet = { name: 'check.example.com', size: 's-1vcpu-1gb', image: 'debian-12-x64', region: 'nyc3', tags: ['check', 'env:prod'] };

const [path] = process.argv.slice(2);
if (path === undefined) {
  process.stderr.write('usage: check-sandbox-against-openapi.ts <droplets.json>\n');
  process.exit(2);
}
const mismatches = await checkAll(JSON.parse(await readFile(path, 'utf8')));
process.stdout.write(mismatches === 0 ? 'all answers fit the description\n' : `${mismatches} answers do not fit the description\n`);
process.exitCode = mismatches === 0 ? 0 : 1;

async function checkAll(description: unknown): Promise<number> {
  if (!isObject(description)) throw new Error('the description is not a JSON object');
  // The patterns of the description are not valid with the u flag.
  const ajv = new Ajv({ strict: false, allErrors: true, unicodeRegExp: false });
  addFormats(ajv);
  ajv.addSchema(description, 'description');
  const sandbox = await startSandbox({ token: 'right', ratePerMinute: null, ratePerHour: null, activateAfterMs: 60_000 });
  let failed = 0;
  const absent = new Set<string>();
  const run = async (checks: readonly Check[]): Promise<void> => {
    for (const check of checks) {
      if (at(description, ['paths', check.operation]) === undefined) {
        absent.add(check.operation);
        continue;
      }
      const problem = await checkOne(ajv, description, sandbox.url, check);
      if (problem !== undefined) failed += 1;
      process.stdout.write(`${problem === undefined ? 'ok      ' : 'MISMATCH'} ${check.expect} ${check.does}${problem === undefined ? '' : `: ${problem}`}\n`);
    }
  };
  try {
    await run(creates());
    const [first, second] = sandbox.state();
    if (first === undefined || second === undefined) throw new Error('the sandbox made no droplets');
    await run(readsOf(first.id, 'while it is new'));
    sandbox.advanceClock(61_000);
    await run(readsOf(first.id, 'once it is active'));
    sandbox.setFaults({ placementFails: 1, placementFailsAfterMs: 0 });
    await run([create('a droplet whose placement fails', newDroplet)]);
    sandbox.resetFaults();
    await run([...lists(), ...refusals()]);
    await run(await ofAccount(sandbox, second.id));
    sandbox.advanceClock(2_000);
    await run(await ofSnapshots(sandbox, second.id));
    await run(deletes(first.id));
    sandbox.setFaults({ ratePerMinute: 1 });
    await run([get('the last request of the minute', '/v2/account', 200)]);
    await run([get('too many requests in a minute', '/v2/account', 429), { ...create('a create too many', newDroplet), expect: 429 }]);
    sandbox.setFaults({ ratePerMinute: null, errorRate: 1, errorKinds: ['500'] });
    await run([get('a server error', '/v2/account', 500)]);
    sandbox.setFaults({ errorRate: 0, down: true });
    await run([get('a service that is down', '/v2/account', 503)]);
  } finally {
    await sandbox.close();
  }
  if (absent.size > 0) process.stdout.write(`not in the description: ${[...absent].join(', ')}\n`);
  return failed;
}

function creates(): Check[] {
  return [
    create('a droplet with all fields', { ...newDroplet, ipv6: true, monitoring: true, backups: true, ssh_keys: [289_794], user_data: '#!/bin/sh' }),
    create('a droplet with nulls, an image number, a region prefix', { ...newDroplet, image: 139_080_871, region: 'nyc', ssh_keys: null, user_data: null }),
    create('a droplet without a region and a public address', { ...newDroplet, region: undefined, public_networking: false }),
    create('a GPU droplet', { ...newDroplet, region: 'tor1', size: 'gpu-h100x1-80gb' }),
    create('several droplets', { ...newDroplet, name: undefined, names: ['check-1', 'check-2', 'check-3'] }),
  ];
}

function readsOf(id: number, when: string): Check[] {
  return [
    { ...get(`a droplet ${when}`, `/v2/droplets/${id}`, 200), operation: '/v2/droplets/{droplet_id}' },
    { ...get(`what stays billed without a droplet ${when}`, `/v2/droplets/${id}/destroy_with_associated_resources`, 200), operation: '/v2/droplets/{droplet_id}/destroy_with_associated_resources' },
    { ...get(`the actions of a droplet ${when}`, `/v2/droplets/${id}/actions`, 200), operation: '/v2/droplets/{droplet_id}/actions' },
    get(`the list of droplets ${when}`, '/v2/droplets', 200),
    get(`the actions ${when}`, '/v2/actions?per_page=2', 200),
  ];
}

function lists(): Check[] {
  const queries = ['', '?per_page=2', '?per_page=2&page=2', '?per_page=2&page=3', '?per_page=2&page=9', '?tag_name=check', '?tag_name=check&per_page=1&page=2'];
  return [
    ...[...queries, '?tag_name=never-used', '?name=CHECK-1', '?type=gpus', '?type=droplets'].map((query) => get(`droplets ${query}`, `/v2/droplets${query}`, 200)),
    ...['account', 'regions', 'regions?per_page=5', 'droplets?per_page=1', 'droplets?type=gpus&per_page=1', 'sizes', 'sizes?per_page=200', 'images', 'images?private=true', 'images?type=distribution', 'tags', 'tags?per_page=1'].map((name) =>
      get(name, `/v2/${name}`, 200),
    ),
    ...['debian-12-x64', '139080871'].map((key) => ({ ...get(`image ${key}`, `/v2/images/${key}`, 200), operation: '/v2/images/{image_id}' })),
    { does: 'a new tag', method: 'POST', operation: '/v2/tags', url: '/v2/tags', body: { name: 'fresh' }, expect: 201 },
    { does: 'a bad tag', method: 'POST', operation: '/v2/tags', url: '/v2/tags', body: { name: 'здорово' }, expect: 400 },
    { ...get('a tag', '/v2/tags/check', 200), operation: '/v2/tags/{tag_id}' },
  ];
}

/** SSH keys, tags of resources, VPCs, and actions on an active droplet. */
async function ofAccount(sandbox: Sandbox, id: number): Promise<Check[]> {
  const resources = [{ resource_id: String(id), resource_type: 'droplet' }];
  const key = at(await ask(sandbox, '/v2/account/keys', { name: 'first', public_key: publicKey.replace('AAAAIGVx', 'AAAAIGVy') }), ['ssh_key', 'id']);
  const vpcId = at(await ask(sandbox, '/v2/vpcs', { name: 'made-before', region: 'nyc3' }), ['vpc', 'id']);
  const keys = '/v2/account/keys';
  const oneKey = { operation: `${keys}/{ssh_key_identifier}`, url: `${keys}/${String(key)}` };
  const oneVpc = { operation: '/v2/vpcs/{vpc_id}', url: `/v2/vpcs/${String(vpcId)}` };
  const act = (type: string, fields: object, expect: number): Check => ({ does: `the action ${type}`, method: 'POST', operation: '/v2/droplets/{droplet_id}/actions', url: `/v2/droplets/${id}/actions`, body: { type, ...fields }, expect });
  return [
    { does: 'a new SSH key', method: 'POST', operation: keys, url: keys, body: { name: 'ada', public_key: publicKey }, expect: 201 },
    { does: 'an SSH key that is there', method: 'POST', operation: keys, url: keys, body: { name: 'ada', public_key: publicKey }, expect: 422 },
    get('the SSH keys', keys, 200),
    get('a page of the SSH keys', `${keys}?per_page=1`, 200),
    { does: 'an SSH key', method: 'GET', ...oneKey, expect: 200 },
    { does: 'another name of an SSH key', method: 'PUT', ...oneKey, body: { name: 'eve' }, expect: 200 },
    { does: 'the end of an SSH key', method: 'DELETE', ...oneKey, expect: 204 },
    { does: 'an SSH key that is gone', method: 'GET', ...oneKey, expect: 404 },
    { does: 'tagging a droplet', method: 'POST', operation: '/v2/tags/{tag_id}/resources', url: '/v2/tags/fresh/resources', body: { resources }, expect: 204 },
    { does: 'taking a tag off', method: 'DELETE', operation: '/v2/tags/{tag_id}/resources', url: '/v2/tags/fresh/resources', body: { resources }, expect: 204 },
    { does: 'tagging with an unknown tag', method: 'POST', operation: '/v2/tags/{tag_id}/resources', url: '/v2/tags/nope/resources', body: { resources }, expect: 404 },
    get('the VPCs', '/v2/vpcs', 200),
    get('the volumes', '/v2/volumes', 200),
    { does: 'a new VPC', method: 'POST', operation: '/v2/vpcs', url: '/v2/vpcs', body: { name: 'private', region: 'nyc3' }, expect: 201 },
    { does: 'a VPC without a region', method: 'POST', operation: '/v2/vpcs', url: '/v2/vpcs', body: { name: 'other' }, expect: 422 },
    { does: 'a VPC', method: 'GET', ...oneVpc, expect: 200 },
    { does: 'a changed VPC', method: 'PUT', ...oneVpc, body: { name: 'changed' }, expect: 200 },
    { does: 'a VPC changed in part', method: 'PATCH', ...oneVpc, body: { description: 'for tests' }, expect: 200 },
    { does: 'members of a VPC', method: 'GET', operation: `${oneVpc.operation}/members`, url: `${oneVpc.url}/members`, expect: 200 },
    { does: 'the end of a VPC', method: 'DELETE', ...oneVpc, expect: 204 },
    act('resize', { size: 's-2vcpu-4gb' }, 422),
    act('snapshot', { name: 'golden' }, 201),
    act('power_off', {}, 422),
    { ...get('a droplet that is locked', `/v2/droplets/${id}`, 200), operation: '/v2/droplets/{droplet_id}' },
    { ...get('its actions', `/v2/droplets/${id}/actions`, 200), operation: '/v2/droplets/{droplet_id}/actions' },
    { does: 'an action by tag', method: 'POST', operation: '/v2/droplets/actions', url: '/v2/droplets/actions?tag_name=nobody-has-it', body: { type: 'power_off' }, expect: 201 },
    { does: 'an action that the sandbox does not imitate', method: 'POST', operation: '/v2/droplets/{droplet_id}/actions', url: `/v2/droplets/${id}/actions`, body: { type: 'rebuild', image: 'debian-12-x64' }, expect: 501 },
    { does: 'a call that the sandbox does not imitate', method: 'PUT', operation: '/v2/images/{image_id}', url: '/v2/images/1', body: { name: 'x' }, expect: 501 },
  ];
}

async function ofSnapshots(sandbox: Sandbox, id: number): Promise<Check[]> {
  const snapshots = at(await ask(sandbox, '/v2/snapshots'), ['snapshots']);
  const snapshotId = Array.isArray(snapshots) ? at(snapshots[0], ['id']) : undefined;
  const one = { operation: '/v2/snapshots/{snapshot_id}', url: `/v2/snapshots/${String(snapshotId)}` };
  return [
    get('the snapshots', '/v2/snapshots?resource_type=droplet', 200),
    { does: 'a snapshot', method: 'GET', ...one, expect: 200 },
    { ...get('the snapshots of a droplet', `/v2/droplets/${id}/snapshots`, 200), operation: '/v2/droplets/{droplet_id}/snapshots' },
    get('images of its own', '/v2/images?private=true', 200),
    { does: 'the end of a snapshot', method: 'DELETE', ...one, expect: 204 },
  ];
}

async function ask(sandbox: Sandbox, path: string, body?: object): Promise<unknown> {
  const response = await fetch(sandbox.url + path, { headers: { authorization: 'Bearer right' }, ...(body === undefined ? {} : { method: 'POST', body: JSON.stringify(body) }) });
  return response.json();
}

function refusals(): Check[] {
  const bodies: readonly (readonly [string, unknown])[] = [
    ['a bad name', { ...newDroplet, name: 'not a name' }],
    ['no name', { ...newDroplet, name: undefined }],
    ['no size', { ...newDroplet, size: undefined }],
    ['an unknown image', { ...newDroplet, image: 'no-such-image' }],
    ['an unknown region', { ...newDroplet, region: 'mars1' }],
    ['a size that is closed to new droplets', { ...newDroplet, size: 's-3vcpu-1gb' }],
    ['a disk that is too small for the image', { ...newDroplet, region: 'nyc3', size: 's-1vcpu-512mb-10gb', image: 'docker-20-04' }],
    ['a bad tag', { ...newDroplet, tags: ['no good'] }],
    ['too much user data', { ...newDroplet, user_data: 'x'.repeat(65_537) }],
    ['eleven names', { ...newDroplet, names: Array.from({ length: 11 }, (_, index) => `n${index}`) }],
  ];
  return [
    ...bodies.map(([what, body]) => ({ ...create(what, body), does: `a create with ${what}`, expect: 422 })),
    { ...get('tag_name with name', '/v2/droplets?tag_name=check&name=check', 422) },
    { ...get('a wrong token', '/v2/account', 401), token: 'wrong' },
    { ...create('a wrong token', newDroplet), token: 'wrong', expect: 401 },
    { ...get('an unknown droplet', '/v2/droplets/1', 404), operation: '/v2/droplets/{droplet_id}' },
    { ...get('an unknown action', '/v2/actions/1', 404), operation: '/v2/actions/{action_id}' },
    { ...get('an unknown image', '/v2/images/nope', 404), operation: '/v2/images/{image_id}' },
    { ...get('an unknown tag', '/v2/tags/nope', 404), operation: '/v2/tags/{tag_id}' },
    { does: 'a delete of an unknown droplet', method: 'DELETE', operation: '/v2/droplets/{droplet_id}', url: '/v2/droplets/1', expect: 404 },
  ];
}

function deletes(id: number): Check[] {
  return [
    { does: 'a delete', method: 'DELETE', operation: '/v2/droplets/{droplet_id}', url: `/v2/droplets/${id}`, expect: 204 },
    { does: 'a second delete', method: 'DELETE', operation: '/v2/droplets/{droplet_id}', url: `/v2/droplets/${id}`, expect: 404 },
    { does: 'a delete by tag', method: 'DELETE', operation: '/v2/droplets', url: '/v2/droplets?tag_name=check', expect: 204 },
    { does: 'a delete of a tag', method: 'DELETE', operation: '/v2/tags/{tag_id}', url: '/v2/tags/check', expect: 204 },
  ];
}

function create(what: string, body: unknown): Check {
  return { does: `a create of ${what}`, method: 'POST', operation: '/v2/droplets', url: '/v2/droplets', body, expect: 202 };
}

function get(does: string, url: string, expect: number): Check {
  return { does, method: 'GET', operation: url.replace(/\?.*$/u, ''), url, expect };
}

async function checkOne(ajv: Ajv, description: Readonly<Record<string, unknown>>, origin: string, check: Check): Promise<string | undefined> {
  const response = await fetch(origin + check.url, {
    method: check.method,
    headers: { authorization: `Bearer ${check.token ?? 'right'}`, 'content-type': 'application/json' },
    ...(check.body === undefined ? {} : { body: JSON.stringify(check.body) }),
  });
  const text = await response.text();
  if (response.status !== check.expect) return `answered ${response.status} ${text.slice(0, 200)}`;
  if (response.headers.get('x-request-id') === null) return 'has no x-request-id';
  const found = findResponse(description, check, response.status);
  if (found === undefined) return 'is not in the description';
  const missing = ['ratelimit-limit', 'ratelimit-remaining', 'ratelimit-reset'].find((name) => !/^\d+$/u.test(response.headers.get(name) ?? ''));
  // The response of a failing gateway has no rate limit headers.
  if (missing !== undefined && response.status !== 503) return `has no ${missing}`;
  if (found.schemaRef === undefined) return text === '' ? undefined : 'has a body where none belongs';
  const validate = ajv.compile({ $ref: `description${found.schemaRef}` });
  return validate(JSON.parse(text)) ? undefined : ajv.errorsText(validate.errors);
}

function findResponse(
  description: Readonly<Record<string, unknown>>,
  check: Check,
  status: number,
): { readonly schemaRef: string | undefined } | undefined {
  const responses = at(description, ['paths', check.operation, check.method.toLowerCase(), 'responses']);
  const response = at(responses, [String(status)]) ?? at(responses, ['default']);
  const ref = at(response, ['$ref']);
  if (typeof ref !== 'string') return undefined;
  const resolved = at(description, ref.slice(2).split('/'));
  const hasBody = at(resolved, ['content', 'application/json', 'schema']) !== undefined;
  return { schemaRef: hasBody ? `${ref}/content/application~1json/schema` : undefined };
}

function at(value: unknown, keys: readonly string[]): unknown {
  return keys.reduce<unknown>((inner, key) => (isObject(inner) ? inner[key] : undefined), value);
}
