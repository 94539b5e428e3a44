// What an account holds beside droplets: SSH keys and tags.
import { expect, test } from 'vitest';
import { call, create, listNames, openSandbox } from './support.ts';

const publicKey = 'ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGVxYW1wbGVrZXlmb3J0ZXN0c29ubHkxMjM0NTY3ODkw ada@example.com';

test('SSH keys are added, listed, read by id and by fingerprint, renamed and deleted', async () => {
  const sandbox = await openSandbox();
  const added = await call(sandbox, 'POST', '/v2/account/keys', { body: { name: 'ada', public_key: publicKey } });
  const { ssh_key: key } = added.body;
  expect([added.status, key]).toEqual([201, { id: expect.any(Number), fingerprint: expect.stringMatching(/^([0-9a-f]{2}:){15}[0-9a-f]{2}$/u), public_key: publicKey, name: 'ada' }]);
  expect((await call(sandbox, 'GET', '/v2/account/keys')).body).toEqual({ ssh_keys: [key], links: {}, meta: { total: 1 } });
  for (const name of [key.id, key.fingerprint]) expect((await call(sandbox, 'GET', `/v2/account/keys/${name}`)).body.ssh_key).toEqual(key);
  expect((await call(sandbox, 'PUT', `/v2/account/keys/${key.id}`, { body: { name: 'ada-2' } })).body.ssh_key.name).toBe('ada-2');
  expect((await call(sandbox, 'DELETE', `/v2/account/keys/${key.fingerprint}`)).status).toBe(204);
  expect((await call(sandbox, 'GET', `/v2/account/keys/${key.id}`)).status).toBe(404);
});

test.each([
  ['no name', { public_key: publicKey }, "Name can't be blank"],
  ['text that is no key', { name: 'x', public_key: 'hello' }, 'Key invalid, key should be of the format "[type] [key] [comment]"'],
  ['a key that is there', { name: 'again', public_key: publicKey }, 'SSH Key is already in use on your account'],
])('an SSH key with %s is refused', async (_what, body, message) => {
  const sandbox = await openSandbox();
  await call(sandbox, 'POST', '/v2/account/keys', { body: { name: 'ada', public_key: publicKey } });
  const refused = await call(sandbox, 'POST', '/v2/account/keys', { body });
  expect([refused.status, refused.body.id, refused.body.message]).toEqual([422, 'unprocessable_entity', message]);
});

test('a tag is put on droplets and taken off again', async () => {
  const sandbox = await openSandbox();
  const droplet = await create(sandbox, { tags: ['web'] });
  await call(sandbox, 'POST', '/v2/tags', { body: { name: 'blue' } });
  const resources = [{ resource_id: String(droplet.id), resource_type: 'droplet' }];
  expect((await call(sandbox, 'POST', '/v2/tags/blue/resources', { body: { resources } })).status).toBe(204);
  expect(await listNames(sandbox, '?tag_name=blue')).toEqual(['web-1']);
  expect(sandbox.state()[0]?.tags).toEqual(['web', 'blue']);
  expect((await call(sandbox, 'DELETE', '/v2/tags/blue/resources', { body: { resources } })).status).toBe(204);
  expect(await listNames(sandbox, '?tag_name=blue')).toEqual([]);
  expect(sandbox.state()[0]?.tags).toEqual(['web']);
});

test('tagging names what is not there, and what the sandbox does not imitate', async () => {
  const sandbox = await openSandbox();
  const droplet = await create(sandbox);
  await call(sandbox, 'POST', '/v2/tags', { body: { name: 'blue' } });
  const tag = (name: string, id: number, type = 'droplet') => call(sandbox, 'POST', `/v2/tags/${name}/resources`, { body: { resources: [{ resource_id: String(droplet.id), resource_type: 'droplet' }, { resource_id: String(id), resource_type: type }] } });
  expect((await tag('never-used', droplet.id)).status).toBe(404);
  expect((await tag('blue', 1)).status).toBe(404);
  const volume = await tag('blue', 1, 'volume');
  expect([volume.status, volume.body.id]).toEqual([501, 'not_implemented']);
  expect(volume.body.message).toBe('The sandbox does not imitate tagging a resource of type "volume". It imitates: tagging a droplet.');
  expect(sandbox.state()[0]?.tags).toEqual([]);
});
