// Leases as callers meet them: over HTTP, through the client, on the command line.

import { randomUUID } from 'node:crypto';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { requireSeconds } from '../../src/cli/usage-error.ts';
import { openClient } from '../../src/client/open-client.ts';
import { approvedLeasesAnswer, leaseAnswer, leasesAnswer, resourcesAnswer } from '../../src/web/api/inventory-shapes.ts';
import { problemSchema } from '../../src/web/problems.ts';
import { runCommand } from '../support/fleet.ts';
import type { Web } from './stage.ts';
import { basic, bearer, credentials, openWebStage, secrets } from './stage.ts';

let web: Web;
beforeAll(async () => {
  web = await openWebStage(credentials);
});
afterAll(() => web[Symbol.asyncDispose]());

const as = (secret: string) => ({ headers: bearer(secret) });
const renew = (id: number, body: unknown = { ttl_s: 7_200 }, secret: string = secrets.start) => web.call('POST', `/v1/droplets/${id}/lease`, { body, ...as(secret) });
const inMs = (time: Date | string | null | undefined) => new Date(time ?? Number.NaN).getTime() - Date.now();

/** Puts a droplet on record as provisioned by a saga; null: without a lease. */
async function record(leaseEndsInMs: number | null, more: { name?: string; expired?: boolean; isProtected?: boolean } = {}): Promise<number> {
  const dropletId = Math.floor(Math.random() * 1e9) + 1;
  await web.db.sql`
    with resource as (
      insert into arcadia.cloud_resources (provider, provider_id, kind, name, status) values ('digitalocean', ${String(dropletId)}, 'droplet', ${more.name ?? 'web-1'}, 'active') returning id
    )
    insert into arcadia.cloud_provisioned (resource_id, spec, provisioned_by, saga_id, protected, lease_generation, lease_until, lease_expired_at)
    select id, '{}', 'saga:x', ${randomUUID()}, ${more.isProtected === true}, 1, clock_timestamp() + ${leaseEndsInMs}::float8 * interval '1 ms', case when ${more.expired === true} then clock_timestamp() end from resource`;
  return dropletId;
}

function arcadia(...args: string[]) {
  const environment = { PATH: process.env['PATH'], ARCADIA_ENV: 'test', DATABASE_URL: web.config.databaseUrl ?? '', ...(web.queueStore.kind === 'redis' ? { REDIS_URL: web.queueStore.nodes.join(',') } : {}), QUEUE_PREFIX: web.config.queuePrefix };
  return runCommand(args, environment).then(({ code, stdout, stderr }) => ({ code, stdout: stdout.trimEnd(), stderr: stderr.trimEnd() }));
}

test('a lease is renewed by POST, shown with the resource, and audited', async () => {
  const dropletId = await record(60_000);
  const answered = await renew(dropletId);
  expect(answered.status).toBe(200);
  const { leaseUntil } = leaseAnswer.parse(answered.json());
  expect(inMs(leaseUntil)).toBeGreaterThan(7_000_000);
  const shown = resourcesAnswer.parse((await web.call('GET', `/v1/resources?droplet_id=${dropletId}`, as(secrets.read))).json()).resources[0];
  expect(shown?.leaseUntil).toBe(leaseUntil);
  expect(await web.db.sql`select actor from arcadia.audit where action = 'lease_renewed'`).toMatchObject([{ actor: 'http:starter' }]);
});

test('a lease that cannot be renewed is answered with what is so', async () => {
  const code = async (id: number) => {
    const answer = await renew(id);
    return [answer.status, problemSchema.parse(answer.json()).code];
  };
  expect(await code(7)).toEqual([404, 'droplet_unknown']);
  expect(await code(await record(null))).toEqual([409, 'lease_absent']);
  expect(await code(await record(-60_000, { expired: true }))).toEqual([409, 'lease_expired']);
  const dropletId = await record(60_000);
  expect((await renew(dropletId, { ttl_s: 60 }, secrets.read)).status).toBe(403);
  for (const body of [{ ttl_s: 0 }, { ttl_s: '60' }, { ttl_s: 1.5 }, { ttl_s: 31_622_401 }, { ttl: 60 }, {}]) expect((await renew(dropletId, body)).status).toBe(400);
});

test('the client renews in a transaction of the caller, and refuses with a typed error', async () => {
  const dropletId = await record(60_000);
  const client = openClient({ databaseUrl: web.config.databaseUrl ?? '' });
  try {
    const connection = await web.db.sql.reserve();
    await connection`begin`;
    const inTransaction = await client.renewLease(dropletId, { ttlS: 7_200, by: 'billing', transaction: connection });
    await connection`rollback`;
    connection.release();
    expect(inMs(inTransaction.leaseUntil)).toBeGreaterThan(7_000_000);
    const { leaseUntil } = await client.renewLease(dropletId, { ttlS: 120 });
    expect(inMs(leaseUntil)).toBeLessThan(121_000);
    await expect(client.renewLease(8, { ttlS: 60 })).rejects.toMatchObject({ name: 'LeaseError', code: 'droplet_unknown' });
    await expect(client.renewLease(dropletId, { ttlS: 0.5 })).rejects.toThrow('ttlS');
  } finally {
    await client.close();
  }
});

test('the command line renews, and says what is so', async () => {
  const dropletId = await record(60_000);
  expect(await arcadia('renew', String(dropletId), '--ttl', '2h')).toEqual({ code: 0, stdout: expect.stringMatching(/^the lease of droplet \d+ ends at \S+, in (?:2 h 0 min|1 h 59 min)$/), stderr: '' });
  expect(await arcadia('renew', String(await record(-60_000, { expired: true })), '--ttl', '2h')).toMatchObject({ code: 1, stderr: expect.stringContaining('expired at') });
  expect(await arcadia('renew', String(dropletId), '--ttl', '2 hours')).toMatchObject({ code: 2, stderr: expect.stringContaining('--ttl: expected a duration such as') });
});

test('leases are listed by what is so: all that droplets have, those that ended, droplets without one', async () => {
  const ids = { leased: await record(60_000), ended: await record(-60_000), kept: await record(-60_000, { isProtected: true }), expired: await record(-60_000, { expired: true }), none: await record(null) };
  const list = async (query: string) => {
    const { leases } = leasesAnswer.parse((await web.call('GET', `/v1/leases?limit=1000${query}`, as(secrets.read))).json());
    return Object.fromEntries(Object.entries(ids).map(([name, id]) => [name, leases.find(({ dropletId }) => dropletId === id)?.state ?? null]));
  };
  expect(await list('')).toEqual({ leased: 'leased', ended: 'ended', kept: 'protected', expired: 'expired', none: null });
  expect(await list('&ended=true')).toEqual({ leased: null, ended: 'ended', kept: 'protected', expired: null, none: null });
  expect(await list('&without=true')).toEqual({ leased: null, ended: null, kept: null, expired: null, none: 'none' });
  const text = (await arcadia('leases', '--ended')).stdout;
  expect(text).toMatch(new RegExp(`${ids.kept} +web-1 +ended, protected`));
  expect(text).not.toContain(String(ids.leased));
});

test('many leases that end at once are held and told of everywhere, until a person approves them', async () => {
  const ids = await Promise.all(Array.from({ length: 21 }, () => record(-1_000)));
  const [lease] = await web.db.sql`select * from arcadia.lease_brake()`;
  expect(lease).toMatchObject({ isHeld: true });
  const status = await arcadia('status');
  expect([status.code, status.stdout]).toEqual([1, expect.stringMatching(/\d+ of \d+ leases ended at once[^]*arcadia leases --destroy/)]);
  expect((await web.call('GET', '/statusz', as(secrets.read))).json()).toMatchObject({ conditions: expect.arrayContaining([expect.objectContaining({ name: 'leases_held', severity: 'critical' }), expect.objectContaining({ name: 'lease_ended_protected', severity: 'warning' })]) });
  expect((await web.call('GET', '/metrics', as(secrets.read))).text).toMatch(/^arcadia_leases_held [1-9]/m);
  const ended = leasesAnswer.parse((await web.call('GET', '/v1/leases?ended=true&limit=1000', as(secrets.read))).json()).leases.filter(({ dropletId }) => ids.includes(dropletId ?? 0));
  const body = { saga_ids: ended.slice(0, 20).map(({ sagaId }) => sagaId) };
  expect((await web.call('POST', '/v1/leases/approve', { body, ...as(secrets.operate) })).status).toBe(403);
  const approved = await web.call('POST', '/v1/leases/approve', { body, ...as(secrets.all) });
  expect(approvedLeasesAnswer.parse(approved.json()).approved.toSorted()).toEqual(body.saga_ids.toSorted());
  expect(await arcadia('leases', '--destroy')).toMatchObject({ code: 2, stderr: expect.stringContaining('--yes') });
  expect(await arcadia('leases', '--destroy', '--yes')).toMatchObject({ code: 0, stdout: expect.stringContaining('the workers destroy these droplets') });
  expect((await web.db.sql`select * from arcadia.lease_brake()`)[0]).toMatchObject({ isHeld: false, ended: 0 });
  // A protected droplet is approved by nobody.
  expect(await web.db.sql`select 1 from arcadia.cloud_provisioned where lease_approved_at is not null and (protected or lease_until > now())`).toEqual([]);
  expect(await web.db.sql`select distinct actor from arcadia.audit where action = 'lease_expiry_approved' order by 1`).toMatchObject([{ actor: expect.stringMatching(/^cli:/) }, { actor: 'http:token-4' }]);
});

test('an approval of leases leaves alone one that was renewed since the list was read', async () => {
  const ids = [await record(-1_000), await record(-1_000)];
  const read = async () => leasesAnswer.parse((await web.call('GET', '/v1/leases?ended=true&limit=1000', as(secrets.read))).json()).leases.filter(({ dropletId }) => ids.includes(dropletId ?? 0));
  const [renewed, other] = await read();
  // Renewed, and ended again.
  await web.db.sql`update arcadia.cloud_provisioned set lease_generation = lease_generation + 1, lease_until = clock_timestamp() - interval '1 second' where saga_id = ${renewed?.sagaId ?? ''}`;
  const approve = async (body: object) => web.call('POST', '/v1/leases/approve', { body, ...as(secrets.all) });
  const approved = async (body: object) => approvedLeasesAnswer.parse((await approve(body)).json()).approved;
  const leases = [renewed, other].map((lease) => ({ saga_id: lease?.sagaId, generation: lease?.generation }));
  expect(await approved({ leases })).toEqual([other?.sagaId]);
  expect((await read()).find(({ sagaId }) => sagaId === renewed?.sagaId)).toMatchObject({ generation: 2, approvedAt: null });
  // Of a saga alone nobody can tell what the caller has seen.
  expect(await approved({ saga_ids: [renewed?.sagaId] })).toEqual([renewed?.sagaId]);
  for (const body of [{}, { leases, saga_ids: [other?.sagaId] }, { leases: [{ saga_id: other?.sagaId }] }, { leases: [{ saga_id: other?.sagaId, generation: 2 ** 31 }] }]) expect((await approve(body)).status).toBe(400);
});

test('the page of a saga shows the lease of its droplet, and renews it', async () => {
  const dropletId = await record(3_500_000);
  const sagaId = randomUUID();
  await web.db.sql`
    insert into arcadia.sagas (id, saga8, name, status, steps, cursor, input, context, wake_at, finished_at)
    values (${sagaId}, ${sagaId.slice(0, 8)}, 'provision_droplet', 'completed', '{create_droplet,wait_droplet_active,register_droplet}', 2, '{"name":"web-1"}', ${JSON.stringify({ droplet_id: dropletId })}::text::jsonb, null, now())`;
  await web.db.sql`update arcadia.cloud_provisioned set saga_id = ${sagaId} where resource_id = (select id from arcadia.cloud_resources where provider_id = ${String(dropletId)})`;
  const page = async () => (await web.call('GET', `/sagas/${sagaId}`, { headers: basic() })).text;
  expect(await page()).toMatch(/Renew lease…[^]*<dt>Lease<\/dt><dd>ends [^]*in 5\d min[^]*action="\/sagas\/[^"]+\/lease"/);
  const post = (headers: Record<string, string>, body = 'ttl_s=14400') => web.call('POST', `/sagas/${sagaId}/lease`, { body, headers: { 'content-type': 'application/x-www-form-urlencoded', ...headers } });
  // Whoever may start, as over HTTP.
  expect([(await post(bearer(secrets.read))).status, (await post(bearer(secrets.operate))).status, (await post(bearer(secrets.start))).status]).toEqual([403, 403, 303]);
  expect((await web.call('GET', `/sagas/${sagaId}`, as(secrets.read))).text).not.toMatch(/Renew lease…|id="renew"/);
  expect((await post(basic(), 'ttl_s=x')).status).toBe(400);
  expect((await post(basic())).status).toBe(303);
  expect(await page()).toMatch(/<dt>Lease<\/dt><dd>ends [^]*in (?:3 h 59|4 h 0) min/);
  expect((await web.call('GET', '/sagas?name=provision_droplet', { headers: basic() })).text).toMatch(/lease ends [^]*in (?:3 h 59|4 h 0) min/);
  expect((await arcadia('sagas', '--name', 'provision_droplet')).stdout).toMatch(/lease[^]*(?:3 h 59|4 h 0) min left/);
  expect(JSON.parse((await arcadia('saga', sagaId, '--json')).stdout)).toMatchObject({ leaseUntil: expect.any(String) });
});

test('a lease beyond LEASE_MAX_S is refused when a saga is to be started, with its field; nothing is started', async () => {
  await using limited = await openWebStage({ ...credentials, LEASE_MAX_S: '3600' });
  const start = (lease: object) => limited.call('POST', '/v1/sagas/provision_droplet', { body: { name: 'web-1', region: 'fra1', size: 's-1vcpu-1gb', image: 'debian-12-x64', lease }, headers: bearer(secrets.all) });
  for (const [lease, field, found] of [
    [{ ttl_s: 7_200 }, 'lease.ttl_s', 7_200],
    [{ ttl_s: 600, max_s: 86_400 }, 'lease.max_s', 86_400],
  ] as const) {
    const refused = await start(lease);
    expect(refused.status).toBe(422);
    expect(problemSchema.parse(refused.json())).toMatchObject({ code: 'lease_too_long', errors: [{ field, message: `expected at most 3600 seconds (LEASE_MAX_S), found ${found}` }] });
  }
  expect((await limited.call('GET', '/v1/sagas', { headers: bearer(secrets.all) })).json()).toMatchObject({ sagas: [] });
  expect((await start({ ttl_s: 3_600 })).status).toBe(202);
  const adopt = (lease: object) => limited.call('POST', '/v1/sagas/adopt_droplet', { body: { droplet_id: 4_711, lease }, headers: bearer(secrets.all) });
  const refused = await adopt({ ttl_s: 7_200 });
  expect([refused.status, problemSchema.parse(refused.json())]).toEqual([422, expect.objectContaining({ code: 'lease_too_long', errors: [{ field: 'lease.ttl_s', message: 'expected at most 3600 seconds (LEASE_MAX_S), found 7200' }] })]);
  expect((await adopt({ ttl_s: 3_600 })).status).toBe(202);
});

test('durations on the command line are read as people write them', () => {
  expect(['90s', '30m', '2h', '7d', '1h30m'].map((text) => requireSeconds('--ttl', text))).toEqual([90, 1_800, 7_200, 604_800, 5_400]);
  for (const wrong of ['', '2', 'h', '-2h', '2w', '1.5h']) expect(() => requireSeconds('--ttl', wrong)).toThrow('expected a duration');
});
