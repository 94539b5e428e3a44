// A droplet's life: new, active with addresses, gone; and what can go wrong in it.
import { expect, test } from 'vitest';
import { call, create, listNames, openSandbox, read, until } from './support.ts';
import { patience } from '../support/patience.ts';

const minuteMs = 60_000;

test('a droplet becomes active by itself after the set time', async () => {
  const sandbox = await openSandbox({ activateAfterMs: 50, ratePerMinute: null });
  const { id, status } = await create(sandbox);
  expect(status).toBe('new');
  await until('the droplet is active', async () => ((await read(sandbox, id)).body.droplet.status === 'active' ? true : undefined));
});

test('an active droplet has its private address first, a public one, and IPv6 if asked for', async () => {
  const sandbox = await openSandbox();
  const plain = await create(sandbox);
  const six = await create(sandbox, { ipv6: true });
  const hidden = await create(sandbox, { public_networking: false });
  sandbox.advanceClock(3000);
  const typesOf = async (id: number): Promise<string[]> => (await read(sandbox, id)).body.droplet.networks.v4.map((network) => network.type);
  expect(await typesOf(plain.id)).toEqual(['private', 'public']);
  expect(await typesOf(hidden.id)).toEqual(['private']);
  expect((await read(sandbox, plain.id)).body.droplet.networks.v6).toEqual([]);
  expect((await read(sandbox, six.id)).body.droplet.networks.v6).toHaveLength(1);
});

test('no two droplets share an address', async () => {
  const sandbox = await openSandbox();
  for (let index = 0; index < 600; index += 1) sandbox.addForeignDroplet({ name: `d-${index}`, tags: ['t'] });
  const addresses: string[] = [];
  for (const page of [1, 2, 3]) {
    const { droplets } = (await call(sandbox, 'GET', `/v2/droplets?tag_name=t&per_page=200&page=${page}`)).body;
    addresses.push(...droplets.flatMap((droplet) => droplet.networks.v4.map((network) => network.ip_address)));
  }
  expect(new Set(addresses).size).toBe(1200);
});

test('with a range, each droplet has its own time to become active within it', async () => {
  const sandbox = await openSandbox({ activateAfterMs: { minMs: 10_000, maxMs: 20_000 } });
  for (let index = 0; index < 40; index += 1) await create(sandbox, { name: `d-${index}` });
  const active = (): number => sandbox.state().filter((line) => line.status === 'active').length;
  sandbox.advanceClock(9000);
  expect(active()).toBe(0);
  sandbox.advanceClock(6000);
  expect(active()).toBeGreaterThan(5);
  expect(active()).toBeLessThan(35);
  sandbox.advanceClock(6000);
  expect(active()).toBe(40);
});

test('the create action is in progress until the droplet is active', async () => {
  const sandbox = await openSandbox();
  const { id } = await create(sandbox);
  const [action] = (await call(sandbox, 'GET', `/v2/droplets/${id}/actions`)).body.actions;
  expect(action).toMatchObject({ status: 'in-progress', resource_id: id, completed_at: null });
  sandbox.advanceClock(4000);
  expect((await call(sandbox, 'GET', `/v2/actions/${action?.id}`)).body.action.status).toBe('completed');
  expect((await call(sandbox, 'GET', `/v2/droplets/${id}/actions/${action?.id}`)).body.action.status).toBe('completed');
  expect((await call(sandbox, 'GET', '/v2/actions')).body.actions).toHaveLength(1);
});

test('listLagMs keeps a new droplet out of all lists, not from a GET', async () => {
  const sandbox = await openSandbox({ faults: { listLagMs: minuteMs } });
  const { id } = await create(sandbox, { tags: ['t'] });
  expect((await read(sandbox, id)).status).toBe(200);
  for (const query of ['', '?tag_name=t', '?name=web-1']) expect(await listNames(sandbox, query)).toEqual([]);
  sandbox.advanceClock(minuteMs);
  for (const query of ['', '?tag_name=t', '?name=web-1']) expect(await listNames(sandbox, query)).toEqual(['web-1']);
});

test('tagLagMs keeps tags from the droplet and from lists by tag', async () => {
  const sandbox = await openSandbox({ faults: { tagLagMs: minuteMs } });
  const { id, tags } = await create(sandbox, { tags: ['t'] });
  expect(tags).toEqual([]);
  expect((await read(sandbox, id)).body.droplet.tags).toEqual([]);
  expect(await listNames(sandbox)).toEqual(['web-1']);
  expect(await listNames(sandbox, '?tag_name=t')).toEqual([]);
  sandbox.advanceClock(minuteMs);
  expect((await read(sandbox, id)).body.droplet.tags).toEqual(['t']);
  expect(await listNames(sandbox, '?tag_name=t')).toEqual(['web-1']);
});

test('tagIndexLagMs keeps a droplet that shows its tags from lists by tag', async () => {
  const sandbox = await openSandbox({ faults: { tagIndexLagMs: minuteMs } });
  const { id } = await create(sandbox, { tags: ['t'] });
  expect((await read(sandbox, id)).body.droplet.tags).toEqual(['t']);
  expect(await listNames(sandbox, '?name=web-1')).toEqual(['web-1']);
  expect(await listNames(sandbox, '?tag_name=t')).toEqual([]);
  sandbox.advanceClock(minuteMs);
  expect(await listNames(sandbox, '?tag_name=t')).toEqual(['web-1']);
});

test('deleteLagMs leaves a deleted droplet in lists for a while', async () => {
  const sandbox = await openSandbox({ faults: { deleteLagMs: minuteMs } });
  const { id } = await create(sandbox, { tags: ['t'] });
  await call(sandbox, 'DELETE', `/v2/droplets/${id}`);
  expect((await read(sandbox, id)).status).toBe(404);
  expect(await listNames(sandbox, '?tag_name=t')).toEqual(['web-1']);
  sandbox.advanceClock(minuteMs);
  expect(await listNames(sandbox, '?tag_name=t')).toEqual([]);
});

test('notFoundAfterCreateMs answers GET by id 404 for a while', async () => {
  const sandbox = await openSandbox({ faults: { notFoundAfterCreateMs: minuteMs } });
  const { id } = await create(sandbox);
  expect((await read(sandbox, id)).status).toBe(404);
  expect((await call(sandbox, 'GET', `/v2/droplets/${id}/actions`)).status).toBe(404);
  expect(await listNames(sandbox)).toEqual(['web-1']);
  sandbox.advanceClock(minuteMs);
  expect((await read(sandbox, id)).status).toBe(200);
});

test('deleteNotFoundAfterCreateMs answers DELETE 404 for a while, and the droplet lives on', async () => {
  const sandbox = await openSandbox({ faults: { deleteNotFoundAfterCreateMs: minuteMs } });
  const { id } = await create(sandbox);
  expect((await call(sandbox, 'DELETE', `/v2/droplets/${id}`)).status).toBe(404);
  expect((await read(sandbox, id)).status).toBe(200);
  sandbox.advanceClock(minuteMs);
  expect((await call(sandbox, 'DELETE', `/v2/droplets/${id}`)).status).toBe(204);
});

test('earlyDelete 422 refuses to delete a droplet while it is new', async () => {
  const sandbox = await openSandbox({ faults: { earlyDelete: '422' } });
  const { id } = await create(sandbox);
  const refused = await call(sandbox, 'DELETE', `/v2/droplets/${id}`);
  expect([refused.status, refused.body.message]).toEqual([422, 'Droplet already has a pending event.']);
  sandbox.advanceClock(4000);
  expect((await call(sandbox, 'DELETE', `/v2/droplets/${id}`)).status).toBe(204);
});

test('earlyDelete ignored says 204 while the droplet is new, and it lives on', async () => {
  const sandbox = await openSandbox({ faults: { earlyDelete: 'ignored' } });
  const { id } = await create(sandbox);
  expect((await call(sandbox, 'DELETE', `/v2/droplets/${id}`)).status).toBe(204);
  sandbox.advanceClock(4000);
  expect((await read(sandbox, id)).body.droplet.status).toBe('active');
  expect((await call(sandbox, 'DELETE', `/v2/droplets/${id}`)).status).toBe(204);
  expect((await read(sandbox, id)).status).toBe(404);
});

test('placementFails by name: accepted, then the action is errored and the droplet gone for good', async () => {
  const sandbox = await openSandbox({ faults: { placementFails: 'doomed-*', placementFailsAfterMs: 1000 } });
  const reply = await call(sandbox, 'POST', '/v2/droplets', { body: { name: 'doomed-1', size: 's-1vcpu-1gb', image: 'debian-12-x64' } });
  const fine = await create(sandbox, { name: 'fine' });
  const { droplet, links } = reply.body;
  const actionId = links.actions[0]?.id;
  expect((await read(sandbox, droplet.id)).body.droplet.status).toBe('new');
  expect((await call(sandbox, 'GET', `/v2/actions/${actionId}`)).body.action.status).toBe('in-progress');
  sandbox.advanceClock(5000);
  sandbox.resetFaults();
  expect((await call(sandbox, 'GET', `/v2/actions/${actionId}`)).body.action.status).toBe('errored');
  expect((await read(sandbox, droplet.id)).status).toBe(404);
  expect((await read(sandbox, fine.id)).body.droplet.status).toBe('active');
  expect(await listNames(sandbox)).toEqual(['fine']);
});

async function fatesOfAHundred(): Promise<boolean[]> {
  const sandbox = await openSandbox({ faults: { placementFails: 0.3, placementFailsAfterMs: 0, seed: 42 } });
  for (let index = 0; index < 100; index += 1) await create(sandbox, { name: `d-${index}` });
  return sandbox.state().map((line) => line.alive);
}

test('placementFails as a share fails that share, the same ones for the same seed', async () => {
  const first = await fatesOfAHundred();
  const alive = first.filter(Boolean).length;
  expect(alive).toBeGreaterThan(50);
  expect(alive).toBeLessThan(90);
  expect(await fatesOfAHundred()).toEqual(first);
});

test('neverActive keeps droplets of that name new as long as it is set', async () => {
  const sandbox = await openSandbox({ faults: { neverActive: '^slow-' } });
  const slow = await create(sandbox, { name: 'slow-1' });
  const fine = await create(sandbox, { name: 'fine' });
  sandbox.advanceClock(60 * minuteMs);
  expect((await read(sandbox, slow.id)).body.droplet).toMatchObject({ status: 'new', networks: { v4: [] } });
  expect((await read(sandbox, fine.id)).body.droplet.status).toBe('active');
  sandbox.resetFaults();
  expect((await read(sandbox, slow.id)).body.droplet.status).toBe('active');
});

test('vanishAfterMs makes droplets of that name disappear without an errored action', async () => {
  const sandbox = await openSandbox({ faults: { vanishAfterMs: 1000, vanishNames: 'ghost' } });
  const ghost = await create(sandbox, { name: 'ghost' });
  await create(sandbox, { name: 'fine' });
  const [action] = (await call(sandbox, 'GET', `/v2/droplets/${ghost.id}/actions`)).body.actions;
  sandbox.advanceClock(5000);
  expect((await read(sandbox, ghost.id)).status).toBe(404);
  expect((await call(sandbox, 'GET', `/v2/actions/${action?.id}`)).body.action.status).toBe('in-progress');
  expect(await listNames(sandbox)).toEqual(['fine']);
  expect(sandbox.state({ name: 'ghost' })[0]).toMatchObject({ alive: false, deletedAt: null });
});

test('placementLeavesNew: the action is errored, and the droplet shown as new for good', async () => {
  const sandbox = await openSandbox({ faults: { placementFails: 1, placementFailsAfterMs: 1000, placementLeavesNew: true } });
  const droplet = await create(sandbox, {});
  sandbox.advanceClock(minuteMs);
  expect((await read(sandbox, droplet.id)).body.droplet.status).toBe('new');
  expect(JSON.stringify(await (await fetch(`${sandbox.url}/v2/droplets/${droplet.id}/actions`, { headers: { authorization: 'Bearer x' } })).json())).toContain('"errored"');
});

test('addressLagMs leaves out the addresses of one kind for a while', async () => {
  const sandbox = await openSandbox({ activateAfterMs: 0, faults: { addressLagMs: { public_ipv6: minuteMs } } });
  const droplet = await create(sandbox, { ipv6: true });
  expect((await read(sandbox, droplet.id)).body.droplet.networks).toMatchObject({ v4: [{ type: 'private' }, { type: 'public' }], v6: [] });
  sandbox.advanceClock(minuteMs);
  expect((await read(sandbox, droplet.id)).body.droplet.networks).toMatchObject({ v6: [{ type: 'public' }] });
});

test('garble and garbleMissing change the fields of the droplets of these names, wherever they are shown', async () => {
  const sandbox = await openSandbox({ faults: { garble: { image: null, region: {} }, garbleMissing: ['size_slug'], garbleNames: 'odd-*' } });
  const [odd, plain] = [await create(sandbox, { name: 'odd-1' }), await create(sandbox, { name: 'plain' })];
  expect(odd).toMatchObject({ image: null, region: {} });
  expect(odd).not.toHaveProperty('size_slug');
  expect((await read(sandbox, odd.id)).body.droplet).toMatchObject({ id: odd.id, image: null });
  expect(plain).toMatchObject({ size_slug: expect.any(String), image: { id: expect.any(Number) } });
});

test('activeWithoutNetworksMs leaves an active droplet without addresses for a while', async () => {
  const sandbox = await openSandbox({ activateAfterMs: 1000, faults: { activeWithoutNetworksMs: minuteMs } });
  const { id } = await create(sandbox);
  sandbox.advanceClock(2000);
  expect((await read(sandbox, id)).body.droplet).toMatchObject({ status: 'active', networks: { v4: [], v6: [] } });
  sandbox.advanceClock(minuteMs);
  expect((await read(sandbox, id)).body.droplet.networks.v4).toHaveLength(2);
});

test('statusOverride shows any status for droplets of a name', async () => {
  const sandbox = await openSandbox({ faults: { statusOverride: 'archive', statusOverrideNames: 'odd' } });
  const odd = await create(sandbox, { name: 'odd' });
  const fine = await create(sandbox, { name: 'fine' });
  expect((await read(sandbox, odd.id)).body.droplet.status).toBe('archive');
  expect((await read(sandbox, fine.id)).body.droplet.status).toBe('new');
});

test('lists of ten thousand droplets by tag are quick', async () => {
  const sandbox = await openSandbox({ ratePerMinute: null });
  for (let index = 0; index < 10_000; index += 1) sandbox.addForeignDroplet({ name: `d-${index}`, tags: ['all', `own-${index}`] });
  const begunAt = performance.now();
  for (let index = 0; index < 100; index += 1) expect(await listNames(sandbox, `?tag_name=own-${index}`)).toEqual([`d-${index}`]);
  for (let page = 1; page <= 50; page += 1) expect(await listNames(sandbox, `?tag_name=all&per_page=200&page=${page}`)).toHaveLength(200);
  expect(performance.now() - begunAt).toBeLessThan(10_000 * patience());
});

test('what stays billed without a droplet is listed: its volumes and snapshots, and what the controls attach', async () => {
  const sandbox = await openSandbox({ activateAfterMs: 0 });
  const ask = (method: string, path: string, body?: object) => fetch(`${sandbox.url}${path}`, { method, headers: { authorization: 'Bearer test', 'content-type': 'application/json' }, ...(body === undefined ? {} : { body: JSON.stringify(body) }) });
  const created = await ask('POST', '/v2/droplets', { name: 'with-volume', region: 'fra1', size: 's-1vcpu-1gb', image: 'debian-12-x64', volumes: ['ba49449a-7435-11ea-b89e-0a58ac14480f'] });
  expect(created.status).toBe(202);
  const id = sandbox.state()[0]?.id ?? 0;
  const reserved = { id: '7', name: '203.0.113.7', cost: '5.00' };
  expect((await ask('PATCH', `/sandbox/droplets/${id}`, { associated: { reserved_ips: [reserved] } })).status).toBe(200);
  expect((await ask('PATCH', `/sandbox/droplets/${id}`, { associated: { reserved_ips: [{ ...reserved, cost: 'much' }] } })).status).toBe(422);
  const answer = await ask('GET', `/v2/droplets/${id}/destroy_with_associated_resources`);
  expect([answer.status, await answer.json()]).toEqual([
    200,
    { reserved_ips: [reserved], floating_ips: [reserved], snapshots: [], volumes: [{ id: 'ba49449a-7435-11ea-b89e-0a58ac14480f', name: 'volume-ba49449a', cost: '10.00' }], volume_snapshots: [] },
  ]);
  expect((await ask('GET', '/v2/droplets/99/destroy_with_associated_resources')).status).toBe(404);
});
