// DigitalOcean away, or refusing our token, for longer than any number of attempts could bear.

import { describe, expect, test } from 'vitest';
import { queueNames } from '../../src/queues/jobs.ts';
import { openFaultStage } from '../support/fault-stage.ts';
import { waitFor } from '../support/wait-for.ts';

const ERROR = 'error';

describe.concurrent('DigitalOcean', () => {
  test.for([
    ['answers 503', { down: true }, 'DigitalOcean fails at this request'],
    ['cuts every connection', { rules: [{ match: {}, effect: { reset: true as const } }] }, 'DigitalOcean is out of reach'],
    ['never answers', { rules: [{ match: {}, effect: { hang: true as const } }] }, 'DigitalOcean is out of reach'],
  ] as const)('%s during a rollback: it is patient, says so with the age of the saga, and ends when it is back', async ([, outage, complaint]) => {
    await using stage = await openFaultStage({
      settings: { STEP_ATTEMPTS: '2', COMPENSATION_ATTEMPTS: '2', STEP_BACKOFF_MS: '50' },
      sandbox: { faults: { neverActive: true } },
    });
    const { log } = await stage.work();
    const sagaId = await stage.provision('web-1');
    await stage.until(sagaId, 'waiting', ({ cursor }) => cursor === 1);
    stage.sandbox.setFaults({ ...outage, rules: 'rules' in outage ? [...outage.rules] : [] });
    await stage.client.cancel(sagaId, 'test');
    const complaints = () => log.filter(({ msg, level, sagaId: of }) => msg === 'not yet' && level === ERROR && of === sagaId);
    // More of them than there are attempts.
    await waitFor(() => complaints().length >= 3, { what: 'three complaints', deadlineMs: 30_000 });
    const ages = complaints().map((line) => Number(line['sagaAgeMs']));
    expect(ages.toSorted((a, b) => a - b)).toEqual(ages);
    expect(ages.at(-1)).toBeGreaterThan(5_000);
    expect(complaints()[0]?.['reason']).toContain(complaint);
    const before = await stage.client.get(sagaId);
    expect(before).toMatchObject({ status: 'compensating', attempt: 0 });
    stage.sandbox.setFaults({ down: false, rules: [] });
    const [saga] = await stage.atRest();
    expect(saga?.status).toBe('compensated');
    await stage.expectLawful();
  });

  test('refuses the token: no saga is rolled back, no attempt is used, and the log says so as an error', async () => {
    await using stage = await openFaultStage({
      settings: { STEP_ATTEMPTS: '2', COMPENSATION_ATTEMPTS: '2', WAIT_MAX_POLLS: '10000' },
      // However slow the machine, they wait until the token is refused.
      sandbox: { activateAfterMs: 0, faults: { neverActive: true } },
    });
    const { log } = await stage.work();
    const early = await Promise.all([1, 2, 3].map((at) => stage.provision(`early-${at}`)));
    for (const id of early) await stage.until(id, 'waiting', ({ cursor }) => cursor === 1);
    const cancelled = early[0] ?? '';
    stage.sandbox.setFaults({ unauthorized: true });
    await stage.client.cancel(cancelled, 'test');
    const late = await Promise.all([1, 2, 3].map((at) => stage.provision(`late-${at}`)));
    const refusals = (id: string) => log.filter(({ msg, level, sagaId }) => msg === 'not yet' && level === ERROR && sagaId === id);
    // The fleet holds for 15 s between two looks. An operator who promotes the jobs sees that no number of looks tires it.
    const queues = [stage.queue(queueNames.steps), stage.queue(queueNames.compensations)];
    await waitFor(
      async () => {
        for (const queue of queues) for (const job of await queue.getDelayed()) await job.promote().catch(() => undefined);
        return [...early, ...late].every((id) => refusals(id).length >= 4);
      },
      { what: 'four refusals of each saga' },
    );
    expect(refusals(late[0] ?? '')[0]?.['reason']).toContain('Check DIGITALOCEAN_TOKEN');
    for (const id of [...early, ...late]) expect((await stage.client.get(id))?.status).toBe(id === cancelled ? 'compensating' : 'running');
    expect(JSON.stringify(log)).not.toContain('Bearer');
    stage.sandbox.setFaults({ unauthorized: false, neverActive: false });
    for (const queue of queues) for (const job of await queue.getDelayed()) await job.promote().catch(() => undefined);
    const sagas = await stage.atRest();
    expect(sagas.map(({ id, status }) => [id, status])).toEqual(expect.arrayContaining([...early, ...late].map((id) => [id, id === cancelled ? 'compensated' : 'completed'])));
    await stage.expectLawful();
  });
});
