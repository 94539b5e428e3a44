// The pages about droplets over HTTP: what they show, what their filters find, and what their forms do and refuse.

import { randomUUID } from 'node:crypto';
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { placeDroplet, placeSync } from './droplets-stage.ts';
import type { GivenDroplet } from './droplets-stage.ts';
import type { Web } from './stage.ts';
import { basic, bearer, credentials, openWebStage, secrets } from './stage.ts';
import { emptyTables } from '../support/empty-tables.ts';

const people = { API_TOKENS: `reader:read:${secrets.read},starter:read+start:${secrets.start},operator:read+operate:${secrets.operate},destroyer:read+destroy:destroy-secret-11aa,${secrets.all}`, API_TOKENS_START_MAY_DESTROY: 'false' };
const asDestroyer = bearer('destroy-secret-11aa');

let web: Web;
beforeAll(async () => {
  web = await openWebStage({ ...credentials, ...people });
});
afterAll(() => web[Symbol.asyncDispose]());
beforeEach(async () => {
  await emptyTables(web.db.sql, ['arcadia.sagas', 'arcadia.saga_events', 'arcadia.cloud_resources', 'arcadia.inventory_syncs', 'arcadia.saga_tombstones', 'arcadia.spent_tags', 'arcadia.audit', 'arcadia.provision_leases']);
});

const place = (given: GivenDroplet = {}) => placeDroplet(web.db, given);
const get = (path: string, headers: Record<string, string> = basic()) => web.call('GET', path, { headers: { accept: 'text/html', ...headers } });
const page = async (path: string, headers?: Record<string, string>) => {
  const { status, text } = await get(path, headers);
  expect([path, status]).toEqual([path, 200]);
  return text;
};
const post = (path: string, fields: Record<string, string | string[]>, headers: Record<string, string> = basic()) => {
  const body = new URLSearchParams(Object.entries(fields).flatMap(([name, value]) => [value].flat().map((one): [string, string] => [name, one]))).toString();
  return web.call('POST', path, { body, headers: { 'content-type': 'application/x-www-form-urlencoded', accept: 'text/html', ...headers } });
};
const namesOn = (text: string) => [...text.matchAll(/data-walk>([^<]*)</g)].map(([, name]) => name);
const names = async (query: string) => namesOn(await page(`/droplets${query}`));
const auditOf = async (action: string) => web.db.sql<{ actor: string }[]>`select actor, saga_id, detail from arcadia.audit where action = ${action} order by id`;
/** The page without its tags. */
const textOf = (text: string) => text.replaceAll(/<[^>]*>/g, ' ').replaceAll(/\s+/g, ' ').replaceAll(/ (?=[.:])/g, '');

describe('the list', () => {
  test('of no droplets says what to do, and that nothing was synced', async () => {
    const text = textOf(await page('/droplets'));
    expect(text).toContain('The inventory was never synced.');
    expect(text).toContain('No droplets are on record yet. Provision one with arcadia provision');
    await placeSync(web.db, { agoS: 5 });
    expect(textOf(await page('/droplets'))).toMatch(/Synced \d+ s ago\..*The account has no droplets\./);
  });

  test('shows name, address, region, size, price, age, lease, state and saga of each', async () => {
    await placeSync(web.db, { agoS: 5 });
    const { dropletId, sagaId } = await place({ name: 'shop-1', address: '203.0.113.7', leaseInS: 7_190, isProtected: true, ageS: 90_000, drift: { field: 'size_slug', desired: 's-1vcpu-1gb', actual: 's-2vcpu-2gb' } });
    const text = await page('/droplets');
    expect(textOf(text)).toMatch(new RegExp(`shop-1 ${dropletId} 203\\.0\\.113\\.7 \\+1 fra1 s-1vcpu-1gb \\$0\\.00893 1 d 1 h ends in (1 h 59|2 h 0) min active drifted: size_slug protected ${sagaId.slice(0, 8)} http:ada`));
    expect(text).toContain(`<a href="/sagas/${sagaId}">`);
    expect(text).toContain(`<a href="/droplets/${dropletId}" data-walk>`);
    expect(text).toMatch(/<a href="\/droplets" aria-current="page">Droplets<\/a>/);
  });

  test('finds by each filter, and by each state', async () => {
    await place({ name: 'a-managed', region: 'fra1', size: 's-1vcpu-1gb', tags: ['Shop'], requestedBy: 'http:ada', leaseInS: 60, address: '192.0.2.10' });
    await place({ name: 'b-drifted', region: 'nyc3', requestedBy: 'cli:bob', drift: { field: 'region', desired: 'nyc1', actual: 'nyc3' }, address: '192.0.2.11' });
    await place({ name: 'c-surplus', requestedBy: null, orphan: 'surplus', size: 's-2vcpu-2gb', address: '192.0.2.12' });
    await place({ name: 'd-kept', isProtected: true, tags: ['shop', 'arcadia-wave-1'], leaseInS: 60, address: '192.0.2.13' });
    const { dropletId } = await place({ name: 'e-foreign', requestedBy: null, address: '198.51.100.1' });
    await place({ name: 'f-gone', goneAgoS: 60 });
    await place({ name: 'g-missed', goneAgoS: 60, drift: { field: 'existence', desired: 'present', actual: 'absent' } });
    expect(await names('')).toEqual(['a-managed', 'b-drifted', 'c-surplus', 'd-kept', 'e-foreign', 'g-missed']);
    expect(await names('?state=managed')).toEqual(['a-managed', 'b-drifted', 'd-kept']);
    expect(await names('?state=drifted')).toEqual(['b-drifted', 'g-missed']);
    expect(await names('?state=orphan')).toEqual(['c-surplus']);
    expect(await names('?state=unleased')).toEqual(['b-drifted']);
    expect(await names('?state=protected')).toEqual(['d-kept']);
    expect(await names('?state=foreign')).toEqual(['e-foreign']);
    expect(await names('?state=gone')).toEqual(['f-gone', 'g-missed']);
    expect(await names('?region=FRA1&state=managed')).toEqual(['a-managed', 'd-kept']);
    expect(await names('?size=s-2vcpu-2gb')).toEqual(['c-surplus']);
    expect(await names('?tag=SHOP')).toEqual(['a-managed', 'd-kept']);
    expect(await names('?requester=cli%3Abob')).toEqual(['b-drifted']);
    expect(await names('?q=KEP')).toEqual(['d-kept']);
    expect(await names(`?q=${dropletId}`)).toEqual(['e-foreign']);
    expect(await names('?q=198.51.100.')).toEqual(['e-foreign']);
    expect(await names('?q=nothing-has-it')).toEqual([]);
    expect(textOf(await page('/droplets?q=100%25_'))).toContain('No droplet matches.');
    const chips = textOf(await page('/droplets')).match(/6 all.*?gone/)?.[0];
    expect(chips).toBe('6 all 3 managed 2 drifted 1 orphan 1 without a lease 1 protected 1 not managed gone');
  });

  test('sums what the filter finds, and never counts a price that is not known', async () => {
    await place({ name: 'a', region: 'fra1', usdPerHour: 0.5, tags: ['shop', 'managed-by-arcadia-cloud', 'arcadia-saga-1234'], requestedBy: 'http:ada' });
    await place({ name: 'b', region: 'fra1', usdPerHour: 0.75, tags: ['shop'], requestedBy: 'cli:bob' });
    await place({ name: 'c', region: 'nyc3', usdPerHour: null, requestedBy: 'cli:bob' });
    await place({ name: 'd', goneAgoS: 5, usdPerHour: 100, drift: { field: 'existence', desired: 'present', actual: 'absent' } });
    const text = textOf(await page('/droplets'));
    expect(text).toContain('3 droplets, $1.25 an hour + 1 with a price that is not known');
    expect(text).toContain('fra1 2 $1.25 nyc3 1 not known');
    expect(text).toContain('Tag Droplets $/h shop 2 $1.25 ');
    expect(text).not.toMatch(/(arcadia-saga-1234|managed-by-arcadia-cloud) 1 /);
    expect(text).toContain('cli:bob 2 $0.75000 + 1 not known http:ada 1 $0.50000');
    expect(textOf(await page('/droplets?region=nyc3'))).toContain('1 droplet, price not known');
    // The price of the size before a resize is none.
    await web.db.sql`update arcadia.cloud_resources set size_slug = 's-8vcpu-16gb' where name = 'a'`;
    expect(textOf(await page('/droplets'))).toContain('3 droplets, $0.75000 an hour + 2 with a price');
  });

  test('sorts by what each column shows, both ways, with what is not known last', async () => {
    await place({ name: 'a', region: 'nyc3', size: 's-2', usdPerHour: 2, ageS: 10, leaseInS: 500, address: '9.0.0.1' });
    await place({ name: 'b', region: 'ams3', size: 's-1', usdPerHour: null, ageS: 30, leaseInS: null, address: '10.0.0.1' });
    await place({ name: 'c', region: 'fra1', size: 's-3', usdPerHour: 1, ageS: 20, leaseInS: 100, address: '10.0.0.0' });
    const orders = { name: 'abc', address: 'acb', region: 'bca', size: 'bac', price: 'cab', age: 'acb', lease: 'cab' };
    for (const [sort, expected] of Object.entries(orders)) expect([sort, (await names(`?sort=${sort}`)).join('')]).toEqual([sort, expected]);
    expect((await names('?sort=-price')).join('')).toBe('acb');
    expect((await names('?sort=-name')).join('')).toBe('cba');
    expect(await page('/droplets?sort=-age')).toMatch(/<th scope="col" aria-sort="descending"><a href="\/droplets\?sort=age">Age/);
    expect((await get('/droplets?sort=drop')).status).toBe(400);
  });

  test('goes through 500 droplets by pages, each once', async () => {
    await web.db.sql`
      insert into arcadia.cloud_resources (provider, provider_id, kind, name, region, status, size_slug)
      select 'digitalocean', 100000 + n, 'droplet', 'many-' || lpad(n::text, 3, '0'), 'fra1', 'active', 's-1vcpu-1gb' from generate_series(1, 500) as n`;
    const found = (await Promise.all(Array.from({ length: 10 }, (_, index) => names(`?page=${index + 1}`)))).flat();
    expect([found.length, new Set(found).size]).toEqual([500, 500]);
    expect(textOf(await page('/droplets?page=3'))).toContain('First page Previous page Page 3 of 10 Next page Last page');
    expect(textOf(await page('/droplets?page=99'))).toContain('The list ends before this page.');
    expect(textOf(await page('/droplets'))).toContain('500 droplets, price not known');
  });

  test('says that it is out of date, and why, once syncs fail', async () => {
    await place();
    await placeSync(web.db, { agoS: 7_200 });
    await placeSync(web.db, { agoS: 60, outcome: 'failed', error: 'DigitalOcean answered <500>' });
    const text = await page('/droplets');
    expect(text).toContain('<div id="live" class="outdated"');
    expect(textOf(text)).toMatch(/Out of date: the inventory was last synced 2 h \d+ min ago\. .*The last sync failed 1 min \d+ s ago: DigitalOcean answered &lt;500&gt;/);
    await placeSync(web.db, { agoS: 1 });
    await place({ name: 'behind', seenAgoS: 86_400 });
    expect(textOf(await page('/droplets?q=behind'))).toContain('not seen for 1 d 0 h');
  });

  test('shows names, tags and reasons of others as text', async () => {
    const evil = '<script>alert(1)</script>"onmouseover=x';
    const { dropletId } = await place({ name: evil, tags: [evil], region: evil, requestedBy: evil, orphan: 'surplus', orphanReason: evil, drift: { field: 'image', desired: evil, actual: evil } });
    await place({ name: `${'long-'.repeat(50)}\u202etxt.exe` });
    for (const path of ['/droplets', `/droplets?q=${encodeURIComponent(evil)}&tag=${encodeURIComponent(evil)}&requester=${encodeURIComponent(evil)}`, `/droplets/${dropletId}`, '/droplets/orphans']) {
      const text = await page(path);
      expect(text).not.toContain('<script>alert');
      expect(text).not.toContain('"onmouseover');
      expect(text).not.toContain('\u202e');
    }
  });
});

describe("a droplet's page", () => {
  test('shows its facts, its drift with its history, its sagas and who did what, and links to it at DigitalOcean', async () => {
    await placeSync(web.db, { agoS: 5 });
    const { dropletId, sagaId } = await place({ name: 'shop-1', leaseInS: 7_000, tags: ['shop'], drift: { field: 'size_slug', desired: 's-1vcpu-1gb', actual: 's-2vcpu-2gb' } });
    await web.db.sql`
      insert into arcadia.cloud_drift (resource_id, field, desired, actual, first_seen_at, resolved_at, resolution)
      select id, 'power_state', 'active', 'off', now() - interval '2 hours', now() - interval '1 hour', 'put_back' from arcadia.cloud_resources where provider_id = ${String(dropletId)}`;
    await web.db.sql`insert into arcadia.audit (actor, action, saga_id, detail) values ('http:eve', 'lease_renewed', ${sagaId}, '{"reason": "a demo"}')`;
    const text = await page(`/droplets/${dropletId}`);
    expect(text).toContain(`href="https://cloud.digitalocean.com/droplets/${dropletId}"`);
    const words = textOf(text);
    for (const part of ['shop-1 active drifted: size_slug', 'Synced', '192.0.2.1 10.0.0.1', '1 vCPU, 1024 MiB, 25 GiB', '$0.00893 an hour', 'Requested by http:ada', 'Last seen', 'ends in 1 h 56 min', 'size_slug s-1vcpu-1gb s-2vcpu-2gb', 'put back 1 h 0 min ago', `provision_droplet ${sagaId.slice(0, 8)} Droplet ${dropletId} is ready.`, 'http:eve lease_renewed', 'a demo', `arcadia renew ${dropletId} --ttl 4h`, `arcadia destroy ${dropletId}`]) expect(words).toContain(part);
  });

  test('never says that all is well of what was not seen lately', async () => {
    await placeSync(web.db, { agoS: 5 });
    const [behind, missed, gone] = [await place({ seenAgoS: 90_000 }), await place({ absences: 1, seenAgoS: 1_000 }), await place({ goneAgoS: 100, drift: { field: 'existence', desired: 'present', actual: 'absent' } })];
    expect(textOf(await page(`/droplets/${behind.dropletId}`))).toContain('Out of date: this droplet was last seen 1 d 1 h ago');
    expect(textOf(await page(`/droplets/${missed.dropletId}`))).toContain('The last complete sync did not show this droplet.');
    expect(textOf(await page(`/droplets/${gone.dropletId}`))).toMatch(/This droplet is gone\. The inventory recorded that 1 min \d+ s ago\. arcadia-cloud did not destroy it, and it is still wanted\./);
  });

  test('comes from its sagas while it is not in the inventory, and is 404 where nothing is known', async () => {
    const sagaId = randomUUID();
    await web.db.sql`
      insert into arcadia.sagas (id, saga8, name, status, steps, cursor, input, context, requested_by, wake_at)
      values (${sagaId}, ${sagaId.slice(0, 8)}, 'provision_droplet', 'running', '{create_droplet,wait_droplet_active,register_droplet}', 1, '{"name":"early-1"}', '{"droplet_id": 4711}', 'cli:bob', now())`;
    const text = textOf(await page('/droplets/4711'));
    expect(text).toMatch(/early-1 .*This droplet is not in the inventory\. Its saga registers it once it is ready\..*Requested by cli:bob/);
    expect(text).not.toContain('Destroy…');
    expect((await get('/droplets/4712')).status).toBe(404);
    const byName = await get('/droplets/web-1');
    expect([byName.status, byName.headers.get('location')]).toEqual([302, '/droplets?q=web-1']);
  });

  test('is linked from the list of sagas and from the page of each of its sagas', async () => {
    const { dropletId, sagaId } = await place();
    expect(await page('/sagas')).toContain(`<a href="/droplets/${dropletId}"><code>${dropletId}</code></a>`);
    expect(await page(`/sagas/${sagaId}`)).toContain(`<a href="/droplets/${dropletId}"><code>${dropletId}</code></a>`);
  });
});

describe('an action', () => {
  test('destroy starts one saga for each form, after the id was typed, for those with the scope destroy', async () => {
    const { dropletId } = await place({ name: 'shop-1' });
    const shown = await page(`/droplets/${dropletId}`, asDestroyer);
    const form = /name="form" value="([^"]+)"/.exec(shown)?.[1] ?? '';
    expect(shown).toContain(`action="/droplets/${dropletId}/destroy"`);
    for (const headers of [bearer(secrets.read), bearer(secrets.start), bearer(secrets.operate)]) {
      expect(await page(`/droplets/${dropletId}`, headers)).not.toContain('/destroy"');
      expect((await post(`/droplets/${dropletId}/destroy`, { confirm: String(dropletId) }, headers)).status).toBe(403);
    }
    const wrong = await post(`/droplets/${dropletId}/destroy`, { confirm: 'shop-1', form }, asDestroyer);
    expect([wrong.status, textOf(wrong.text)]).toEqual([400, expect.stringContaining('Nothing was destroyed')]);
    const answers = [await post(`/droplets/${dropletId}/destroy`, { confirm: String(dropletId), form, reason: 'too <b>old</b>' }, asDestroyer), await post(`/droplets/${dropletId}/destroy`, { confirm: String(dropletId), form, reason: 'too <b>old</b>' }, asDestroyer)];
    const rows = await web.db.sql<{ id: string }[]>`select id, input, requested_by, started_by from arcadia.sagas where name = 'destroy_droplet'`;
    expect(rows).toMatchObject([{ input: { droplet_id: dropletId, reason: 'too <b>old</b>' }, requestedBy: 'http:destroyer', startedBy: 'http:destroyer' }]);
    expect(answers.map(({ status, headers }) => [status, headers.get('location')])).toEqual(Array.from({ length: 2 }, () => [303, `/sagas/${rows[0]?.id}?told=started`]));
    expect(await auditOf('saga_created')).toMatchObject([{ actor: 'http:destroyer' }]);
    // The reason is in the input of its saga only.
    for (const path of [`/droplets/${dropletId}`, `/sagas/${rows[0]?.id}`, '/audit', `/audit?saga=${rows[0]?.id}`]) expect([path, await page(path)]).toEqual([path, expect.stringMatching(/saga_created.*<td(?: class="why")?>too &lt;b&gt;old&lt;\/b&gt;/)]);
    const after = textOf(await page(`/droplets/${dropletId}`));
    expect(after).toContain('It is being destroyed.');
    expect(after).not.toContain('Destroy…');
  });

  test('destroy is refused for a protected droplet, whatever the form says', async () => {
    const { dropletId } = await place({ isProtected: true });
    expect(textOf(await page(`/droplets/${dropletId}`))).toContain('To destroy it, lift its protection first.');
    const refused = await post(`/droplets/${dropletId}/destroy`, { confirm: String(dropletId) });
    expect([refused.status, textOf(refused.text)]).toEqual([409, expect.stringContaining('is protected')]);
  });

  test('renew extends the lease, for those with the scope start', async () => {
    const { dropletId } = await place({ leaseInS: 60 });
    expect((await post(`/droplets/${dropletId}/lease`, { ttl_s: '14400' }, bearer(secrets.operate))).status).toBe(403);
    expect((await post(`/droplets/${dropletId}/lease`, { ttl_s: '0' }, bearer(secrets.start))).status).toBe(400);
    const done = await post(`/droplets/${dropletId}/lease`, { ttl_s: '14400' }, bearer(secrets.start));
    expect([done.status, done.headers.get('location')]).toEqual([303, `/droplets/${dropletId}?told=renewed`]);
    expect(textOf(await page(`/droplets/${dropletId}?told=renewed`))).toMatch(/The lease is renewed\. .*ends in (3 h 59|4 h 0) min/);
    expect(await auditOf('lease_renewed')).toMatchObject([{ actor: 'http:starter' }]);
    const { dropletId: without } = await place();
    expect(textOf(await page(`/droplets/${without}`))).not.toContain('Renew lease…');
    expect((await post(`/droplets/${without}/lease`, { ttl_s: '60' })).status).toBe(409);
  });

  test('protect and lift protection take the scope operate', async () => {
    const { dropletId } = await place();
    expect((await post(`/droplets/${dropletId}/protection`, { protected: 'true' }, bearer(secrets.start))).status).toBe(403);
    expect((await post(`/droplets/${dropletId}/protection`, { protected: 'true' }, bearer(secrets.operate))).headers.get('location')).toBe(`/droplets/${dropletId}?told=protected`);
    expect((await post(`/droplets/${dropletId}/protection`, { protected: 'true' }, bearer(secrets.operate))).headers.get('location')).toBe(`/droplets/${dropletId}?told=unchanged`);
    expect(textOf(await page(`/droplets/${dropletId}`))).toContain('Lift protection…');
    expect((await post(`/droplets/${dropletId}/protection`, { protected: 'false' }, bearer(secrets.operate))).headers.get('location')).toBe(`/droplets/${dropletId}?told=unprotected`);
    expect([await auditOf('droplet_protected'), await auditOf('droplet_unprotected')]).toMatchObject([[{ actor: 'http:operator' }], [{ actor: 'http:operator' }]]);
  });

  test('accept takes the drift that was shown, and no other', async () => {
    const { dropletId, driftId } = await place({ drift: { field: 'size_slug', desired: 's-1vcpu-1gb', actual: 's-2vcpu-2gb' } });
    expect(await page(`/droplets/${dropletId}`)).toContain(`popovertarget="accept-${driftId}"`);
    const path = `/droplets/${dropletId}/drift/${driftId}`;
    expect((await post(path, { actual: 's-2vcpu-2gb' }, bearer(secrets.start))).status).toBe(403);
    await web.db.sql`update arcadia.cloud_drift set actual = 's-4vcpu-8gb' where id = ${driftId}`;
    expect((await post(path, { actual: 's-2vcpu-2gb' }, bearer(secrets.operate))).headers.get('location')).toBe(`/droplets/${dropletId}?told=moved_on`);
    expect(await auditOf('drift_accepted')).toEqual([]);
    expect((await post(path, { actual: 's-4vcpu-8gb' }, bearer(secrets.operate))).headers.get('location')).toBe(`/droplets/${dropletId}?told=accepted`);
    expect((await post(path, { actual: 's-4vcpu-8gb' }, bearer(secrets.operate))).headers.get('location')).toBe(`/droplets/${dropletId}?told=resolved`);
    expect(await auditOf('drift_accepted')).toMatchObject([{ actor: 'http:operator' }]);
    expect(await web.db.sql`select spec->>'size_slug' as size from arcadia.cloud_provisioned`).toMatchObject([{ size: 's-4vcpu-8gb' }]);
    expect((await post(`/droplets/${dropletId}/drift/99999`, { actual: 'x' })).status).toBe(404);
  });

  test('approve takes the orphans that were shown, of those the surplus ones, for those with the scope destroy', async () => {
    const [first, second, unknown] = [await place({ name: 's-1', requestedBy: null, orphan: 'surplus' }), await place({ name: 's-2', requestedBy: null, orphan: 'surplus', usdPerHour: null }), await place({ name: 'u-1', requestedBy: null, orphan: 'unknown' })];
    const shown = await page('/droplets/orphans', asDestroyer);
    expect(textOf(shown)).toMatch(/Destroy 2 surplus droplets\?.*Without 1 whose price is not known, they cost \$0\.00893 an hour\..*its saga was rolled back.*Unknown/);
    expect([...shown.matchAll(/name="id" value="(\d+)"/g)].map(([, id]) => Number(id))).toEqual([first.orphanId, second.orphanId]);
    expect(await page('/droplets/orphans', bearer(secrets.operate))).not.toContain('action="/droplets/orphans"');
    expect((await post('/droplets/orphans', { id: String(first.orphanId) }, bearer(secrets.operate))).status).toBe(403);
    await web.db.sql`update arcadia.cloud_orphans set resolved_at = now(), resolution = 'explained' where id = ${second.orphanId}`;
    const done = await post('/droplets/orphans', { id: [first, second].map(({ orphanId }) => String(orphanId)) }, asDestroyer);
    expect(textOf(done.text)).toContain('1 of 2 approved; 1 is not surplus any more');
    expect(await auditOf('orphan_approved')).toMatchObject([{ actor: 'http:destroyer', detail: { droplet_id: String(first.dropletId) } }]);
    expect(textOf(await page(`/droplets/${first.dropletId}`))).toContain('http:destroyer approved its destruction');
    expect(textOf(await page(`/droplets/${unknown.dropletId}`))).not.toContain('Approve destruction…');
    const { dropletId, orphanId } = await place({ requestedBy: null, orphan: 'surplus' });
    expect(textOf(await page(`/droplets/${dropletId}`))).toContain('Approve destruction…');
    expect((await post('/droplets/orphans', { id: String(orphanId), back: String(dropletId) }, asDestroyer)).headers.get('location')).toBe(`/droplets/${dropletId}?told=approved`);
  });

  test('approve is offered for surplus orphans, not for unknown ones alone', async () => {
    await place({ name: 'u-1', requestedBy: null, orphan: 'unknown' });
    expect(textOf(await page('/droplets', asDestroyer))).not.toContain('Approve orphans…');
    const { orphanId } = await place({ name: 's-1', requestedBy: null, orphan: 'surplus' });
    expect(textOf(await page('/droplets', asDestroyer))).toContain('Approve orphans…');
    await web.db.sql`update arcadia.cloud_orphans set approved_at = now(), approved_by = 'http:ada' where id = ${orphanId}`;
    expect(textOf(await page('/droplets', asDestroyer))).not.toContain('Approve orphans…');
  });

  test('acknowledge takes the unknown orphans that were shown, or the one of the page, for those with the scope operate', async () => {
    const [first, second] = [await place({ name: 'u-1', requestedBy: null, orphan: 'unknown' }), await place({ name: 'u-2', requestedBy: null, orphan: 'unknown' })];
    expect(await page('/droplets')).toMatch(/class="count telling" href="[^"]*state=orphan/);
    expect(textOf(await page('/droplets'))).toContain('Review orphans…');
    expect(textOf(await page('/droplets/orphans', bearer(secrets.read)))).not.toContain('Acknowledge all 2…');
    const shown = await page('/droplets/orphans', bearer(secrets.operate));
    expect(textOf(shown)).toContain('Acknowledge all 2…');
    expect([...shown.matchAll(/name="id" value="(\d+)"/g)].map(([, id]) => Number(id))).toEqual([first.orphanId, second.orphanId]);
    const ofPage = { id: String(first.orphanId), back: String(first.dropletId), reason: ' that of staging ' };
    expect((await post('/droplets/orphans/acknowledge', ofPage, bearer(secrets.start))).status).toBe(403);
    expect((await post('/droplets/orphans/acknowledge', ofPage, bearer(secrets.operate))).headers.get('location')).toBe(`/droplets/${first.dropletId}?told=acknowledged`);
    expect(textOf(await page(`/droplets/${first.dropletId}`, bearer(secrets.operate)))).toMatch(/orphan: acknowledged Take acknowledgement back….*http:operator acknowledged it \d+ s ago: that of staging/);
    expect((await post('/droplets/orphans/acknowledge', { id: [first, second].map(({ orphanId }) => String(orphanId)) }, bearer(secrets.operate))).headers.get('location')).toBe('/droplets/orphans?told=acknowledged');
    expect(textOf(await page('/droplets/orphans?told=acknowledged', bearer(secrets.operate)))).toMatch(/Acknowledged\..*Acknowledged Unknown too/);
    expect(await page('/droplets')).not.toMatch(/class="count telling" href="[^"]*state=orphan/);
    expect(textOf(await page('/droplets'))).not.toContain('Review orphans…');
    expect(await auditOf('orphan_acknowledged')).toMatchObject([{ actor: 'http:operator', detail: { droplet_id: String(first.dropletId), reason: 'that of staging' } }, { detail: { droplet_id: String(second.dropletId) } }]);
    expect((await post('/droplets/orphans/unacknowledge', { id: String(first.orphanId), back: String(first.dropletId) }, bearer(secrets.operate))).headers.get('location')).toBe(`/droplets/${first.dropletId}?told=unacknowledged`);
    expect(textOf(await page(`/droplets/${first.dropletId}`, bearer(secrets.operate)))).toMatch(/orphan: unknown Acknowledge…/);
  });

  test('the page of orphans says that nobody looked, and else how long ago', async () => {
    const unlooked = textOf(await page('/droplets/orphans'));
    expect(unlooked).toContain('The inventory was never synced.');
    expect(unlooked).not.toMatch(/No orphans|accounted for/);
    await placeSync(web.db, { agoS: 30 });
    expect(textOf(await page('/droplets/orphans'))).toMatch(/No orphans Synced 3\d s ago\. As of the last complete sync, every droplet with our tags is accounted for/);
  });

  test('a destruction that is stuck is no destruction, while the droplet lives and once it is gone', async () => {
    const { dropletId } = await place({ name: 'stays' });
    const id = crypto.randomUUID();
    await web.db.sql`
      insert into arcadia.sagas (id, saga8, name, status, steps, input, error, wake_at)
      values (${id}, ${id.slice(0, 8)}, 'destroy_droplet', 'stuck', '{destroy_droplet}', ${JSON.stringify({ droplet_id: dropletId })}::text::jsonb, '{"code": "forbidden", "message": "no", "step": "destroy_droplet", "retryable": false}', null)`;
    const alive = await page(`/droplets/${dropletId}`);
    expect(textOf(alive)).toContain('Its destruction needs attention: see saga');
    expect(textOf(alive)).not.toMatch(/is being destroyed|still exists/);
    expect(alive).toContain(`see saga <a href="/sagas/${id}">`);
    await web.db.sql`update arcadia.cloud_resources set deleted_at = now() where provider_id = ${String(dropletId)}`;
    await web.db.sql`insert into arcadia.cloud_drift (resource_id, field, desired, actual) select id, 'existence', 'present', 'absent' from arcadia.cloud_resources where provider_id = ${String(dropletId)}`;
    const gone = textOf(await page(`/droplets/${dropletId}`));
    expect(gone).toContain(`This droplet is gone. The inventory recorded that`);
    expect(gone).toContain(`needs attention: retry ${id.slice(0, 8)} , and it completes.`);
    expect(gone).not.toMatch(/still wanted|still exists/);
  });

  test('adopt starts a saga for a droplet that nobody here manages, protected if that is ticked', async () => {
    const { dropletId } = await place({ name: 'by-hand', requestedBy: null });
    const shown = textOf(await page(`/droplets/${dropletId}`, asDestroyer));
    expect(shown).toContain('Adopt…');
    expect(shown).toContain('arcadia-cloud destroys only what it provisioned or adopted.');
    expect(shown).not.toContain('Destroy…');
    expect((await post(`/droplets/${dropletId}/adopt`, {}, bearer(secrets.operate))).status).toBe(403);
    const done = await post(`/droplets/${dropletId}/adopt`, { protected: 'true', form: randomUUID() }, asDestroyer);
    expect(done.status).toBe(303);
    expect(await web.db.sql`select input, started_by from arcadia.sagas where name = 'adopt_droplet'`).toMatchObject([{ input: { droplet_id: dropletId, protected: true }, startedBy: 'http:destroyer' }]);
  });

  test('adopt may give the droplet a lease, and says what it cannot read of one', async () => {
    const { dropletId } = await place({ name: 'by-hand', requestedBy: null });
    for (const [body, said] of [[{ lease: 'soon' }, 'lease: expected a duration such as 30m, 2h or 7d'], [{ lease: '', lease_max: '7d' }, 'expected the lease that lease_max is the limit of']] as const) {
      const refused = await post(`/droplets/${dropletId}/adopt`, body, asDestroyer);
      expect([refused.status, textOf(refused.text)]).toEqual([400, expect.stringContaining(said)]);
    }
    expect((await post(`/droplets/${dropletId}/adopt`, { lease: ' 2h ', lease_max: '7d', reason: '' }, asDestroyer)).status).toBe(303);
    const [saga] = await web.db.sql<{ input: unknown }[]>`select input from arcadia.sagas where name = 'adopt_droplet' and input->>'droplet_id' = ${String(dropletId)}`;
    expect(saga?.input).toEqual({ droplet_id: dropletId, lease: { ttl_s: 7_200, max_s: 604_800 } });
  });

  test('is not taken from a page of another site', async () => {
    const { dropletId } = await place();
    expect((await post(`/droplets/${dropletId}/protection`, { protected: 'true' }, { ...basic(), 'sec-fetch-site': 'cross-site' })).status).toBe(403);
  });
});
