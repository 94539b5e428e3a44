// A database on which this version's `migrate` has not run: nothing starts there that could not work, and each process and
// command names the remedy.
import { afterAll, beforeAll, describe, expect, onTestFinished, test } from 'vitest';
import { loadConfig } from '../../src/platform/config.ts';
import type { Database } from '../../src/platform/db.ts';
import { silentLog } from '../../src/platform/log.ts';
import { startWeb } from '../../src/processes/web.ts';
import { startWorker } from '../../src/processes/worker.ts';
import type { Fleet } from '../support/fleet.ts';
import { openFleet, runCommand } from '../support/fleet.ts';

/** Takes the migrations from version 40 on back. */
async function takeBack({ db }: { db: Database }): Promise<void> {
  await db.sql`alter table arcadia.sagas drop column given_input`;
  await db.sql`alter table arcadia.workers drop column steps, drop column reconciler_failing_since, drop column provider_failing_since, drop column provider_answered_at`;
  await db.sql`delete from arcadia.migrations where version >= 40`;
}

const due = /^\d+ migrations are due, the first is 0040\.do\.given-inputs\.sql: run `arcadia migrate`\.$/;

describe('a database with migrations that are due', () => {
  let fleet: Fleet;

  beforeAll(async () => {
    fleet = await openFleet('postgres');
    await takeBack(fleet);
  });

  afterAll(async () => fleet[Symbol.asyncDispose]());

  const lastLine = async (command: string[]) => {
    const { code, stdout, stderr } = await runCommand(command, fleet.environment({ PORT: '0' }), 40_000);
    return [code, `${stdout}${stderr}`.trim().split('\n').at(-1)];
  };

  test.each(['worker', 'web', 'sync'])('%s ends with exit code 1, so that its supervisor starts it again, and names the first file', async (command) => {
    const [code, line = ''] = await lastLine([command]);
    expect([code, String(line).replace(/^arcadia: /, '')]).toEqual([1, expect.stringMatching(due)]);
  });

  test.each([['status'], ['status', '--json']])('%s names the condition, and does not say that Postgres is away', async (...command) => {
    const { code, stdout } = await runCommand(command, fleet.environment());
    expect(code).toBe(1);
    expect(stdout).toMatch(/The database is not migrated to this version/);
    expect(stdout).toContain('Run `arcadia migrate`');
    expect(stdout).not.toContain('does not answer');
  });

  test('a command that meets a missing column says what to run', async () => {
    const line = await lastLine(['provision', '--name', 'web-1', '--region', 'fra1', '--size', 's-1vcpu-1gb', '--image', 'debian-12-x64', '--detach']);
    expect(line).toEqual([1, expect.stringMatching(/^arcadia: The database is not migrated to this version: run `arcadia migrate`\. \(column "given_input" .*does not exist\)$/)]);
  });
});

test('a database that was never set up ends a process with exit code 1: its supervisor starts it again once it is', async () => {
  await using fleet = await openFleet('postgres');
  await fleet.db.sql`drop schema arcadia cascade`;
  const ended = await runCommand(['worker'], fleet.environment(), 40_000);
  expect([ended.code, `${ended.stdout}${ended.stderr}`]).toEqual([1, expect.stringContaining('run `arcadia migrate` first')]);
});

test('a worker and a web of an older version start on a database that a newer one has migrated', async () => {
  await using fleet = await openFleet('postgres');
  await fleet.db.sql`insert into arcadia.migrations (version, name, md5, run_at) values (9000, 'from the future', 'x', now())`;
  const config = loadConfig({ ...fleet.environment(), PORT: '0' });
  const worker = await startWorker(config, silentLog);
  onTestFinished(() => worker.close());
  const web = await startWeb(config, silentLog);
  onTestFinished(() => web.close());
  expect((await fetch(`${web.url}/readyz`)).status).toBe(200);
});

test('a web whose database loses its migrations, as by a restore, tells so on /statusz and not that Postgres is away', async () => {
  await using fleet = await openFleet('postgres');
  const web = await startWeb(loadConfig({ ...fleet.environment(), PORT: '0' }), silentLog);
  onTestFinished(() => web.close());
  await takeBack(fleet);
  const status = await (await fetch(`${web.url}/statusz`)).text();
  expect(status).toContain('not_migrated');
  expect(status).not.toContain('postgres_away');
  const metrics = await (await fetch(`${web.url}/metrics`)).text();
  expect(metrics).toContain('arcadia_condition{name="not_migrated"} 1');
  expect(metrics).toContain('arcadia_condition{name="postgres_away"} 0');
});

test.each(['worker', 'web'])('%s on a database without tables of queues, and without REDIS_URL, says what to run or to set', async (command) => {
  await using fleet = await openFleet('postgres');
  await fleet.db.sql`drop schema bullmq cascade`;
  const ended = await runCommand([command], fleet.environment({ PORT: '0' }), 40_000);
  expect([ended.code, `${ended.stdout}${ended.stderr}`.trim().split('\n').at(-1)]).toEqual([1, 'arcadia: REDIS_URL is not set and Postgres has no tables of queues: run `arcadia migrate`, or set REDIS_URL']);
});
