// Actions on droplets, snapshots, VPCs, and what the sandbox does not imitate.
import { expect, test } from 'vitest';
import type { Sandbox } from '../../src/sandbox/server.ts';
import { call, create, openSandbox, read } from './support.ts';

const SECOND = 1_000;

/** A sandbox with an active droplet, the actions of which take a second of its clock. */
async function openWithDroplet(): Promise<{ sandbox: Sandbox; id: number }> {
  const sandbox = await openSandbox({ activateAfterMs: 0, actionMs: SECOND });
  return { sandbox, id: (await create(sandbox, { tags: ['web'] })).id };
}

const act = async (sandbox: Sandbox, id: number, body: object) => call(sandbox, 'POST', `/v2/droplets/${id}/actions`, { body });

/** Starts an action, and lets it end. */
async function done(sandbox: Sandbox, id: number, body: object): Promise<void> {
  const begun = await act(sandbox, id, body);
  expect([begun.status, begun.body.action.status]).toEqual([201, 'in-progress']);
  sandbox.advanceClock(SECOND);
  expect((await call(sandbox, 'GET', `/v2/actions/${begun.body.action.id}`)).body.action).toMatchObject({ status: 'completed', resource_id: id, resource_type: 'droplet', completed_at: expect.any(String) });
}

test('an action is in progress, then completed; meanwhile its droplet is locked and takes no other', async () => {
  const { sandbox, id } = await openWithDroplet();
  const begun = await act(sandbox, id, { type: 'power_off' });
  expect(begun.body.action).toMatchObject({ type: 'power_off', status: 'in-progress', completed_at: null, resource_id: id });
  expect((await read(sandbox, id)).body.droplet).toMatchObject({ status: 'active', locked: true });
  const refused = [await act(sandbox, id, { type: 'reboot' }), await call(sandbox, 'DELETE', `/v2/droplets/${id}`)];
  for (const { status, body } of refused) expect([status, body.id, body.message]).toEqual([422, 'unprocessable_entity', 'Droplet already has a pending event.']);
  sandbox.advanceClock(SECOND);
  expect((await read(sandbox, id)).body.droplet).toMatchObject({ status: 'off', locked: false });
  expect((await call(sandbox, 'GET', `/v2/droplets/${id}/actions`)).body.actions.map(({ type, status }) => [type, status])).toEqual([['power_off', 'completed'], ['create', 'completed']]);
  expect((await call(sandbox, 'GET', `/v2/droplets/${id}/actions/${begun.body.action.id}`)).status).toBe(200);
  expect((await call(sandbox, 'DELETE', `/v2/droplets/${id}`)).status).toBe(204);
});

test('power goes off and on, and an action that changes nothing is refused', async () => {
  const { sandbox, id } = await openWithDroplet();
  expect((await act(sandbox, id, { type: 'power_on' })).status).toBe(422);
  await done(sandbox, id, { type: 'shutdown' });
  expect((await act(sandbox, id, { type: 'power_off' })).status).toBe(422);
  await done(sandbox, id, { type: 'power_on' });
  expect((await read(sandbox, id)).body.droplet.status).toBe('active');
  await done(sandbox, id, { type: 'reboot' });
  await done(sandbox, id, { type: 'power_cycle' });
  expect(sandbox.state()[0]?.status).toBe('active');
});

test('a droplet is renamed, and found by its new name', async () => {
  const { sandbox, id } = await openWithDroplet();
  expect((await act(sandbox, id, { type: 'rename', name: 'not good' })).status).toBe(422);
  await done(sandbox, id, { type: 'rename', name: 'web-2' });
  expect((await call(sandbox, 'GET', '/v2/droplets?name=web-2')).body.droplets.map((one) => one.id)).toEqual([id]);
  expect((await call(sandbox, 'GET', '/v2/droplets?name=web-1')).body.droplets).toEqual([]);
});

test('a droplet that is off is resized, and its disk never shrinks', async () => {
  const { sandbox, id } = await openWithDroplet();
  expect((await act(sandbox, id, { type: 'resize', size: 's-2vcpu-4gb' })).status).toBe(422);
  await done(sandbox, id, { type: 'power_off' });
  expect((await act(sandbox, id, { type: 'resize', size: 's-999vcpu' })).status).toBe(422);
  await done(sandbox, id, { type: 'resize', size: 's-2vcpu-4gb' });
  expect((await read(sandbox, id)).body.droplet).toMatchObject({ size_slug: 's-2vcpu-4gb', memory: 4096, vcpus: 2, disk: 25 });
  await done(sandbox, id, { type: 'resize', size: 's-1vcpu-1gb' });
  await done(sandbox, id, { type: 'resize', size: 's-2vcpu-4gb', disk: true });
  expect((await read(sandbox, id)).body.droplet).toMatchObject({ disk: 80 });
  expect((await act(sandbox, id, { type: 'resize', size: 's-1vcpu-1gb' })).body.message).toBe("Size can not decrease size of Droplet's disk image");
});

test('a snapshot is listed, is an image for new droplets, and is deleted', async () => {
  const { sandbox, id } = await openWithDroplet();
  await done(sandbox, id, { type: 'snapshot', name: 'golden' });
  const [snapshot] = (await call(sandbox, 'GET', '/v2/snapshots?resource_type=droplet')).body.snapshots;
  expect(snapshot).toMatchObject({ name: 'golden', resource_id: String(id), resource_type: 'droplet', regions: ['nyc3'], min_disk_size: 25 });
  expect((await read(sandbox, id)).body.droplet).toMatchObject({ snapshot_ids: [Number(snapshot?.id)] });
  expect((await call(sandbox, 'GET', `/v2/droplets/${id}/snapshots`)).body.snapshots).toMatchObject([{ id: Number(snapshot?.id), type: 'snapshot' }]);
  expect((await call(sandbox, 'GET', `/v2/images/${snapshot?.id}`)).body.image).toMatchObject({ name: 'golden', public: false, type: 'snapshot' });
  expect((await create(sandbox, { name: 'copy', image: Number(snapshot?.id) })).image).toMatchObject({ name: 'golden' });
  expect((await call(sandbox, 'DELETE', `/v2/snapshots/${snapshot?.id}`)).status).toBe(204);
  expect((await call(sandbox, 'GET', `/v2/snapshots/${snapshot?.id}`)).status).toBe(404);
});

test('an action by tag is one for each droplet that has it', async () => {
  const { sandbox } = await openWithDroplet();
  await create(sandbox, { name: 'web-2', tags: ['web'] });
  await create(sandbox, { name: 'db-1' });
  const begun = await call(sandbox, 'POST', '/v2/droplets/actions?tag_name=web', { body: { type: 'power_off' } });
  expect([begun.status, begun.body.actions.length]).toEqual([201, 2]);
  sandbox.advanceClock(SECOND);
  expect(sandbox.state().map(({ name, status }) => [name, status])).toEqual([['web-1', 'off'], ['web-2', 'off'], ['db-1', 'active']]);
});

test('a VPC is made, holds droplets, is changed, and is deleted only when it is empty and no default', async () => {
  const { sandbox } = await openWithDroplet();
  const made = await call(sandbox, 'POST', '/v2/vpcs', { body: { name: 'private', region: 'nyc3', ip_range: '10.10.0.0/24' } });
  const { vpc } = made.body;
  expect([made.status, vpc]).toMatchObject([201, { name: 'private', region: 'nyc3', ip_range: '10.10.0.0/24', default: false, urn: `do:vpc:${vpc.id}`, description: '' }]);
  const refusals = [{ name: 'private', region: 'nyc3' }, { name: 'other', region: 'nyc3', ip_range: '10.10.0.128/25' }, { name: 'other', region: 'mars1' }, { name: 'other', region: 'nyc3', ip_range: '8.8.8.0/24' }];
  for (const body of refusals) expect((await call(sandbox, 'POST', '/v2/vpcs', { body })).status).toBe(422);
  const inside = await create(sandbox, { name: 'inside', vpc_uuid: vpc.id });
  expect((await call(sandbox, 'GET', `/v2/vpcs/${vpc.id}/members`)).body.members).toMatchObject([{ urn: `do:droplet:${inside.id}`, name: 'inside' }]);
  expect((await call(sandbox, 'DELETE', `/v2/vpcs/${vpc.id}`)).body).toMatchObject({ id: 'forbidden', message: 'Can not delete VPC with members' });
  expect((await call(sandbox, 'PATCH', `/v2/vpcs/${vpc.id}`, { body: { description: 'for tests' } })).body.vpc.description).toBe('for tests');
  await call(sandbox, 'DELETE', `/v2/droplets/${inside.id}`);
  expect((await call(sandbox, 'DELETE', `/v2/vpcs/${vpc.id}`)).status).toBe(204);
  const standard = (await call(sandbox, 'GET', '/v2/vpcs?per_page=200')).body.vpcs.find(({ region }) => region === 'nyc3');
  expect((await call(sandbox, 'DELETE', `/v2/vpcs/${standard?.id}`)).status).toBe(403);
  expect((await call(sandbox, 'GET', `/v2/vpcs/${vpc.id}`)).status).toBe(404);
});

test.each([
  ['GET', '/v2/databases'],
  ['POST', '/v2/volumes'],
  ['GET', '/v2/droplets/1/kernels'],
  ['PUT', '/v2/droplets/1'],
])('%s %s is answered 501, with what it does imitate', async (method, path) => {
  const sandbox = await openSandbox();
  const { status, body } = await call(sandbox, method, path);
  expect([status, body.id]).toEqual([501, 'not_implemented']);
  expect(body.message).toMatch(new RegExp(`^The sandbox does not imitate ${method} ${path}\\. It imitates: /v2/droplets, .*/v2/tags/:name/resources\\.$`));
});

test.each(['rebuild', 'restore', 'enable_ipv6', 'password_reset'])('the action %s is answered 501, with those that it does imitate', async (type) => {
  const { sandbox, id } = await openWithDroplet();
  const { status, body } = await act(sandbox, id, { type });
  expect([status, body.id]).toEqual([501, 'not_implemented']);
  expect(body.message).toContain('power_on, power_off');
  expect((await act(sandbox, id, { type: 'explode' })).status).toBe(422);
});
