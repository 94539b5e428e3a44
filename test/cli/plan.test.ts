// `provision --dry-run`: says whether a provision is possible, what it costs and when it would start. It starts nothing.

import { afterAll, beforeAll, expect, onTestFinished, test } from 'vitest';
import { planAnswer } from '../../src/web/api/plans.ts';
import type { Fleet } from '../support/fleet.ts';
import { claimQueues, openFleet, runCommand } from '../support/fleet.ts';
import { patience } from '../support/patience.ts';
import { startPrivateRedis } from '../support/services-redis-server.ts';

let fleet: Fleet;
beforeAll(async () => {
  fleet = await openFleet('redis');
  await claimQueues(fleet);
  await fleet.db.sql`insert into arcadia.workers (id, name, host, pid, version, node_version, concurrency, jobs, last_seen_at) values (gen_random_uuid(), 'a:1', 'a', 1, '1', '24', 50, 0, now() + interval '1 hour')`;
});
afterAll(() => fleet[Symbol.asyncDispose]());

const dryRun = (changes: Record<string, string> = {}, more: readonly string[] = [], environment: NodeJS.ProcessEnv = {}) => {
  const options = { name: 'web-1', region: 'fra1', size: 's-1vcpu-1gb', image: 'debian-12-x64', ...changes };
  return runCommand(['provision', ...Object.entries(options).flatMap(([option, value]) => [`--${option}`, value]), '--dry-run', ...more], fleet.environment(environment));
};

test('a possible provision exits with 0, says its price and its start, and sends nothing but GETs', async () => {
  const { code, stdout, stderr } = await dryRun();
  expect([code, stderr]).toEqual([0, '']);
  expect(stdout).toBe(
    'OK      account: The account is active.\n' +
      'OK      room: The account has 0 of 25000 droplets.\n' +
      'OK      region: fra1 (Frankfurt 1) takes new droplets.\n' +
      'OK      size: s-1vcpu-1gb (1 vCPU, 1 GB, 25 GB disk) is available in fra1.\n' +
      'OK      image: debian-12-x64 (Debian 12 x64) is available in fra1 and fits the disk.\n' +
      'Price: $0.00893 an hour, at most $6.00 a month.\n' +
      'Start: Now: the budget of requests to DigitalOcean has room.\n' +
      'Possible. Nothing was started.\n',
  );
  expect(new Set(fleet.sandbox.ledger().map(({ method }) => method))).toEqual(new Set(['GET']));
  expect(await fleet.db.sql`select 1 from arcadia.sagas`).toHaveLength(0);
});

test('an impossible one exits with 1 and names the problem; --json prints the plan', async () => {
  const { code, stdout } = await dryRun({ region: 'lon1', size: 's-1vcpu-512mb-10gb' });
  expect([code, stdout]).toEqual([1, expect.stringMatching(/^PROBLEM size: .*not available in lon1[\s\S]*\nNot possible at the moment\. Nothing was started\.\n$/m)]);
  const json = await dryRun({ size: 'tiny' }, ['--json']);
  expect(json.code).toBe(1);
  expect(planAnswer.parse(JSON.parse(json.stdout))).toMatchObject({ possible: 'no', price: { usdPerHour: null } });
});

test('what could not be checked is said, and exits with 1', async () => {
  const { code, stdout } = await dryRun({}, [], { DIGITALOCEAN_TOKEN: '' });
  expect([code, stdout]).toEqual([1, expect.stringContaining('UNKNOWN size: The sizes could not be read: this process has no DIGITALOCEAN_TOKEN.')]);
  expect(stdout).toMatch(/Not known whether it is possible: not everything could be checked\. Nothing was started\.\n$/);
});

test('invalid input, and options that start something, are wrong usage', async () => {
  expect(await dryRun({ name: 'not a name' })).toMatchObject({ code: 2, stdout: '', stderr: expect.stringContaining('name: expected a host name') });
  expect(await dryRun({}, ['--detach'])).toMatchObject({ code: 2, stdout: '', stderr: expect.stringContaining('--dry-run: starts nothing') });
});

test('queues of another database, or of none though a worker is alive, are refused: they say nothing about this fleet', async () => {
  await using other = await openFleet('redis');
  const prefix = other.environment()['QUEUE_PREFIX'] ?? '';
  const unclaimed = await dryRun({}, [], { QUEUE_PREFIX: prefix });
  expect([unclaimed.code, unclaimed.stdout]).toEqual([78, '']);
  expect(unclaimed.stderr).toContain(`under QUEUE_PREFIX ${prefix} belong to no database`);
  await claimQueues(other, 'another/database');
  const ofAnother = await dryRun({}, [], { QUEUE_PREFIX: prefix });
  expect([ofAnother.code, ofAnother.stdout]).toEqual([78, '']);
  expect(ofAnother.stderr).toContain(`under QUEUE_PREFIX ${prefix} belong to another database`);
});

test('a Redis that is frozen or away delays the plan by seconds, and is named on stderr', async () => {
  const redis = await startPrivateRedis();
  onTestFinished(() => redis.stop());
  redis.pause();
  onTestFinished(() => redis.resume());
  for (const url of [redis.url, 'redis://127.0.0.1:9']) {
    const startedAt = performance.now();
    const { code, stdout, stderr } = await dryRun({}, [], { REDIS_URL: url });
    expect(performance.now() - startedAt).toBeLessThan(15_000 * patience());
    expect([code, stderr]).toEqual([0, expect.stringContaining('the queues and the request budget are left out of the plan: Redis cannot be reached (REDIS_URL): ')]);
    expect(stdout).toContain('Start: Not known: ');
  }
});
