// Destroy protection as callers meet it: over HTTP, through the client, on the command line, in the queue `sagas`.

import { randomUUID } from 'node:crypto';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { requireDropletId } from '../../src/cli/usage-error.ts';
import { openClient } from '../../src/client/open-client.ts';
import { problemSchema } from '../../src/web/problems.ts';
import { protectionAnswer, resourcesAnswer } from '../../src/web/api/inventory-shapes.ts';
import { runCommand } from '../support/fleet.ts';
import type { Web } from './stage.ts';
import { bearer, credentials, openWebStage, secrets } from './stage.ts';

let web: Web;
beforeAll(async () => {
  web = await openWebStage(credentials);
});
afterAll(() => web[Symbol.asyncDispose]());

const as = (secret: string) => ({ headers: bearer(secret) });
const put = (id: number, secret: string, body: unknown = { protected: false }) => web.call('PUT', `/v1/droplets/${id}/protection`, { body, ...as(secret) });

/** Puts a droplet on record as provisioned by a saga. */
async function record(isProtected: boolean): Promise<number> {
  const dropletId = Math.floor(Math.random() * 1e9) + 1;
  await web.db.sql`
    with resource as (
      insert into arcadia.cloud_resources (provider, provider_id, kind, name, status) values ('digitalocean', ${String(dropletId)}, 'droplet', 'web-1', 'active') returning id
    )
    insert into arcadia.cloud_provisioned (resource_id, spec, provisioned_by, saga_id, protected) select id, '{}', 'saga:x', ${randomUUID()}, ${isProtected} from resource`;
  return dropletId;
}

test('a destroy of a protected droplet is answered 409, and says what to do; the lift by PUT lets it through', async () => {
  const dropletId = await record(true);
  const destroy = () => web.call('POST', '/v1/sagas/destroy_droplet', { body: { droplet_id: dropletId }, ...as(secrets.all) });
  const refused = await destroy();
  expect([refused.status, refused.headers.get('content-type')]).toEqual([409, expect.stringContaining('application/problem+json')]);
  expect(problemSchema.parse(refused.json())).toMatchObject({ code: 'droplet_protected', detail: expect.stringContaining(`arcadia unprotect ${dropletId}`) });
  expect((await web.db.sql`select 1 from arcadia.sagas`).length).toBe(0);

  const shown = async () => resourcesAnswer.parse((await web.call('GET', `/v1/resources?droplet_id=${dropletId}`, as(secrets.read))).json()).resources[0]?.protected;
  expect(await shown()).toBe(true);
  const lifted = await web.call('PUT', `/v1/droplets/${dropletId}/protection`, { body: { protected: false }, ...as(secrets.operate) });
  expect([lifted.status, protectionAnswer.parse(lifted.json())]).toEqual([200, { dropletId, protected: false, changed: true }]);
  expect(await shown()).toBe(false);
  expect(await web.db.sql`select actor, action from arcadia.audit where action = 'droplet_unprotected'`).toMatchObject([{ actor: 'http:operator' }]);
  expect((await destroy()).status).toBe(202);
  const late = await web.call('PUT', `/v1/droplets/${dropletId}/protection`, { body: { protected: true }, ...as(secrets.operate) });
  expect([late.status, problemSchema.parse(late.json()).code]).toEqual([409, 'droplet_being_destroyed']);
});

test('who may not operate may not change a protection, and an unknown droplet is answered 404', async () => {
  const dropletId = await record(true);
  const unknown = await put(7, secrets.operate);
  expect([unknown.status, problemSchema.parse(unknown.json()).code]).toEqual([404, 'droplet_unknown']);
  expect((await put(dropletId, secrets.start)).status).toBe(403);
  expect((await put(dropletId, secrets.operate, { protected: 'no' })).status).toBe(400);
});

test('the client refuses with a typed error, also in a transaction of the caller, which goes on', async () => {
  const dropletId = await record(false);
  const client = openClient({ databaseUrl: web.config.databaseUrl ?? '' });
  try {
    await web.db.sql.begin(async (sql) => {
      expect(await client.setProtection(dropletId, { protected: true, by: 'billing', transaction: sql })).toEqual({ dropletId, protected: true, changed: true });
      await expect(client.destroyDroplet(dropletId, { transaction: sql })).rejects.toMatchObject({ name: 'StartRefusedError', code: 'droplet_protected' });
      await sql`select 1`;
    });
    await expect(client.start('destroy_droplet', { droplet_id: dropletId })).rejects.toMatchObject({ code: 'droplet_protected' });
    await expect(client.setProtection(8, { protected: true })).rejects.toMatchObject({ name: 'ProtectionError', code: 'droplet_unknown' });
  } finally {
    await client.close();
  }
});

test('the command line destroys no protected droplet, and protects and unprotects', async () => {
  const dropletId = await record(true);
  const environment = { PATH: process.env['PATH'], ARCADIA_ENV: 'test', DATABASE_URL: web.config.databaseUrl ?? '', ...(web.queueStore.kind === 'redis' ? { REDIS_URL: web.queueStore.nodes.join(',') } : {}), QUEUE_PREFIX: web.config.queuePrefix };
  const arcadia = async (...args: string[]) => {
    const { code, stdout, stderr } = await runCommand(args, environment);
    return { code, stdout: stdout.trimEnd(), stderr: stderr.trimEnd() };
  };
  expect(await arcadia('destroy', String(dropletId), '--detach')).toMatchObject({ code: 1, stdout: '', stderr: expect.stringContaining(`arcadia unprotect ${dropletId}`) });
  expect(await arcadia('unprotect', String(dropletId))).toEqual({ code: 0, stdout: `droplet ${dropletId} is now unprotected`, stderr: '' });
  expect(await arcadia('protect', String(dropletId), '--json')).toEqual({ code: 0, stdout: JSON.stringify({ dropletId, protected: true, changed: true }), stderr: '' });
  expect(() => requireDropletId('web-1')).toThrow('expected a droplet id');
});
