// SSH keys and a project by name: resolved before anything is created, and the same for every create of the saga.

import { describe, expect, test } from 'vitest';
import { z } from 'zod';
import { recordedDropletId as dropletOf } from '../../src/inventory/droplet-of-saga.ts';
import { nearestFirst } from '../../src/steps/near.ts';
import type { Bench } from './stage.ts';
import { alive, at, idsOf, mortalAt, recorded, requests, stepToDeath, useStepStage } from './stage.ts';

const openBench = useStepStage();
const noSuchProject = '11111111-2222-4333-8444-555555555555';

/** One request of the test's own; the answer holds what the schema says. */
async function api<T>({ sandbox }: Bench, method: string, path: string, schema: z.ZodType<T>, body?: object): Promise<T> {
  const response = await fetch(`${sandbox.url}${path}`, { method, headers: { authorization: 'Bearer test' }, ...(body === undefined ? {} : { body: JSON.stringify(body) }) });
  return schema.parse(await response.json());
}

let keys = 0;
async function addKey(bench: Bench, name: string): Promise<number> {
  keys += 1;
  const { ssh_key: key } = await api(bench, 'POST', '/v2/account/keys', z.object({ ssh_key: z.object({ id: z.int() }) }), { name, public_key: `ssh-ed25519 ${Buffer.from(`key ${keys}`).toString('base64')}` });
  return key.id;
}

async function addProject(bench: Bench, name: string): Promise<string> {
  const { project } = await api(bench, 'POST', '/v2/projects', z.object({ project: z.object({ id: z.uuid() }) }), { name, purpose: 'Service or API' });
  return project.id;
}

async function membersOf(bench: Bench, project: string): Promise<string[]> {
  const { resources } = await api(bench, 'GET', `/v2/projects/${project}/resources`, z.object({ resources: z.array(z.object({ urn: z.string() })) }));
  return resources.map(({ urn }) => urn);
}

/** Requests that the saga made, without those of the test itself. */
const made = ({ sandbox }: Bench) => sandbox.ledger().filter(({ userAgent }) => userAgent === 'arcadia-cloud').map(({ method, route }) => `${method} ${route.replace(/^\w+ /, '')}`);

describe('an SSH key by name', () => {
  test('is asked for by its id, beside ids and fingerprints as they were given', async () => {
    const bench = await openBench();
    const id = await addKey(bench, 'work-laptop');
    const after = await bench.drive((await bench.provision({ ssh_keys: ['work-laptop', 4_711, '4712', '3b:16:e4', `SHA256:${'x'.repeat(43)}`] })).id);
    expect(after).toMatchObject({ status: 'completed', context: { ssh_key_ids: [id, 4_711, '4712', '3b:16:e4', `SHA256:${'x'.repeat(43)}`] } });
    expect(requests(bench.sandbox, 'GET /v2/account/keys')).toBe(1);
  });

  test('that is not asked for costs nothing: no request, no write', async () => {
    const bench = await openBench();
    const saga = await bench.provision({ ssh_keys: [4_711, '3b:16:e4'] });
    await bench.drive(saga.id);
    expect(made(bench)).not.toContain('GET /v2/account/keys');
    expect((await bench.history(saga.id)).filter((kind) => kind === 'step_recorded')).toHaveLength(1);
  });

  test('that the account lacks ends the saga before anything is created; the error lists near names, and not all', async () => {
    const bench = await openBench();
    for (const name of ['work-laptop', 'home', ...Array.from({ length: 12 }, (_, index) => `deploy-${index}`)]) await addKey(bench, name);
    const after = await bench.drive((await bench.provision({ ssh_keys: ['Work-Laptp'] })).id);
    expect(after).toMatchObject({ status: 'compensated', error: { code: 'ssh_key_unknown', step: 'create_droplet', retryable: false } });
    expect(after.error?.message).toMatch(/called "Work-Laptp", so nothing was created\. The account has "work-laptop", .*, and 4 more$/);
    expect(made(bench).filter((route) => route.startsWith('POST'))).toEqual([]);
  });

  test('that two keys have is refused, naming their ids', async () => {
    const bench = await openBench();
    const ids = [await addKey(bench, 'laptop'), await addKey(bench, 'laptop')];
    const after = await bench.drive((await bench.provision({ ssh_keys: ['laptop'] })).id);
    expect(after).toMatchObject({ status: 'compensated', error: { code: 'ssh_key_ambiguous', message: expect.stringContaining(`(ids ${ids.join(', ')})`) } });
  });

  test('is read once for many sagas, and once more for a key that was added since', async () => {
    const bench = await openBench();
    const one = await addKey(bench, 'one');
    const [first, second] = [await bench.provision({ name: 'a', ssh_keys: ['one'] }), await bench.provision({ name: 'b', ssh_keys: ['one'] })];
    await bench.step(first.id);
    await bench.step(second.id);
    expect(requests(bench.sandbox, 'GET /v2/account/keys')).toBe(1);
    const two = await addKey(bench, 'two');
    const third = await bench.provision({ name: 'c', ssh_keys: ['one', 'two'] });
    await bench.step(third.id);
    expect(requests(bench.sandbox, 'GET /v2/account/keys')).toBe(2);
    expect((await bench.saga(third.id)).context['ssh_key_ids']).toEqual([one, two]);
  });

  test('on the second page of the list is found', async () => {
    const bench = await openBench();
    for (let index = 0; index < 200; index += 1) await addKey(bench, `key-${index}`);
    const id = await addKey(bench, 'last');
    const after = await bench.drive((await bench.provision({ ssh_keys: ['last'] })).id);
    expect(after).toMatchObject({ status: 'completed', context: { ssh_key_ids: [id] } });
  });

  test('stands for the same id in every create, whatever was renamed between them', async () => {
    const bench = await openBench();
    const id = await addKey(bench, 'laptop');
    const saga = await bench.provision({ ssh_keys: ['laptop'] });
    await stepToDeath(bench, saga.id, 'http POST /v2/droplets', 'before');
    await api(bench, 'PUT', `/v2/account/keys/${id}`, z.unknown(), { name: 'old-laptop' });
    await addKey(bench, 'laptop');
    const { names, io } = recorded();
    await bench.ageCreate(saga.id, 3_600_000);
    await bench.step(saga.id, { io });
    expect(names).not.toContain('http GET /v2/account/keys');
    expect(await bench.drive(saga.id)).toMatchObject({ status: 'completed', context: { ssh_key_ids: [id] } });
  });

  test('is looked up again by a worker that dies before it wrote the id down', async () => {
    const bench = await openBench();
    const id = await addKey(bench, 'laptop');
    const saga = await bench.provision({ ssh_keys: ['laptop'] });
    await bench.step(saga.id, { io: mortalAt('http GET /v2/account/keys', 'after') }).catch(() => undefined);
    expect(await bench.drive(saga.id)).toMatchObject({ status: 'completed', context: { ssh_key_ids: [id] } });
    expect(alive(bench.sandbox)).toHaveLength(1);
  });

  test('that the token may not read holds the saga, with the scope that it lacks, and nothing is created', async () => {
    const bench = await openBench();
    await addKey(bench, 'laptop');
    bench.sandbox.setFaults({ rules: [{ match: { method: 'GET', path: '/v2/account/keys' }, effect: { status: 403, body: { id: 'Forbidden', message: 'no' } } }] });
    const saga = await bench.provision({ ssh_keys: ['laptop'] });
    expect(await bench.step(saga.id)).toMatchObject({ note: expect.stringContaining('ssh_key:read') });
    bench.sandbox.resetFaults();
    expect((await bench.drive(saga.id)).status).toBe('completed');
  });

  test('while DigitalOcean is out of reach fails after the attempts of the step, and nothing was created', async () => {
    const bench = await openBench({ faults: { rules: [{ match: { method: 'GET', path: '/v2/account/keys' }, effect: { status: 503 } }] } });
    const after = await bench.drive((await bench.provision({ ssh_keys: ['laptop'] })).id);
    expect(after).toMatchObject({ status: 'compensated', error: { code: 'digitalocean_later' } });
    expect(made(bench).filter((route) => route.startsWith('POST'))).toEqual([]);
  });
});

describe('a project', () => {
  test.each(['name', 'id'] as const)('by its %s has the droplet once it is ready; it leaves it with its destruction', async (by) => {
    const bench = await openBench();
    const id = await addProject(bench, 'web shop');
    const saga = await bench.drive((await bench.provision({ project: by === 'name' ? 'web shop' : id.toUpperCase() })).id);
    expect(saga).toMatchObject({ status: 'completed', context: { project_id: id } });
    const dropletId = Number(saga.context['droplet_id']);
    expect(await membersOf(bench, id)).toEqual([`do:droplet:${dropletId}`]);
    expect((await bench.drive((await bench.destroy(dropletId)).id)).status).toBe('completed');
    expect(await membersOf(bench, id)).toEqual([]);
  });

  test('is no field of the create', async () => {
    const bench = await openBench({ faults: { rules: [{ match: { method: 'POST', path: '/v2/droplets', field: 'project' }, effect: { status: 422 } }] } });
    await addProject(bench, 'web');
    expect((await bench.drive((await bench.provision({ project: 'web' })).id)).status).toBe('completed');
  });

  test('that is not there ends the saga before anything is created, and says which are', async () => {
    const bench = await openBench();
    await addProject(bench, 'web');
    for (const project of ['Web', noSuchProject]) {
      const after = await bench.drive((await bench.provision({ project })).id);
      expect(after).toMatchObject({ status: 'compensated', error: { code: 'project_unknown', message: expect.stringContaining('"web"') } });
    }
    expect(made(bench).filter((route) => route.startsWith('POST'))).toEqual([]);
  });

  test.each([403, 404])('that refuses the droplet with %i has it destroyed again', async (status) => {
    const bench = await openBench();
    await addProject(bench, 'web');
    bench.sandbox.setFaults({ rules: [{ match: { method: 'POST', path: '/v2/projects' }, effect: { status, body: { id: 'x', message: 'no' } } }] });
    const after = await bench.drive((await bench.provision({ project: 'web' })).id);
    expect(after).toMatchObject({ status: 'compensated', error: { code: 'project_not_assigned', retryable: false, message: expect.stringContaining(status === 403 ? 'project:assign_resource' : 'returned 404') } });
    expect(alive(bench.sandbox)).toEqual([]);
    expect(await bench.inventory()).toEqual([]);
  });

  test.each(['lostAnswer', 'truncate'] as const)('whose answer is lost (%s) is assigned again, and the saga completes', async (effect) => {
    const bench = await openBench();
    const id = await addProject(bench, 'web');
    bench.sandbox.setFaults({ rules: [{ match: { method: 'POST', path: '/v2/projects' }, times: 1, effect: { [effect]: true } }] });
    const after = await bench.drive((await bench.provision({ project: 'web' })).id);
    expect(after.status).toBe('completed');
    expect(await membersOf(bench, id)).toEqual([`do:droplet:${dropletOf(after)}`]);
  });

  test('that says "service_down" of the droplet is asked again', async () => {
    const bench = await openBench();
    const id = await addProject(bench, 'web');
    const saga = await bench.provision({ project: 'web' });
    const urn = `do:droplet:${dropletOf(await bench.drive(saga.id, at('register_droplet')))}`;
    bench.sandbox.setFaults({ rules: [{ match: { method: 'POST', path: '/v2/projects' }, times: 1, effect: { status: 200, body: { resources: [{ urn, status: 'service_down' }] } } }] });
    expect((await bench.drive(saga.id)).status).toBe('completed');
    expect(await membersOf(bench, id)).toEqual([urn]);
  });

  test('has a droplet that was adopted too', async () => {
    const bench = await openBench({ faults: { rules: [{ match: { method: 'POST', path: '/v2/droplets' }, times: 1, effect: { lostAnswer: true } }] } });
    const id = await addProject(bench, 'web');
    const after = await bench.drive((await bench.provision({ project: 'web' })).id);
    expect(after).toMatchObject({ status: 'completed', context: { droplet_origin: 'adopted' } });
    expect(await membersOf(bench, id)).toEqual(idsOf(alive(bench.sandbox)).map((one) => `do:droplet:${one}`));
  });

  test('gets no droplet that turns out to be another saga\'s', async () => {
    const bench = await openBench();
    const id = await addProject(bench, 'web');
    const saga = await bench.provision({ project: 'web' });
    const { context } = await bench.drive(saga.id, at('register_droplet'));
    bench.sandbox.editDroplet(Number(context['droplet_id']), { tags: ['arcadia-saga-id-0000000a-0000-4000-8000-000000000000'] });
    expect(await bench.drive(saga.id)).toMatchObject({ status: 'compensated', error: { code: 'droplet_not_ours' } });
    expect(await membersOf(bench, id)).toEqual([]);
  });
});

test('names are put in the order of how few letters they differ by', () => {
  expect(nearestFirst('Laptop', ['zz', 'work-laptop', 'laptop', 'lapto', ''])).toEqual(['laptop', 'lapto', 'work-laptop', '', 'zz']);
  expect(nearestFirst('x'.repeat(255), ['y'.repeat(255)])).toHaveLength(1);
});
