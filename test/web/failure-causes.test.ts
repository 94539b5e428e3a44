// Failures by cause: above the list, sagas that failed alike are one line, which leads to them and to what can be done about them.
import { afterAll, beforeAll, beforeEach, expect, test } from 'vitest';
import type { Web } from './stage.ts';
import { basic, bearer, droplet, openWebStage, sagaIdOf, secrets } from './stage.ts';
import { patience } from '../support/patience.ts';

let web: Web;
beforeAll(async () => {
  web = await openWebStage({ DASHBOARD_USER: 'ada', DASHBOARD_PASSWORD: secrets.password, API_TOKENS: `reader:read:${secrets.read},${secrets.all}` });
});
afterAll(() => web[Symbol.asyncDispose]());
beforeEach(() => web.db.sql`update arcadia.sagas set status = 'completed', finished_at = clock_timestamp(), wake_at = null`);

type Failure = Readonly<{ name: string; status: 'stuck' | 'compensated'; message: string; code?: string; agoHours?: number }>;

async function failed({ name, status, message, code = 'digitalocean_rejected', agoHours = 0 }: Failure): Promise<string> {
  const id = sagaIdOf(await web.call('POST', '/v1/sagas/provision_droplet', { body: { ...droplet, name }, headers: bearer(secrets.all) }));
  const error = JSON.stringify({ code, message, step: 'create_droplet', retryable: false });
  await web.db.sql`
    update arcadia.sagas set status = ${status}, wake_at = null, error = ${error}::text::jsonb,
      finished_at = case when ${status} = 'compensated' then clock_timestamp() - ${agoHours}::int * interval '1 hour' end
    where id = ${id}`;
  return id;
}

const read = async (path: string, headers = basic()) => (await web.call('GET', path, { headers })).text;
const causesIn = (page: string) => [...page.matchAll(/<li><a href="([^"]+)"><b>(\d+)\+? ×<\/b> ([^<]+)<\/a>(?:<a class="button" href="([^"]+)">([^<]+)<\/a>)?/g)].map(([, list, count, text, bulk, button]) => ({ list: list?.replaceAll('&amp;', '&') ?? '', count: Number(count), text, bulk: bulk?.replaceAll('&amp;', '&') ?? null, button: button ?? null }));

test('failures that differ in ids, times, numbers and names alone are one line; a single one is left to the list', async () => {
  for (const [index, name] of ['web-1', 'web-22', 'db-333'].entries()) {
    await failed({ name, status: 'compensated', message: `DigitalOcean: droplet ${name} (${41_000 + index}) exceeds the limit since 2026-11-0${index + 1}T10:00:00Z. (POST /v2/droplets, 422, request 0f4b8c1e-2d3a-4b5c-8d9e-00000000000${index})` });
  }
  await failed({ name: 'alone', status: 'compensated', message: 'DigitalOcean: no such image' });
  await failed({ name: 'stuck-1', status: 'stuck', message: 'DELETE 422: pending event' });
  await failed({ name: 'stuck-2', status: 'stuck', message: 'DELETE 422: pending event' });
  await failed({ name: 'stuck-3', status: 'stuck', message: 'DELETE 503: try later' });
  expect(causesIn(await read('/sagas'))).toMatchObject([
    { count: 2, text: 'needs attention: DELETE 422: pending event', button: 'Retry 2…' },
    { count: 3, text: expect.stringMatching(/^rolled back: DigitalOcean: droplet … \(…\) exceeds the limit since …/), button: 'Run 3 again…' },
  ]);
});

test('a line leads to its sagas and to no others, and its button to a preview of them', async () => {
  const alike = [await failed({ name: 'a', status: 'stuck', message: 'DELETE 422: pending event' }), await failed({ name: 'b', status: 'stuck', message: 'DELETE 422: pending event' })];
  const other = await failed({ name: 'c', status: 'stuck', message: 'out of room' });
  const [cause] = causesIn(await read('/sagas'));
  for (const address of [cause?.list ?? '', cause?.bulk ?? '']) {
    const page = await read(address);
    for (const id of alike) expect(page).toContain(`/sagas/${id}`);
    expect(page).not.toContain(`/sagas/${other}`);
  }
  expect(await read(cause?.bulk ?? '')).toContain('Retry 2 sagas?');
});

test('what was cancelled, run again, or rolled back more than a day ago is no open failure', async () => {
  await failed({ name: 'kept', status: 'compensated', message: 'no room' });
  await failed({ name: 'cancelled', status: 'compensated', message: 'no room', code: 'cancelled' });
  await failed({ name: 'old', status: 'compensated', message: 'no room', agoHours: 25 });
  const again = await failed({ name: 'again', status: 'compensated', message: 'no room' });
  await web.call('POST', `/v1/sagas/${again}/rerun`, { headers: bearer(secrets.all) });
  expect(causesIn(await read('/sagas'))).toEqual([]);
  await failed({ name: 'kept-too', status: 'compensated', message: 'no room' });
  expect(causesIn(await read('/sagas'))).toMatchObject([{ count: 2 }]);
});

test('who may only read sees the lines, and no buttons; a cause that cannot be one is refused', async () => {
  await failed({ name: 'a', status: 'stuck', message: 'out of room' });
  await failed({ name: 'b', status: 'stuck', message: 'out of room' });
  expect(causesIn(await read('/sagas', bearer(secrets.read)))).toMatchObject([{ count: 2, button: null }]);
  expect((await web.call('GET', '/sagas?cause=x', { headers: basic() })).status).toBe(400);
});

test('ten thousand failures do not make the page slow', async () => {
  await web.db.sql`
    insert into arcadia.sagas (id, saga8, name, status, steps, input, error, wake_at, finished_at, idempotency_key)
    select id, left(id::text, 8), 'provision_droplet', 'compensated', array['create_droplet'], jsonb_build_object('name', 'bulk-' || n),
           jsonb_build_object('code', 'digitalocean_rejected', 'message', format('droplet bulk-%s: no room (%s)', n, 10000 + n), 'step', 'create_droplet', 'retryable', false), null, clock_timestamp(), null
    from (select n, gen_random_uuid() as id from generate_series(1, 10000) as n) as made on conflict do nothing`;
  await read('/sagas');
  const took: number[] = [];
  for (let round = 0; round < 5; round += 1) {
    const begun = performance.now();
    expect(causesIn(await read('/sagas'))).toMatchObject([{ count: 1000, button: 'Run 1000+ again…' }]);
    took.push(performance.now() - begun);
  }
  expect(Math.min(...took)).toBeLessThan(1_000 * patience());
});
