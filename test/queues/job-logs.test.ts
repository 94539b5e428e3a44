// What a person reads on a job: where its saga stands, and in its log what was decided, and why.
import { expect, test } from 'vitest';
import type { Io } from '../../src/io.ts';
import { jobIdOf } from '../../src/queues/jobs.ts';
import { StepFailure, done, waiting } from '../../src/saga/step.ts';
import { catalogOf, fakeStep } from '../support/engine.ts';
import { waitFor } from '../support/wait-for.ts';
import { backends, openFleet } from './support.ts';

const STAMP = String.raw`^\d{4}-\d\d-\d\dT\S+Z `;

test.each(backends)('each job tells its attempt, its droplet and what was decided, queues on %s', async (backend) => {
  const one = fakeStep('one', { execute: async () => Promise.resolve(done({ droplet_id: 4711 }, 'created droplet 4711')) });
  const two = fakeStep('two', {
    execute: async ({ saga }) => Promise.reject(new StepFailure({ code: 'http_503', message: 'POST /v2/x was answered 503: busy', retryable: saga.attempt === 0 })),
  });
  await using fleet = await openFleet(backend, catalogOf(one, two));
  const first = await fleet.start();
  await fleet.work();
  expect(await fleet.settled([first])).toEqual(['compensated']);
  const read = async (revision: number, queue = fleet.forward) => {
    const job = await queue.getJob(jobIdOf({ sagaId: first.sagaId, revision }));
    const { logs } = await queue.getJobLogs(jobIdOf({ sagaId: first.sagaId, revision }));
    return { data: job?.data, logs };
  };
  await waitFor(async () => (await fleet.backward.getCompletedCount()) === 2, { what: 'the last job to be completed' });
  expect(await read(0)).toEqual({
    data: { sagaId: first.sagaId, revision: 0, step: 'one', position: '1 of 2', attempt: 1 },
    logs: [expect.stringMatching(`${STAMP}one completed: created droplet 4711$`)],
  });
  expect(await read(2)).toMatchObject({
    data: { step: 'two', attempt: 1, dropletId: 4711 },
    logs: [expect.stringMatching(String.raw`${STAMP}two failed \(attempt 1\), again in .*: POST /v2/x was answered 503: busy$`)],
  });
  expect(await read(3)).toMatchObject({
    data: { step: 'two', position: '2 of 2', attempt: 2, dropletId: 4711 },
    logs: [expect.stringMatching(String.raw`${STAMP}two failed \(attempt 2\), rolling back: POST /v2/x was answered 503: busy$`)],
  });
  expect(await read(4, fleet.backward)).toMatchObject({ data: { step: 'two', attempt: 1 }, logs: [expect.stringMatching(`${STAMP}two undone$`)] });
});

test('a wait has a line for each reason, not for each poll', async () => {
  const reasons = ['is new', 'is new', 'is new', 'is active, without an address', 'is active, without an address'];
  const one = fakeStep('one', {
    execute: async ({ memo: { polls = 0 } }) => Promise.resolve(reasons[polls] === undefined ? done({}, 'at last') : waiting(1, reasons[polls], { memo: { polls: polls + 1 } })),
  });
  const asked: string[] = [];
  const io: Io = (_kind, name, operation) => {
    asked.push(name);
    return operation();
  };
  await using fleet = await openFleet('redis', catalogOf(one), { io });
  const first = await fleet.start();
  await fleet.work();
  expect(await fleet.settled([first])).toEqual(['completed']);
  const id = jobIdOf({ sagaId: first.sagaId, revision: 1 });
  await waitFor(async () => (await fleet.forward.getJob(id))?.isCompleted(), { what: 'the job to be completed' });
  const { logs } = await fleet.forward.getJobLogs(id);
  expect(logs.map((line) => line.replace(/^\S+ /, ''))).toEqual([reasons[1], reasons[3], 'one completed: at last']);
  // The first run wrote that the saga started, and went on as another job.
  expect(asked.filter((name) => name === 'log')).toHaveLength(4);
});

test('a log that cannot be written, or is not answered, changes nothing', async () => {
  let logs = 0;
  const io: Io = async (_kind, name, operation) => {
    if (name !== 'log') return operation();
    logs += 1;
    if (logs === 1) throw new Error('the queue store is away');
    // Written into nothing: the job is gone.
    await fleet.forward.remove(jobIdOf({ sagaId: first.sagaId, revision: 0 })).catch(() => undefined);
    return operation();
  };
  await using fleet = await openFleet('redis', catalogOf(fakeStep('one'), fakeStep('two')), { io });
  const first = await fleet.start();
  await fleet.work();
  expect(await fleet.settled([first])).toEqual(['completed']);
  await waitFor(() => logs >= 2, { what: 'both logs to be tried' });
  expect(await fleet.forward.getFailedCount()).toBe(0);
  expect(fleet.engine.ledger.historyOf(first.sagaId)).toEqual(['one', 'two']);
});
