// The pages about leases: what they show, what their filters find, what the brake holds, and that exactly the leases that were shown are
// approved.
import { randomUUID } from 'node:crypto';
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { runCommand } from '../support/fleet.ts';
import { waitFor } from '../support/wait-for.ts';
import { placeDroplet } from './droplets-stage.ts';
import type { GivenDroplet } from './droplets-stage.ts';
import type { Web } from './stage.ts';
import { basic, bearer, credentials, openWebStage, secrets } from './stage.ts';
import { emptyTables } from '../support/empty-tables.ts';

const people = { API_TOKENS: `reader:read:${secrets.read},starter:read+start:${secrets.start},operator:read+operate:${secrets.operate},destroyer:read+destroy:destroy-secret-11aa`, API_TOKENS_START_MAY_DESTROY: 'false' };
const asDestroyer = bearer('destroy-secret-11aa');

let web: Web;
beforeAll(async () => {
  web = await openWebStage({ ...credentials, ...people });
});
afterAll(() => web[Symbol.asyncDispose]());
beforeEach(async () => {
  await emptyTables(web.db.sql, ['arcadia.sagas', 'arcadia.saga_events', 'arcadia.cloud_resources', 'arcadia.audit', 'arcadia.provision_leases']);
});

const place = (given: GivenDroplet) => placeDroplet(web.db, given);
const page = async (path: string, headers: Record<string, string> = basic()) => {
  const { status, text } = await web.call('GET', path, { headers: { accept: 'text/html', ...headers } });
  expect([path, status]).toEqual([path, 200]);
  return text;
};
const post = (path: string, fields: Record<string, string | string[]>, headers: Record<string, string> = basic()) => {
  const body = new URLSearchParams(Object.entries(fields).flatMap(([name, value]) => [value].flat().map((one): [string, string] => [name, one]))).toString();
  return web.call('POST', path, { body, headers: { 'content-type': 'application/x-www-form-urlencoded', accept: 'text/html', ...headers } });
};
/** The page without its tags. */
const textOf = (text: string) => text.replaceAll(/<[^>]*>/g, ' ').replaceAll(/\s+/g, ' ').replaceAll(/ (?=[.:,])/g, '');
const namesOn = (text: string) => [...text.matchAll(/data-walk>([^<]*)</g)].map(([, name]) => name);
const shownLeases = (text: string) => [...text.matchAll(/name="lease" value="([^"]+)"/g)].map(([, value = '']) => value);
const approvedOnes = async () => (await web.db.sql<{ sagaId: string }[]>`select saga_id from arcadia.cloud_provisioned where lease_approved_at is not null order by 1`).map(({ sagaId }) => sagaId);
const change = (sagaId: string, set: 'renewed' | 'renewed and ended' | 'protected' | 'expired') => {
  const { sql } = web.db;
  if (set === 'protected') return sql`update arcadia.cloud_provisioned set protected = true where saga_id = ${sagaId}`;
  if (set === 'expired') return sql`update arcadia.cloud_provisioned set lease_expired_at = now(), lease_saga_id = gen_random_uuid() where saga_id = ${sagaId}`;
  return sql`update arcadia.cloud_provisioned set lease_generation = 2, lease_until = now() + ${set === 'renewed' ? '1 hour' : '-1 second'}::interval where saga_id = ${sagaId}`;
};
/** More than the brake lets end at once; the first ended first. */
const placeHeld = async (count = 22) => {
  const all = [];
  for (let index = 0; index < count; index += 1) all.push(await place({ name: `held-${String(index).padStart(3, '0')}`, leaseInS: -10_000 + index * 10 }));
  return all;
};

describe('the list of leases', () => {
  test('of nothing says how to begin, with the command marked as one', async () => {
    expect((await web.call('GET', '/leases', { headers: { ...basic(), accept: 'text/html' } })).text).toContain('<p class="empty">No droplet has a lease. Give one with <code>arcadia provision --ttl 2h</code>.</p>');
  });

  test('shows droplet, requester, end, generation and state, the lease that ends first on top', async () => {
    const running = await place({ name: 'running', leaseInS: 7_190, requestedBy: 'http:ada' });
    const warned = await place({ name: 'warned', leaseInS: 5_000, requestedBy: 'cli:bob' });
    await web.db.sql`update arcadia.cloud_provisioned set lease_warned = 3, lease_generation = 3 where saga_id = ${warned.sagaId}`;
    const going = await place({ name: 'going', leaseInS: -50 });
    await change(going.sagaId, 'expired');
    await place({ name: 'kept', leaseInS: -100, isProtected: true });
    await place({ name: 'over', leaseInS: -70 });
    await place({ name: 'endless' });
    const text = await page('/leases');
    expect(namesOn(text)).toEqual(['kept', 'over', 'going', 'warned', 'running']);
    expect(textOf(text)).toMatch(new RegExp(`kept \\d+ 1 min 4\\d s ago ended, protected http:ada 1 Renew… Lift protection….* over \\d+ 1 min 1\\d s ago ended http:ada 1 Renew….* going \\d+ 5\\d s ago being destroyed http:ada 1 warned ${warned.dropletId} in 1 h 2[34] min running, warned cli:bob 3 Renew… running ${running.dropletId} in (1 h 59|2 h 0) min running http:ada 1 Renew…`));
    expect(text).toMatch(/<a href="\/leases" aria-current="page">Leases<\/a>/);
    expect(text).not.toContain('id="brake"');
    expect(text).toMatch(/<a class="badge compensating" href="\/sagas\/[^"]+">being destroyed<\/a>/);
  });

  test('finds by each filter, and counts', async () => {
    await place({ name: 'far', leaseInS: 90_000 });
    await place({ name: 'near', leaseInS: 1_800 });
    const warned = await place({ name: 'warned', leaseInS: 50_000 });
    await web.db.sql`update arcadia.cloud_provisioned set lease_warned = lease_generation where saga_id = ${warned.sagaId}`;
    await place({ name: 'over', leaseInS: -10 });
    await place({ name: 'endless' });
    await place({ name: 'gone', goneAgoS: 5 });
    await place({ name: 'foreign', requestedBy: null });
    for (const [state, found] of [['ending', ['near', 'warned']], ['ended', ['over']], ['held', []], ['without', ['endless']]] as const) {
      expect([state, namesOn(await page(`/leases?state=${state}`))]).toEqual([state, found]);
    }
    expect(textOf(await page('/leases'))).toContain('4 all 2 ending soon 1 ended 0 held 1 without a lease');
    expect((await web.call('GET', '/leases?state=x', { headers: { accept: 'text/html', ...basic() } })).status).toBe(400);
  });

  test('has pages', async () => {
    await web.db.sql`
      with resource as (insert into arcadia.cloud_resources (provider, provider_id, kind, name, status) select 'digitalocean', n::text, 'droplet', 'many-' || lpad(n::text, 3, '0'), 'active' from generate_series(1, 130) n returning id, provider_id::int as n)
      insert into arcadia.cloud_provisioned (resource_id, spec, provisioned_by, saga_id, lease_until) select id, '{}', 'saga:x', gen_random_uuid(), now() + n * interval '1 hour' from resource`;
    const first = await page('/leases');
    expect([namesOn(first).length, namesOn(first)[0]]).toEqual([100, 'many-001']);
    expect(first).toContain('href="/leases?page=2"');
    expect(namesOn(await page('/leases?page=2'))).toEqual(Array.from({ length: 30 }, (_, index) => `many-${101 + index}`));
    expect(textOf(await page('/leases?page=9'))).toContain('The list ends before this page.');
  });

  test('shows a droplet whose create is not answered yet by its saga', async () => {
    const sagaId = randomUUID();
    await web.db.sql`insert into arcadia.sagas (id, saga8, name, status, steps, cursor, input, requested_by, wake_at) values (${sagaId}, ${sagaId.slice(0, 8)}, 'provision_droplet', 'running', '{create_droplet}', 0, '{"name":"<b>early"}', 'http:ada', now())`;
    await web.db.sql`insert into arcadia.provision_leases (saga_id, lease_until) values (${sagaId}, now() + interval '1 hour')`;
    const text = await page('/leases');
    expect(text).toContain(`<a href="/sagas/${sagaId}" data-walk>&lt;b&gt;early</a><small>being created</small>`);
    expect(text).not.toContain('popovertarget="renew');
  });

  test('renews and lifts protection, comes back to the filter it was pressed in, and shows only what one may', async () => {
    const { dropletId } = await place({ name: 'kept', leaseInS: -100, isProtected: true });
    expect(await page('/leases?state=ended', bearer(secrets.read))).not.toContain('popovertarget');
    expect((await page('/leases?state=ended', bearer(secrets.start))).match(/popovertarget="[a-z]+/g)).toEqual(['popovertarget="renew', 'popovertarget="renew']);
    const lifted = await post(`/droplets/${dropletId}/protection`, { protected: 'false', back: 'ended' }, bearer(secrets.operate));
    expect([lifted.status, lifted.headers.get('location')]).toEqual([303, '/leases?state=ended&told=unprotected']);
    const renewed = await post(`/droplets/${dropletId}/lease`, { ttl_s: '3600', back: 'all' }, bearer(secrets.start));
    expect([renewed.status, renewed.headers.get('location')]).toEqual([303, '/leases?told=renewed']);
    expect(textOf(await page('/leases?told=renewed'))).toMatch(/The lease is renewed\..*kept \d+ in (59 min \d+ s|1 h 0 min) running http:ada 2/);
    expect((await post(`/droplets/${dropletId}/lease`, { ttl_s: '3600', back: 'https://evil.example' }, bearer(secrets.start))).status).toBe(400);
  });
});

describe('what the brake holds', () => {
  test('is told on top: how many, why, since when; and the strip leads there', async () => {
    await placeHeld(24);
    const text = await page('/leases');
    expect(textOf(text)).toMatch(/24 ended leases are held, since 2 h 4\d min ago\. They are 24 of 24 leases\. When more than 20 leases and more than a fifth of all have ended, something may be wrong/);
    // The 21st of them was one too many.
    const since = /since <time datetime="([^"]+)"/.exec(text)?.[1] ?? '';
    expect(await web.db.sql`select lease_until from arcadia.cloud_provisioned order by lease_until offset 20 limit 1`).toEqual([{ leaseUntil: new Date(since) }]);
    expect(text).toContain('ended, held');
    await waitFor(async () => (await page('/sagas')).includes('<a href="/leases?state=held">Held leases</a>'), { what: 'the strip', deadlineMs: 20_000 });
    expect(text).toContain('href="/leases/approve"');
    expect(textOf(await page('/leases', bearer(secrets.operate)))).toContain('requires the scope destroy');
    expect(await page('/leases/approve', bearer(secrets.operate))).not.toContain('<form method="post"');
  });

  test('is approved as it was shown, and what changed in between is said', async () => {
    const all = await placeHeld(26);
    await place({ name: 'protected', leaseInS: -100, isProtected: true });
    await place({ name: 'running', leaseInS: 1_000 });
    const question = await page('/leases/approve', asDestroyer);
    expect(textOf(question)).toContain('Destroy 26 droplets?');
    const shown = shownLeases(question);
    expect(shown).toEqual(all.map(({ sagaId }) => `${sagaId}.1`));
    const late = await place({ name: 'late', leaseInS: -1 });
    const [renewed, again, kept, going, ...rest] = all;
    if (renewed === undefined || again === undefined || kept === undefined || going === undefined) throw new Error('nothing was placed');
    await change(renewed.sagaId, 'renewed');
    await change(again.sagaId, 'renewed and ended');
    await change(kept.sagaId, 'protected');
    await change(going.sagaId, 'expired');
    await web.db.sql`delete from arcadia.cloud_provisioned where saga_id = ${rest.at(-1)?.sagaId ?? ''}`;
    const left = rest.slice(0, -1).map(({ sagaId }) => sagaId).toSorted();

    expect((await post('/leases/approve', { lease: shown, confirm: '26' }, bearer(secrets.operate))).status).toBe(403);
    expect((await post('/leases/approve', { lease: shown, confirm: '25' }, asDestroyer)).status).toBe(400);
    expect((await post('/leases/approve', { lease: [...shown, 'x'], confirm: '27' }, asDestroyer)).status).toBe(400);
    expect((await post('/leases/approve', { lease: shown, confirm: '26' }, { ...basic(), 'sec-fetch-site': 'cross-site' })).status).toBe(403);
    expect(await approvedOnes()).toEqual([]);
    const done = await post('/leases/approve', { lease: shown, confirm: '26' }, asDestroyer);
    const text = textOf(done.text);
    expect(text).toContain('21 of 26 approved');
    for (const why of ['1 is renewed', '1 is renewed, and ended again', '1 is protected', '1 is being destroyed already', '1 is gone']) expect(text).toContain(why);
    expect(await approvedOnes()).toEqual(left);
    expect(left).not.toContain(late.sagaId);
    const audit = await web.db.sql<{ actor: string; sagaId: string }[]>`select actor, saga_id from arcadia.audit where action = 'lease_expiry_approved' order by saga_id`;
    expect(audit).toEqual(left.map((sagaId) => ({ actor: 'http:destroyer', sagaId })));
    expect(textOf(await page('/leases?state=ended'))).toContain('ended, approved by http:destroyer');
  });

  test('is approved 1,000 at a time, those that ended first, and the page says what becomes of the others', async () => {
    await web.db.sql`
      with resource as (insert into arcadia.cloud_resources (provider, provider_id, kind, name, status) select 'digitalocean', n::text, 'droplet', 'many-' || lpad(n::text, 4, '0'), 'active' from generate_series(1, 1300) n returning id, provider_id::int as n)
      insert into arcadia.cloud_provisioned (resource_id, spec, provisioned_by, saga_id, lease_generation, lease_until) select id, '{}', 'saga:x', gen_random_uuid(), 1, now() - (2000 - n) * interval '1 minute' from resource`;
    const question = await page('/leases/approve', asDestroyer);
    expect(textOf(question)).toContain('1,300 are held. The form approves at most 1,000: these ended first. The other 300 stay held: repeat it for them.');
    expect(namesOn(question)).toEqual(Array.from({ length: 1_000 }, (_, index) => `many-${String(index + 1).padStart(4, '0')}`));
    expect(textOf((await post('/leases/approve', { lease: shownLeases(question), confirm: '1000' }, asDestroyer)).text)).toContain('1,000 of 1,000 approved The workers destroy them within seconds.');
    expect(textOf(await page('/leases/approve', asDestroyer))).toContain('Destroy 300 droplets?');
    await web.db.sql`update arcadia.cloud_provisioned set lease_approved_at = null`;
    await web.db.sql`update arcadia.cloud_provisioned set lease_until = now() + interval '1 day' from arcadia.cloud_resources r where r.id = resource_id and provider_id::int > 1010`;
    expect(textOf(await page('/leases/approve', asDestroyer))).toContain('Once these are approved, so few remain that the brake lets go: the other 10 are destroyed too. Renew first what you want to keep.');
  });

  test('is nothing most of the time', async () => {
    await place({ leaseInS: -10 });
    expect(textOf(await page('/leases/approve', asDestroyer))).toContain('Nothing to approve');
  });
});

describe('a protected droplet whose lease ended', () => {
  test('says on each page and in the terminal what keeps it, and what to press', async () => {
    const { dropletId } = await place({ name: 'kept', leaseInS: -7_000, isProtected: true });
    await place({ name: 'fine', leaseInS: 7_000, isProtected: true });
    expect(textOf(await page('/leases'))).toContain('The lease of 1 protected droplet has ended. It is not destroyed while protected. Press Renew… to keep a droplet, or Lift protection… to have it destroyed.');
    await waitFor(async () => (await page('/sagas')).includes('<a href="/leases?state=ended">Ended leases</a>'), { what: 'the strip', deadlineMs: 20_000 });
    const droplet = await page(`/droplets/${dropletId}`);
    expect(textOf(droplet)).toMatch(/Its lease ended 1 h 5\d min ago\. It is not destroyed, because it is protected\. Renew the lease to keep it, or lift the protection to have it destroyed within seconds\. Renew lease… Lift protection…/);
    expect(textOf(droplet)).toContain('Its lease has ended: it is destroyed within seconds.');
    expect(textOf(await page(`/droplets/${dropletId}`, bearer(secrets.read)))).toMatch(/because it is protected\. Renew the lease [^…]*$/);
    const environment = { PATH: process.env['PATH'], ARCADIA_ENV: 'test', DATABASE_URL: web.config.databaseUrl ?? '', QUEUE_PREFIX: web.config.queuePrefix, ...(web.queueStore.kind === 'redis' ? { REDIS_URL: web.queueStore.nodes.join(',') } : {}) };
    const { stdout } = await runCommand(['leases'], environment);
    expect(stdout).toMatch(new RegExp(`${dropletId} +kept +ended, protected .* http:ada .*\\n.*\\n\\nThe lease of droplet ${dropletId} has ended\\. It is not destroyed, because it is protected\\.\\n  keep it: +arcadia renew ${dropletId} --ttl 4h\\n  destroy it: arcadia unprotect ${dropletId}\\n$`));
    await web.db.sql`update arcadia.cloud_provisioned set protected = false`;
    expect(textOf(await page(`/droplets/${dropletId}`))).not.toContain('Its lease ended');
    expect((await runCommand(['leases'], environment)).stdout).not.toContain('keep it');
  });
});
