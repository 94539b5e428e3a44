// Independent clients, which know nothing of the sandbox, work with it unchanged.
import { request } from 'node:http';
import { createRequire } from 'node:module';
import { pathToFileURL } from 'node:url';
import { createApiClient } from 'dots-wrapper';
import { expect, test } from 'vitest';
import { aDroplet, openSandbox } from './support.ts';

test('dots-wrapper creates, reads, lists by tag, pages and deletes', async () => {
  const sandbox = await openSandbox({ activateAfterMs: 0 });
  const client = createApiClient({ endpoint: `${sandbox.url}/v2`, token: 'token' });
  const created = await client.droplet.createDroplet({ ...aDroplet, tags: ['web'] });
  const { id } = created.data.droplet;
  expect(created.status).toBe(202);
  const { droplet } = (await client.droplet.getDroplet({ droplet_id: id })).data;
  expect([droplet.name, droplet.status, droplet.networks.v4.length]).toEqual(['web-1', 'active', 2]);
  const listed = await client.droplet.listDroplets({ tag_name: 'web', per_page: 200, page: 1 });
  expect(listed.data.droplets.map((one) => one.id)).toEqual([id]);
  expect((await client.account.getAccount()).data.account.status).toBe('active');
  expect((await client.size.listSizes({ per_page: 200 })).data.sizes.length).toBeGreaterThan(5);
  expect((await client.droplet.deleteDroplet({ droplet_id: id })).status).toBe(204);
  await expect(client.droplet.getDroplet({ droplet_id: id })).rejects.toMatchObject({ response: { status: 404 } });
});

// The official client's own dependencies, as a plain install resolves them, cannot parse a droplet of the real API
// either: test/third-party/package.json overrides the version of their runtime. npm may put that runtime beside the
// client or above it, so it is looked up from where the client is.
const requireFromClient = createRequire(createRequire(new URL('../third-party/package.json', import.meta.url)).resolve('@digitalocean/dots/package.json'));

test('the official TypeScript client creates, reads, lists by tag and deletes', async () => {
  const sandbox = await openSandbox({ activateAfterMs: 0 });
  const { client } = await officialClient(sandbox.url);
  const created = await client.v2.droplets.post({ ...aDroplet, tags: ['web'], ipv6: true });
  const id = created.droplet.id;
  const { droplet } = await client.v2.droplets.byDroplet_id(id).get();
  expect([droplet.name, droplet.status, droplet.networks.v4.length, droplet.networks.v6.length]).toEqual(['web-1', 'active', 2, 1]);
  expect((await client.v2.droplets.get({ queryParameters: { tagName: 'web', perPage: 200 } })).droplets.map((one) => one.id)).toEqual([id]);
  await client.v2.droplets.byDroplet_id(id).delete();
  await expect(client.v2.droplets.byDroplet_id(id).get()).rejects.toMatchObject({ responseStatusCode: 404 });
  expect(sandbox.state().map((line) => line.alive)).toEqual([false]);
});

test('clients that end paths with a slash, send nulls and no content type are served', async () => {
  const sandbox = await openSandbox();
  const body = JSON.stringify({ ...aDroplet, user_data: null, ssh_keys: null, private_networking: null, volumes: null });
  const created = await rawRequest(`${sandbox.url}/v2/droplets/`, 'POST', { authorization: 'bearer token' }, body);
  expect(created.status).toBe(202);
  const [line] = sandbox.state();
  expect((await rawRequest(`${sandbox.url}/v2/droplets/${line?.id}/`, 'GET', { authorization: 'Bearer token' })).status).toBe(200);
  expect((await rawRequest(`${sandbox.url}/v2/droplets/?tag_name=x`, 'GET', { authorization: 'Bearer token' })).status).toBe(200);
  const form = { authorization: 'Bearer token', 'content-type': 'application/x-www-form-urlencoded' };
  expect((await rawRequest(`${sandbox.url}/v2/droplets/${line?.id}/`, 'DELETE', form)).status).toBe(204);
});

test('a DELETE that claims a JSON body but has none is served', async () => {
  const sandbox = await openSandbox();
  const { id } = sandbox.addForeignDroplet({ name: 'x' });
  const headers = { authorization: 'Bearer token', 'content-type': 'application/json' };
  expect((await rawRequest(`${sandbox.url}/v2/droplets/${id}`, 'DELETE', headers)).status).toBe(204);
});

type OfficialDroplet = { id: number; name: string; status: string; networks: { v4: unknown[]; v6: unknown[] } };
type OfficialClient = {
  v2: {
    droplets: {
      post(body: object): Promise<{ droplet: OfficialDroplet }>;
      get(options: object): Promise<{ droplets: OfficialDroplet[] }>;
      byDroplet_id(id: number): { get(): Promise<{ droplet: OfficialDroplet }>; delete(): Promise<void> };
    };
  };
};

// The package has TypeScript sources in place of declarations, which our compiler options refuse: so it is loaded
// under names that the compiler does not follow, and described here as far as the test needs it.
async function officialClient(url: string): Promise<{ client: OfficialClient }> {
  const clientUrl = pathToFileURL(requireFromClient.resolve('@digitalocean/dots')).href;
  const fetchUrl = pathToFileURL(requireFromClient.resolve('@microsoft/kiota-http-fetchlibrary')).href;
  const dots: {
    createDigitalOceanClient(adapter: object): OfficialClient;
    DigitalOceanApiKeyAuthenticationProvider: new (token: string) => object;
  } = await import(clientUrl);
  const kiota: { FetchRequestAdapter: new (authentication: object) => { baseUrl: string } } = await import(fetchUrl);
  const adapter = new kiota.FetchRequestAdapter(new dots.DigitalOceanApiKeyAuthenticationProvider('token'));
  adapter.baseUrl = url;
  // In an object: the client is a proxy that throws when a promise asks it for `then`.
  return { client: dots.createDigitalOceanClient(adapter) };
}

async function rawRequest(url: string, method: string, headers: Record<string, string>, body = ''): Promise<{ status: number | undefined; text: string }> {
  return await new Promise((resolve, reject) => {
    const outgoing = request(url, { method, headers }, (response) => {
      let text = '';
      response.setEncoding('utf8');
      response.on('data', (chunk: string) => {
        text += chunk;
      });
      response.on('end', () => resolve({ status: response.statusCode, text }));
    });
    outgoing.on('error', reject);
    outgoing.end(body);
  });
}
