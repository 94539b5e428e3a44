// The calls themselves: what they accept, refuse and answer.
import { expect, test } from 'vitest';
import { aDroplet, call, create, listNames, openSandbox, read } from './support.ts';

test('a create is answered 202 with a new droplet without networks and its create action', async () => {
  const sandbox = await openSandbox();
  const reply = await call(sandbox, 'POST', '/v2/droplets', { body: { ...aDroplet, tags: ['web'] } });
  expect(reply.status).toBe(202);
  expect(reply.body.droplet).toMatchObject({ name: 'web-1', status: 'new', networks: { v4: [], v6: [] }, tags: ['web'] });
  expect(reply.body.droplet.created_at).toMatch(/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$/u);
  const [link] = reply.body.links.actions;
  expect(link).toMatchObject({ rel: 'create', href: `${sandbox.url}/v2/actions/${link?.id}` });
});

test('names makes up to ten droplets at once', async () => {
  const sandbox = await openSandbox();
  const names = Array.from({ length: 10 }, (_, index) => `many-${index}`);
  const reply = await call(sandbox, 'POST', '/v2/droplets', { body: { ...aDroplet, name: undefined, names } });
  expect(reply.status).toBe(202);
  expect(reply.body.droplets.map((droplet) => droplet.name)).toEqual(names);
  expect(reply.body.links.actions).toHaveLength(10);
  const tooMany = await call(sandbox, 'POST', '/v2/droplets', { body: { ...aDroplet, names: [...names, 'eleventh'] } });
  expect(tooMany.status).toBe(422);
});

test('ids rise and leave gaps', async () => {
  const sandbox = await openSandbox({ ratePerMinute: null });
  const ids: number[] = [];
  for (let index = 0; index < 20; index += 1) ids.push((await create(sandbox)).id);
  expect(ids).toEqual(ids.toSorted((a, b) => a - b));
  expect(new Set(ids).size).toBe(20);
  expect((ids.at(-1) ?? 0) - (ids[0] ?? 0)).toBeGreaterThan(20);
});

test('a POST leaves its choice to the platform where it gives no region, or a prefix of one', async () => {
  const sandbox = await openSandbox();
  expect((await create(sandbox, { region: undefined })).region.slug).toMatch(/^\w{3}\d$/u);
  expect((await create(sandbox, { region: 'sfo' })).region.slug).toMatch(/^sfo[23]$/u);
  expect((await create(sandbox, { region: 'nyc', size: 'gpu-h100x1-80gb' })).region.slug).toBe('nyc2');
});

test('a POST may give an image by number or slug, nulls, empty lists and unknown fields', async () => {
  const sandbox = await openSandbox();
  const lenient = { image: 139_080_871, user_data: null, ssh_keys: null, tags: null, volumes: null, private_networking: null, no_such_field: { a: 1 } };
  expect((await create(sandbox, lenient)).image.slug).toBe('debian-12-x64');
  expect((await create(sandbox, { ssh_keys: [] })).status).toBe('new');
  expect((await create(sandbox, { ssh_keys: [1, '3b:16:e4'] })).status).toBe('new');
});

test.each([
  ['a name with a space', { name: 'not good' }, 'Only valid hostname characters are allowed. (a-z, A-Z, 0-9, . and -)'],
  ['a name that ends with a dash', { name: 'bad-' }, 'Only valid hostname characters are allowed. (a-z, A-Z, 0-9, . and -)'],
  ['a name of 256 characters', { name: 'x'.repeat(256) }, 'Only valid hostname characters are allowed. (a-z, A-Z, 0-9, . and -)'],
  ['no name', { name: undefined }, "Name can't be blank"],
  ['no size', { size: undefined }, 'You specified an invalid size for Droplet creation.'],
  ['an unknown size', { size: 's-999vcpu' }, 'You specified an invalid size for Droplet creation.'],
  ['no image', { image: undefined }, 'You specified an invalid image for Droplet creation.'],
  ['an unknown image', { image: 'windows-95' }, 'You specified an invalid image for Droplet creation.'],
  ['an unknown region', { region: 'mars1' }, 'You specified an invalid region for Droplet creation.'],
  ['a closed region', { region: 'sfo1' }, 'Region is not available'],
  ['a size that the region lacks', { size: 'gpu-h100x1-80gb' }, 'Size is not available in this region.'],
  ['a tag with a space', { tags: ['fine', 'not fine'] }, 'invalid characters'],
  ['user data above 64 KiB', { user_data: 'ä'.repeat(32_769) }, 'User data is too long'],
])('a create with %s is answered 422', async (_what, fields, message) => {
  const sandbox = await openSandbox();
  const reply = await call(sandbox, 'POST', '/v2/droplets', { body: { ...aDroplet, ...fields } });
  expect(reply.status).toBe(422);
  expect(reply.body.id).toBe('unprocessable_entity');
  expect(reply.body.message).toContain(message);
  expect(reply.body.request_id).toBe(reply.headers.get('x-request-id'));
  expect(sandbox.state()).toEqual([]);
});

test('user data of exactly 64 KiB is accepted', async () => {
  const sandbox = await openSandbox();
  await create(sandbox, { user_data: 'x'.repeat(65_536) });
  expect(sandbox.state()[0]?.userDataBytes).toBe(65_536);
});

test('a body that is not JSON is answered 400', async () => {
  const sandbox = await openSandbox();
  const response = await fetch(`${sandbox.url}/v2/droplets`, { method: 'POST', headers: { authorization: 'Bearer t' }, body: '{"name":' });
  expect(response.status).toBe(400);
});

test('a create beyond the droplet limit is answered 422 until another droplet is gone', async () => {
  const sandbox = await openSandbox({ dropletLimit: 2 });
  const first = await create(sandbox);
  await create(sandbox);
  const refused = await call(sandbox, 'POST', '/v2/droplets', { body: aDroplet });
  expect(refused.status).toBe(422);
  expect(refused.body.message).toBe('creating this/these droplet(s) will exceed your droplet limit');
  await call(sandbox, 'DELETE', `/v2/droplets/${first.id}`);
  await create(sandbox);
  sandbox.setFaults({ dropletLimit: 3 });
  await create(sandbox);
  expect((await call(sandbox, 'GET', '/v2/account')).body.account.droplet_limit).toBe(3);
});

test('a missing or wrong token is answered 401', async () => {
  const sandbox = await openSandbox({ token: 'right' });
  const wrong = await call(sandbox, 'GET', '/v2/account', { token: 'wrong' });
  expect(wrong.status).toBe(401);
  expect(wrong.body).toMatchObject({ id: 'Unauthorized', message: 'Unable to authenticate you' });
  expect((await fetch(`${sandbox.url}/v2/account`)).status).toBe(401);
  expect((await call(sandbox, 'GET', '/v2/account', { token: 'right' })).status).toBe(200);
});

test('without a token of its own the sandbox accepts any but an empty one', async () => {
  const sandbox = await openSandbox();
  expect((await call(sandbox, 'GET', '/v2/account', { token: 'whatever' })).status).toBe(200);
  expect((await call(sandbox, 'GET', '/v2/account', { token: '' })).status).toBe(401);
});

test('a list comes in pages with absolute links that keep the query', async () => {
  const sandbox = await openSandbox();
  for (let index = 1; index <= 5; index += 1) await create(sandbox, { name: `page-${index}`, tags: ['env:a b'.replace(' ', '-')] });
  const path = '/v2/droplets?tag_name=env:a-b&per_page=2';
  const first = await call(sandbox, 'GET', path);
  expect(first.body.meta.total).toBe(5);
  expect(Object.keys(first.body.links.pages ?? {}).toSorted()).toEqual(['last', 'next']);
  const names = first.body.droplets.map((droplet) => droplet.name);
  let next = first.body.links.pages?.next;
  while (next !== undefined) {
    expect(next.startsWith(`${sandbox.url}/v2/droplets?`)).toBe(true);
    const page = await call(sandbox, 'GET', next.slice(sandbox.url.length));
    names.push(...page.body.droplets.map((droplet) => droplet.name));
    next = page.body.links.pages?.next;
  }
  expect(names).toEqual(['page-1', 'page-2', 'page-3', 'page-4', 'page-5']);
  const middle = await call(sandbox, 'GET', `${path}&page=2`);
  expect(Object.keys(middle.body.links.pages ?? {}).toSorted()).toEqual(['first', 'last', 'next', 'prev']);
  const beyond = await call(sandbox, 'GET', `${path}&page=9`);
  expect(beyond.body).toMatchObject({ droplets: [], meta: { total: 5 } });
});

test('a list shows 20 droplets a page unless told, and never more than 200', async () => {
  const sandbox = await openSandbox();
  for (let index = 0; index < 201; index += 1) sandbox.addForeignDroplet({ name: `d-${index}` });
  expect(await listNames(sandbox)).toHaveLength(20);
  expect(await listNames(sandbox, '?per_page=200')).toHaveLength(200);
  expect(await listNames(sandbox, '?per_page=5000')).toHaveLength(200);
});

test('links are empty when everything fits one page', async () => {
  const sandbox = await openSandbox();
  expect((await call(sandbox, 'GET', '/v2/droplets')).body.links).toEqual({});
});

test('a list by name is exact and knows no case; one by tag is exact', async () => {
  const sandbox = await openSandbox();
  await create(sandbox, { name: 'Web-1', tags: ['a'] });
  await create(sandbox, { name: 'web-10', tags: ['ab'] });
  expect(await listNames(sandbox, '?name=wEB-1')).toEqual(['Web-1']);
  expect(await listNames(sandbox, '?tag_name=a')).toEqual(['Web-1']);
  expect(await listNames(sandbox, '?tag_name=never-used')).toEqual([]);
});

test('tag_name cannot be combined with name or type', async () => {
  const sandbox = await openSandbox();
  expect((await call(sandbox, 'GET', '/v2/droplets?tag_name=a&name=b')).status).toBe(422);
  expect((await call(sandbox, 'GET', '/v2/droplets?tag_name=a&type=gpus')).status).toBe(422);
});

test('GPU droplets are only in lists of type gpus and in lists by tag', async () => {
  const sandbox = await openSandbox();
  await create(sandbox, { name: 'gpu', size: 'gpu-h100x1-80gb', region: 'tor1', tags: ['t'] });
  await create(sandbox, { name: 'plain', tags: ['t'] });
  expect(await listNames(sandbox)).toEqual(['plain']);
  expect(await listNames(sandbox, '?type=droplets')).toEqual(['plain']);
  expect(await listNames(sandbox, '?name=gpu')).toEqual([]);
  expect(await listNames(sandbox, '?type=gpus')).toEqual(['gpu']);
  expect(await listNames(sandbox, '?tag_name=t')).toEqual(['gpu', 'plain']);
  sandbox.setFaults({ hideGpuFromTagLists: true });
  expect(await listNames(sandbox, '?tag_name=t')).toEqual(['plain']);
});

test('a delete is answered 204 once, then 404; the droplet is in no list any more', async () => {
  const sandbox = await openSandbox();
  const { id } = await create(sandbox, { tags: ['t'] });
  const gone = await call(sandbox, 'DELETE', `/v2/droplets/${id}`);
  expect([gone.status, gone.text]).toEqual([204, '']);
  expect((await call(sandbox, 'DELETE', `/v2/droplets/${id}`)).status).toBe(404);
  expect((await read(sandbox, id)).body).toMatchObject({ id: 'not_found' });
  expect(await listNames(sandbox)).toEqual([]);
  expect(await listNames(sandbox, '?tag_name=t')).toEqual([]);
});

test('a delete by tag destroys all droplets that carry it and no others', async () => {
  const sandbox = await openSandbox();
  await create(sandbox, { name: 'a', tags: ['doomed'] });
  await create(sandbox, { name: 'b', tags: ['doomed', 'x'] });
  await create(sandbox, { name: 'c', tags: ['x'] });
  expect((await call(sandbox, 'DELETE', '/v2/droplets?tag_name=doomed')).status).toBe(204);
  expect(await listNames(sandbox)).toEqual(['c']);
  expect((await call(sandbox, 'DELETE', '/v2/droplets')).status).toBe(422);
});

test('paths that are no droplet, action or route are answered 404', async () => {
  const sandbox = await openSandbox();
  for (const path of ['/v2/droplets/0', '/v2/droplets/abc', '/v2/actions/1', '/elsewhere', '/v2/droplets/1/actions', '/v2/images/nope', '/v2/tags/nope']) {
    expect([path, (await call(sandbox, 'GET', path)).body.id]).toEqual([path, 'not_found']);
  }
});

test('account, regions, sizes and images can be read', async () => {
  const sandbox = await openSandbox({ dropletLimit: 10 });
  expect((await call(sandbox, 'GET', '/v2/account')).body.account.droplet_limit).toBe(10);
  const sizes = (await call(sandbox, 'GET', '/v2/sizes?per_page=200')).body.sizes.map((size) => size.slug);
  expect(sizes).toEqual(expect.arrayContaining(['s-1vcpu-1gb', 'gpu-h100x1-80gb']));
  const regions = (await call(sandbox, 'GET', '/v2/regions')).body.regions;
  expect(regions.find((region) => region.slug === 'nyc3')?.sizes).toContain('s-1vcpu-1gb');
  const images = (await call(sandbox, 'GET', '/v2/images?type=distribution')).body.images.map((image) => image.slug);
  expect(images).toEqual(expect.arrayContaining(['debian-12-x64', 'ubuntu-24-04-x64']));
  expect((await call(sandbox, 'GET', '/v2/images?private=true')).body.images.map((image) => image.slug)).toEqual([null]);
  const { image } = (await call(sandbox, 'GET', '/v2/images/debian-12-x64')).body;
  expect((await call(sandbox, 'GET', `/v2/images/${image.id}`)).body.image).toEqual(image);
});

test('a tag is known from its first use, keeps that spelling and counts its droplets', async () => {
  const sandbox = await openSandbox();
  await create(sandbox, { tags: ['PROD'] });
  expect((await create(sandbox, { tags: ['prod', 'Prod'] })).tags).toEqual(['PROD']);
  expect((await call(sandbox, 'GET', '/v2/tags/PROD')).body.tag.resources.droplets.count).toBe(2);
  expect((await call(sandbox, 'GET', '/v2/tags/prod')).status).toBe(404);
  expect((await call(sandbox, 'GET', '/v2/droplets?tag_name=prod')).body.droplets).toHaveLength(2);
  expect((await call(sandbox, 'POST', '/v2/tags', { body: { name: 'fresh' } })).status).toBe(201);
  expect((await call(sandbox, 'POST', '/v2/tags', { body: { name: 'no good' } })).status).toBe(400);
  expect((await call(sandbox, 'GET', '/v2/tags')).body.tags.map((tag) => tag.name)).toEqual(['PROD', 'fresh']);
  expect((await call(sandbox, 'DELETE', '/v2/tags/PROD')).status).toBe(204);
  expect(sandbox.state().map((line) => line.tags)).toEqual([[], []]);
});

test('slugs are taken in any case, and shown in the sandbox\'s own', async () => {
  const sandbox = await openSandbox();
  const droplet = await create(sandbox, { size: 'S-1VCPU-1GB', region: 'SYD1', image: 'Debian-12-x64' });
  expect(droplet).toMatchObject({ size_slug: 's-1vcpu-1gb', region: { slug: 'syd1' }, image: { slug: 'debian-12-x64' } });
  expect((await create(sandbox, { region: 'NYC' })).region.slug).toMatch(/^nyc/);
});

test('every answer has a request id of its own, which errors repeat', async () => {
  const sandbox = await openSandbox();
  const first = await call(sandbox, 'GET', '/v2/account');
  const second = await call(sandbox, 'GET', '/v2/droplets/1');
  expect(first.headers.get('x-request-id')).not.toBe(second.headers.get('x-request-id'));
  expect(second.body.request_id).toBe(second.headers.get('x-request-id'));
});
