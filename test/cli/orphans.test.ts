// What `orphans acknowledge` and `unacknowledge` do, and what they say of ids that they cannot take.
import { expect, test } from 'vitest';
import { openFleet, runCommand } from '../support/fleet.ts';

test('an unknown orphan is a problem until it is acknowledged, and again once that is taken back', async () => {
  await using fleet = await openFleet('postgres');
  const run = async (...args: string[]) => runCommand(args, fleet.environment());
  const [{ id } = { id: '' }] = await fleet.db.sql<{ id: string }[]>`
    with resource as (insert into arcadia.cloud_resources (provider, provider_id, kind, name, status) values ('digitalocean', '4711', 'droplet', 'theirs', 'active') returning id)
    insert into arcadia.cloud_orphans (resource_id, category, reason, created_at, first_sync, last_sync) select id, 'unknown', 'it carries no saga id', now(), 1, 1 from resource returning id`;
  expect((await run('status')).stdout).toContain('`arcadia orphans acknowledge <id>`');
  expect(await run('orphans', 'acknowledge', id, '999', '--reason', 'that of staging')).toMatchObject({
    code: 1, stdout: `orphan ${id} acknowledged: no longer reported as a problem\n`, stderr: 'orphan 999 is not an unknown orphan; `arcadia orphans` lists them\n',
  });
  expect((await run('status')).stdout).not.toContain('arcadia orphans');
  expect((await run('orphans')).stdout).toMatch(/acknowledged.*4711[^]*1 acknowledged: price unknown/);
  expect(JSON.parse((await run('orphans', '--json')).stdout)).toMatchObject([{ id: Number(id), category: 'unknown', acknowledgedReason: 'that of staging' }]);
  expect(await run('orphans', 'unacknowledge', id, '--json')).toMatchObject({ code: 0, stdout: `{"ids":[${id}]}\n` });
  expect((await run('status')).stdout).toContain('arcadia orphans');
  expect(await run('orphans', 'acknowledge', 'theirs')).toMatchObject({ code: 2, stderr: expect.stringContaining('Expected a whole number') });
});
