import { describe, expect, test } from 'vitest';
import { z } from 'zod';
import type { ObservedAnswer } from '../../src/do/observed-answer.ts';
import { createDigitalOceanClient } from '../../src/do/client.ts';
import { clientOf, createDroplet, dropletJson, errorOf, sendJson, startServer, TOKEN } from './support.ts';

const request = { name: 'web-1', region: 'nyc3', size: 's-1vcpu-1gb', image: 'ubuntu-24-04-x64', tags: ['web'] };

describe('a call', () => {
  test('creates a droplet and returns its action', async () => {
    const droplet = dropletJson(7, { status: 'new', networks: { v4: [], v6: [] }, tags: null });
    const links = { actions: [{ id: 7515, rel: 'create', href: 'https://api.digitalocean.com/v2/actions/7515' }] };
    const server = await startServer((_, response) => sendJson(response, 202, { droplet, links }));

    const created = await createDroplet(clientOf(server), request);

    expect(created).toMatchObject({ droplet: { id: 7, status: 'new', tags: [], networks: { v4: [], v6: [] } }, actionId: 7515 });
    expect(server.received).toHaveLength(1);
    expect(server.received[0]).toMatchObject({ method: 'POST', url: { pathname: '/v2/droplets', search: '' } });
    expect(JSON.parse(server.received[0]?.body ?? '')).toEqual(request);
  });

  test.each([[undefined], [null], [{}], [{ actions: [] }], [{ actions: [{ id: 'x', rel: 'create' }] }], ['links']])(
    'keeps the new droplet when its links are %j',
    async (links) => {
      const server = await startServer((_, response) => sendJson(response, 202, { droplet: dropletJson(7), links }));
      expect(await createDroplet(clientOf(server), request)).toMatchObject({ droplet: { id: 7 }, actionId: null });
    },
  );

  test('sends the token as a header and says who it is', async () => {
    const server = await startServer((_, response) => sendJson(response, 200, { droplet: dropletJson(7) }));
    await clientOf(server).getDroplet(7);
    expect(server.received[0]?.headers).toMatchObject({ authorization: `Bearer ${TOKEN}`, 'user-agent': 'arcadia-cloud' });
    expect(server.received[0]?.url.href).not.toContain(TOKEN);
  });

  test('keeps the fields we use, in one shape whatever the age of the answer', async () => {
    const odd = dropletJson(7, { status: 'resizing', networks: {}, tags: undefined, vpc_uuid: undefined, locked: undefined, image: { id: 5, slug: null } });
    const server = await startServer(({ url }, response) =>
      sendJson(response, 200, { droplet: url.pathname.endsWith('/7') ? odd : dropletJson(8) }));
    const client = clientOf(server);

    expect(await client.getDroplet(7)).toMatchObject({
      status: 'resizing', networks: { v4: [], v6: [] }, tags: [], vpc_uuid: null, locked: false, image: { id: 5, slug: null },
    });
    expect(await client.getDroplet(8)).toEqual({
      id: 8, name: 'web-8', status: 'active', created_at: '2020-07-21T18:37:44Z', size_slug: 's-1vcpu-1gb',
      memory: 1024, vcpus: 1, disk: 25, region: { slug: 'nyc3' }, image: { id: 63663980, slug: 'ubuntu-20-04-x64' },
      networks: {
        v4: [{ ip_address: '10.128.192.124', type: 'private' }, { ip_address: '192.241.165.154', type: 'public' }],
        v6: [{ ip_address: '2604:a880:0:1010::18a:a001', type: 'public' }],
      },
      tags: ['web', 'env:prod'], locked: false, vpc_uuid: '760e09ef-dc84-11e8-981e-3cfdfeaae000',
    });
  });

  const oddFields = {
    name: null, status: 5, created_at: 'yesterday', size_slug: null, memory: '1', vcpus: null, disk: -1, region: {}, image: null,
    networks: null, tags: 'web', locked: null, vpc_uuid: {},
  };
  const nothing = { name: null, status: 'unknown', created_at: null, size_slug: null, memory: null, vcpus: null, disk: null, region: null, image: null, networks: null, locked: false, vpc_uuid: null };

  test('reads the id of a droplet whatever its other fields are: in the answer to a create, by itself, and in lists', async () => {
    const odd = dropletJson(7, oddFields);
    const server = await startServer(({ method, url }, response) => {
      const body = method === 'POST' || url.pathname.endsWith('/7') ? { droplet: odd } : { droplets: [dropletJson(6), odd, { id: 8 }] };
      sendJson(response, method === 'POST' ? 202 : 200, body);
    });
    const client = clientOf(server);
    expect((await createDroplet(client, request)).droplet).toEqual({ id: 7, tags: null, ...nothing });
    expect(await client.getDroplet(7)).toEqual({ id: 7, tags: null, ...nothing });
    for (const list of [await client.listDropletsByTag('web'), await client.listDroplets({ name: 'web-1' })]) {
      expect(list.map(({ id }) => id)).toEqual([6, 7, 8]);
      expect(list[2]).toEqual({ id: 8, tags: [], ...nothing });
    }
  });

  test('keeps what can be read of tags and networks', async () => {
    const v4 = [null, { ip_address: '10.0.0.1', type: 'private' }, { type: 'public' }];
    const server = await startServer((_, response) => sendJson(response, 200, { droplet: dropletJson(7, { tags: [null, 'web', 7, ''], networks: { v4, v6: 'none' }, size_slug: 'a\0b' }) }));
    expect(await clientOf(server).getDroplet(7)).toMatchObject({ tags: ['web'], networks: { v4: [v4[1]], v6: [] }, size_slug: 'a\uFFFDb' });
  });

  test('reads an action and the account', async () => {
    const action = { id: 5, status: 'errored', type: 'create', started_at: '2020-11-14T16:29:21Z', completed_at: null, resource_id: 7 };
    const account = { droplet_limit: 25, floating_ip_limit: 5, email: 'a@example.com', uuid: 'b6f', status: 'active' };
    const server = await startServer(({ url }, response) =>
      sendJson(response, 200, url.pathname === '/v2/account' ? { account } : { action }));
    expect(await clientOf(server).getAction(5)).toEqual(action);
    expect(await clientOf(server).getAccount()).toEqual({ id: 'b6f', status: 'active', statusMessage: '', dropletLimit: 25 });
  });

  test('finds a droplet or an action absent after a 404', async () => {
    const server = await startServer((_, response) => sendJson(response, 404, { id: 'not_found', message: 'No.' }));
    const client = clientOf(server);
    expect(await client.getDroplet(7)).toBeNull();
    expect(await client.getAction(7)).toBeNull();
    expect(await client.destroyDroplet(7)).toBe('absent');
  });

  test('does not believe a 404 that is a page, of a list, or of the account', async () => {
    const page = await startServer((_, response) => response.writeHead(404, { 'content-type': 'text/html' }).end('<h1>Lost</h1>'));
    expect(await errorOf(clientOf(page).getDroplet(7))).toMatchObject({ kind: 'later', status: 404 });
    expect(await errorOf(clientOf(page).destroyDroplet(7))).toMatchObject({ kind: 'later', status: 404 });

    const json = await startServer((_, response) => sendJson(response, 404, { id: 'not_found', message: 'No.' }));
    expect(await errorOf(clientOf(json).listDroplets())).toMatchObject({ kind: 'later', status: 404 });
    expect(await errorOf(clientOf(json).getAccount())).toMatchObject({ kind: 'later', status: 404 });
  });

  test('destroys a droplet by its id', async () => {
    const server = await startServer((_, response) => response.writeHead(204).end());
    expect(await clientOf(server).destroyDroplet(7)).toBe('destroyed');
    expect(server.received.map(({ method, url }) => `${method} ${url.pathname}${url.search}`)).toEqual(['DELETE /v2/droplets/7']);
  });

  test('takes no answer about another droplet', async () => {
    const server = await startServer((_, response) => sendJson(response, 200, { droplet: dropletJson(8) }));
    expect(await errorOf(clientOf(server).getDroplet(7))).toMatchObject({ kind: 'later', code: 'invalid_answer' });
  });

  test('works under a path of the API URL', async () => {
    const server = await startServer((_, response) => response.writeHead(204).end());
    await clientOf({ url: `${server.url}/proxy/` }).destroyDroplet(7);
    expect(server.received[0]?.url.pathname).toBe('/proxy/v2/droplets/7');
  });

  test('goes through the seam of all I/O under a name without ids', async () => {
    const names: string[] = [];
    const server = await startServer((_, response) => sendJson(response, 404, {}));
    const client = clientOf(server, {
      io: (kind, name, operation) => {
        names.push(`${kind} ${name}`);
        return operation();
      },
    });
    await client.getDroplet(7);
    await client.destroyDroplet(7);
    await errorOf(createDroplet(client, request));
    await errorOf(client.listDroplets());
    expect(names).toEqual(['http GET /v2/droplets/{id}', 'http DELETE /v2/droplets/{id}', 'http POST /v2/droplets', 'http GET /v2/droplets']);
  });

  test('tells an observer about each answer, and survives its trouble', async () => {
    const answers: ObservedAnswer[] = [];
    const rateLimit = { 'ratelimit-limit': '5000', 'ratelimit-remaining': '4999', 'ratelimit-reset': '1700000000' };
    const server = await startServer((_, response) => sendJson(response, 200, { droplet: dropletJson(7) }, rateLimit));
    const client = clientOf(server, {
      onAnswer: (answer) => {
        answers.push(answer);
        throw new Error('observer');
      },
    });
    expect(await client.getDroplet(7)).toMatchObject({ id: 7 });
    expect(answers).toEqual([{
      method: 'GET', path: '/v2/droplets/{id}', status: 200, outcome: 'done', retryAfterMs: null,
      rateLimit: { limit: 5000, remaining: 4999, resetAt: new Date(1_700_000_000_000) },
      durationMs: expect.any(Number), serverTimeMs: expect.any(Number),
    }]);
  });
});

describe('a call that must not be made', () => {
  test.each([0, -1, 1.5, NaN, Infinity, 2 ** 53])('is refused for the id %d, and nothing is sent', async (id) => {
    const server = await startServer((_, response) => response.writeHead(204).end());
    const client = clientOf(server);
    await expect(client.destroyDroplet(id)).rejects.toThrow(RangeError);
    await expect(client.getDroplet(id)).rejects.toThrow('droplet id must be a positive safe integer');
    await expect(client.getAction(id)).rejects.toThrow(RangeError);
    expect(server.received).toEqual([]);
  });

  test.each(['', 'a b', 'a&name=b', 'a/b', 'é', 'x'.repeat(256)])('is refused for the tag %j, and nothing is sent', async (tag) => {
    const server = await startServer((_, response) => sendJson(response, 200, { droplets: [] }));
    await expect(clientOf(server).listDropletsByTag(tag)).rejects.toThrow(RangeError);
    expect(server.received).toEqual([]);
  });

  test('is refused for an empty name, which would list everything', async () => {
    const server = await startServer((_, response) => sendJson(response, 200, { droplets: [] }));
    await expect(clientOf(server).listDroplets({ name: '' })).rejects.toThrow(RangeError);
    expect(server.received).toEqual([]);
  });

  test.each(['//elsewhere.example/v2', 'https://elsewhere.example/', '/v2/../x', '/v2/sizes?a=b', 'v2'])(
    'is refused for the path %j',
    async (path) => {
      const server = await startServer((_, response) => sendJson(response, 200, { items: [] }));
      await expect(clientOf(server).listPaginated(path, 'items', { itemSchema: z.unknown() })).rejects.toThrow(TypeError);
      expect(server.received).toEqual([]);
    },
  );

  test.each(['ftp://example.com', 'nonsense', 'https://user:secret-pw@example.com', 'https://example.com/?a=b'])(
    'is refused with the API URL %j',
    (apiUrl) => {
      const make = () => createDigitalOceanClient({ apiUrl, token: TOKEN, timeoutMs: 1, budget: null });
      expect(make).toThrow(TypeError);
      expect(make).not.toThrow('secret-pw');
    },
  );

  test.each(['', 'two words', 'line\nbreak', 'é'])('is refused with the token %j', (token) => {
    expect(() => createDigitalOceanClient({ apiUrl: 'https://example.com', token, timeoutMs: 1, budget: null })).toThrow(TypeError);
  });
});
