// Clocks that are wrong: of a worker, of web, of the command line; ahead, behind, and jumping in the middle of work. Sagas
// go by the database's time, so none waits longer, and none is looked at more often, than with a right clock.

import { describe, expect, test } from 'vitest';
import { z } from 'zod';
import { loadConfig } from '../../src/platform/config.ts';
import { silentLog } from '../../src/platform/log.ts';
import { startWeb } from '../../src/processes/web.ts';
import type { Fleet, QueueStoreKind } from '../support/fleet.ts';
import { openFleet, runCommand, web } from '../support/fleet.ts';
import { HOUR_MS, createShiftedClock } from '../support/shifted-clock.ts';
import { queueStoreKinds } from '../support/topology.ts';
import { waitFor } from '../support/wait-for.ts';
import { placeDroplet, placeSync } from '../web/droplets-stage.ts';

const SAGAS = 10;
const POLL_MS = 500;

// Droplets stay new until the test has the sandbox's time pass.
const ACTIVATION_MS = 600_000;

async function provisionTen(fleet: Fleet): Promise<string[]> {
  const handles = await Promise.all(Array.from({ length: SAGAS }, (_, at) => fleet.client.provisionDroplet({ ...web, name: `web-${at}` })));
  return handles.map(({ sagaId }) => sagaId);
}

async function untilTheyWait(fleet: Fleet): Promise<void> {
  await waitFor(
    async () => {
      const [row] = await fleet.db.sql<{ waiting: number }[]>`select count(*)::int as waiting from arcadia.sagas where status = 'running' and cursor = 1`;
      return row?.waiting === SAGAS;
    },
    { what: 'ten sagas to wait for their droplets', deadlineMs: 60_000 },
  );
}

/** How often each saga has looked at its droplet. */
async function pollsOf(fleet: Fleet): Promise<number[]> {
  const sagas = await fleet.client.list({ limit: SAGAS });
  return Promise.all(sagas.map(async (saga) => (await fleet.client.peek(saga))?.memo['polls'] ?? 0));
}

const allCompleted = Array.from({ length: SAGAS }, () => 'completed');

async function endsOf(fleet: Fleet, ids: readonly string[]): Promise<string[]> {
  const sagas = await Promise.all(ids.map((id) => fleet.atRest(id, 60_000)));
  return sagas.map(({ status, error }) => error?.message ?? status);
}

describe.each(queueStoreKinds())('with the queues on %s', (kind) => {
  test('sagas that wait go on at once when their only worker, an hour ahead, is killed and replaced by a right one', async () => {
    expect(await replaceWorker(kind, HOUR_MS)).toEqual(allCompleted);
  });

  test('beside workers an hour ahead and an hour behind, no saga is looked at more often than it is to be', async () => {
    await using fleet = await openFleet(kind, { activateAfterMs: ACTIVATION_MS });
    await using ahead = await createShiftedClock(HOUR_MS);
    await using behind = await createShiftedClock(-HOUR_MS);
    await Promise.all([{}, ahead.environment, behind.environment].map((changes) => fleet.startWorker({ ...changes, WAIT_POLL_INTERVAL_MS: String(POLL_MS) })));
    const ids = await provisionTen(fleet);
    await untilTheyWait(fleet);
    const before = await pollsOf(fleet);
    const since = performance.now();
    await waitFor(async () => (await pollsOf(fleet)).every((polls, at) => polls >= (before[at] ?? 0) + 3), { what: 'three polls of each' });
    const most = Math.max(...(await pollsOf(fleet)).map((polls, at) => polls - (before[at] ?? 0)));
    expect(most).toBeLessThanOrEqual((performance.now() - since) / POLL_MS + 2);
    fleet.sandbox.advanceClock(ACTIVATION_MS);
    expect(await endsOf(fleet, ids)).toEqual(allCompleted);
  });

  test('a worker whose clock jumps ahead, then behind, then right again, goes on all the while', async () => {
    await using fleet = await openFleet(kind, { activateAfterMs: ACTIVATION_MS });
    await using clock = await createShiftedClock(0);
    const worker = await fleet.startWorker({ ...clock.environment, WAIT_POLL_INTERVAL_MS: '200' });
    for (const offMs of [HOUR_MS, -HOUR_MS, 0]) {
      const ids = await provisionTen(fleet);
      await untilTheyWait(fleet);
      clock.set(offMs);
      // The next polls are put off by the clock as it is now.
      const before = await pollsOf(fleet);
      await waitFor(async () => (await pollsOf(fleet)).every((polls, at) => polls > (before[at] ?? 0)), { what: 'a poll of each' });
      fleet.sandbox.advanceClock(ACTIVATION_MS);
      expect(await endsOf(fleet, ids)).toEqual(allCompleted);
    }
    worker.signal('SIGTERM');
    expect(await worker.ended).toEqual({ code: 0, signal: null });
  });
});

test('sagas that wait go on at once when their only worker, an hour behind, is killed and replaced by a right one', async () => {
  const [kind = 'redis'] = queueStoreKinds();
  expect(await replaceWorker(kind, -HOUR_MS)).toEqual(allCompleted);
});

async function replaceWorker(kind: QueueStoreKind, offMs: number): Promise<string[]> {
  await using fleet = await openFleet(kind, { activateAfterMs: ACTIVATION_MS });
  await using clock = await createShiftedClock(offMs);
  const wrong = await fleet.startWorker({ ...clock.environment, WAIT_POLL_INTERVAL_MS: String(POLL_MS) });
  const ids = await provisionTen(fleet);
  await untilTheyWait(fleet);
  wrong.signal('SIGKILL');
  await wrong.ended;
  fleet.sandbox.advanceClock(ACTIVATION_MS);
  expect(wrong.output()).toContain('the clock of this machine is 3600 s');
  await fleet.startWorker({ WAIT_POLL_INTERVAL_MS: String(POLL_MS) });
  return await endsOf(fleet, ids);
}

test('what a client whose clock is wrong asks for is done as usual, told of by its right age, and not counted as late', async () => {
  const [kind = 'redis'] = queueStoreKinds();
  await using fleet = await openFleet(kind);
  await using clock = await createShiftedClock(-HOUR_MS);
  const worker = await fleet.startWorker({ WORKER_METRICS_PORT: '0' });
  const provision = await runCommand(['provision', '--name', 'web-1', '--region', web.region, '--size', web.size, '--image', web.image], fleet.environment(clock.environment));
  expect(provision).toMatchObject({ code: 0 });
  const metrics = await (await fetch(/"metrics":"([^"]+)"/.exec(worker.output())?.[1] ?? '')).text();
  expect(Number(/arcadia_job_lateness_seconds_sum\{queue="saga-steps"\} (\S+)/.exec(metrics)?.[1])).toBeLessThan(60);
  clock.set(HOUR_MS);
  const listed = await runCommand(['sagas', '--since', '10m', '--json'], fleet.environment(clock.environment));
  expect(JSON.parse(listed.stdout)).toHaveLength(1);
});

test('the command line judges leases, and whether anybody looked, by the time of the database', async () => {
  const [kind = 'redis'] = queueStoreKinds();
  await using fleet = await openFleet(kind);
  await using clock = await createShiftedClock(HOUR_MS);
  const { sagaId } = await placeDroplet(fleet.db, { leaseInS: 1_800 });
  await placeSync(fleet.db, { agoS: 60 });
  const run = async (...args: string[]) => (await runCommand(args, fleet.environment(clock.environment))).stdout;
  expect(await run('leases')).toMatch(/ (29|30) min/);
  expect(await run('saga', sagaId)).toMatch(/ (29|30) min/);
  expect(await run('orphans')).toMatch(/^no orphans as of the last complete sync, 1 min/);
});

test('web whose clock is wrong starts sagas, and shows when a poll is due by the database', async () => {
  const [kind = 'redis'] = queueStoreKinds();
  await using fleet = await openFleet(kind, { activateAfterMs: ACTIVATION_MS });
  await fleet.startWorker({ WAIT_POLL_INTERVAL_MS: '5000' });
  const realNow = Date.now;
  Date.now = () => realNow() - HOUR_MS;
  const running = await startWeb(loadConfig(fleet.environment({ PORT: '0' })), silentLog);
  try {
    const answer = await fetch(`${running.url}/v1/sagas/provision_droplet`, { method: 'POST', headers: { 'content-type': 'application/json' }, body: JSON.stringify(web) });
    expect(answer.status).toBe(202);
    const { sagaId } = z.object({ sagaId: z.string() }).parse(await answer.json());
    const page = await waitFor(
      async () => {
        const html = await (await fetch(`${running.url}/sagas/${sagaId}`)).text();
        return html.includes('class="polls"') && html;
      },
      { what: 'the first poll' },
    );
    expect(page).toMatch(/data-in>(now|in \d s)</);
  } finally {
    await running.close();
    Date.now = realNow;
  }
});
