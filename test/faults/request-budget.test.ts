// A fleet whose requests are limited, and one that waits together: several worker processes against a sandbox that
// counts.

import { describe, expect, test } from 'vitest';
import { budgetId } from '../../src/do/budget.ts';
import { textOf } from '../../src/platform/json.ts';
import { queueNames } from '../../src/queues/jobs.ts';
import { isAtRest } from '../../src/saga/saga.ts';
import { listEvents } from '../../src/saga/events.ts';
import { openFaultStage } from '../support/fault-stage.ts';
import type { Stage } from '../support/fault-stage.ts';
import { patience } from '../support/patience.ts';
import { connectTestRedis } from '../support/services-redis.ts';
import { waitFor } from '../support/wait-for.ts';
import { listSagas } from '../support/list-sagas.ts';

const names = (count: number) => Array.from({ length: count }, (_, number) => `web-${number}`);

/** Lets a minute pass for the sandbox, for the budget, and for the jobs that wait. */
async function passMinute(stage: Stage): Promise<void> {
  stage.sandbox.advanceClock(61_000);
  const redis = connectTestRedis(stage.env['REDIS_URL'] ?? '');
  const key = `${stage.env['QUEUE_PREFIX']}:budget:${budgetId('sandbox', stage.sandbox.url)}`;
  for (const set of ['drawn', 'reads', 'others', 'bursts', 'hour-bursts', 'firsts']) {
    const drawn = await redis.zrange(`${key}:${set}`, 0, -1, 'WITHSCORES');
    for (let at = 0; at < drawn.length; at += 2) await redis.zadd(`${key}:${set}`, Number(drawn[at + 1]) - 61_000, drawn[at] ?? '');
  }
  for (const field of ['pacedAt', 'hourPacedAt']) {
    if ((await redis.hexists(`${key}:state`, field)) === 1) await redis.hincrby(`${key}:state`, field, -61_000);
  }
  redis.disconnect();
  for (const name of [queueNames.steps, queueNames.compensations]) {
    for (const job of await stage.queue(name).getDelayed()) await job.promote().catch(() => undefined);
  }
}

// A slow machine comes within these: no lock runs out, and no create is taken for lost and looked for.
const patient = { DIGITALOCEAN_TIMEOUT_MS: '4000', WORKER_LOCK_MS: '8000', ADOPTION_GRACE_MS: '10000' };

describe.concurrent('a fleet of several processes', () => {
  test('keeps to limits that are far too small for it: no 429 to speak of, and no saga fails for it', async () => {
    const limit = 30;
    await using stage = await openFaultStage({
      settings: { ...patient, DIGITALOCEAN_REQUESTS_PER_MINUTE: String(limit), DIGITALOCEAN_REQUESTS_PER_HOUR: '1000' },
      sandbox: { ratePerMinute: limit, ratePerHour: 1_000 },
    });
    const workers = [stage.fork(), stage.fork(), stage.fork()];
    await Promise.all(workers.map((worker) => worker.ready()));
    await Promise.all(names(60).map((name) => stage.provision(name)));

    let seen = -1;
    await waitFor(
      async () => {
        if ((await listSagas(stage.db, { limit: 100 })).every(({ status }) => isAtRest(status))) return true;
        const { total } = stage.sandbox.ledgerSummary();
        if (total === seen) await passMinute(stage);
        seen = total;
        return false;
      },
      // A request must not be on its way when the minute passes.
      { what: 'all sagas to be at rest', deadlineMs: 60_000, everyMs: 700 * Math.min(3, patience()) },
    );
    const sagas = await stage.atRest();
    expect(sagas.filter(({ status }) => status === 'completed')).toHaveLength(60);
    const { total, byStatus } = stage.sandbox.ledgerSummary();
    expect((byStatus['429'] ?? 0) / total).toBeLessThan(0.01);
    for (const { id } of sagas) {
      const kinds = (await listEvents(stage.db, id)).map(({ kind, attempt }) => `${kind} ${attempt ?? 0}`);
      // No attempt is used, nothing is written for the wait, and no create is announced before its turn.
      expect(kinds).toEqual(['saga_created 0', 'saga_started 1', 'step_recorded 1', 'step_completed 1', 'step_completed 1', 'step_completed 1']);
    }
    await stage.expectLawful();
  });

  test.for([
    ['that show at once', {}],
    ['whose tags come late', { tagLagMs: 450 }],
  ] as const)('reads together what many sagas wait for, droplets %s', async ([, faults]) => {
    // As quick as the machine is: a read that takes longer than an interval is shared by nobody.
    const slowness = Math.min(4, patience());
    const settings = { ...patient, WAIT_POLL_INTERVAL_MS: String(Math.round(400 * slowness)) };
    await using stage = await openFaultStage({ settings, sandbox: { activateAfterMs: 6_000 * slowness, faults } });
    const workers = [stage.fork(), stage.fork()];
    await Promise.all(workers.map((worker) => worker.ready()));
    await Promise.all(names(30).map((name) => stage.provision(name)));
    const sagas = await stage.atRest();
    expect(sagas.filter(({ status }) => status === 'completed')).toHaveLength(30);
    const { byRoute } = stage.sandbox.ledgerSummary();
    const notes = (await Promise.all(sagas.map(({ id }) => listEvents(stage.db, id)))).flat().map(({ detail }) => textOf(detail['note'], ''));
    const polls = notes.reduce((sum, note) => sum + Number(/ is active after (\d+) polls?$/.exec(note)?.[1] ?? 0), 0);
    // A list is for all who wait; a droplet whose tags come late is read by itself meanwhile.
    expect(polls).toBeGreaterThan(30 * 2);
    expect(byRoute['GET /v2/droplets?tag_name']).toBeLessThan(polls / 2);
    // On a slow machine some are made just after the list that their first poll shares, two or three for each droplet; without
    // sharing, each poll is a read.
    expect(byRoute['GET /v2/droplets/:id'], `${polls} polls`).toBeLessThan('tagLagMs' in faults ? Math.max(30 * 4, (polls * 2) / 3) : Math.max(30 * 2, polls / 2));
    for (const { context } of sagas) expect(context['public_ipv4']).toMatch(/^198\.18\./);
    await stage.expectLawful();
  });
});
