// What a person reads on a job of Bull Board: where its saga stands, and in its log what was decided, and why.
import { randomUUID } from 'node:crypto';
import { Job } from 'bullmq';
import { expect, test, vi } from 'vitest';
import { openDatabase } from '../../src/platform/db.ts';
import type { Io } from '../../src/platform/io.ts';
import type { ReadEvents } from '../../src/queues/dashboard.ts';
import { openQueueDashboard } from '../../src/queues/dashboard.ts';
import { jobIdOf, queueNames } from '../../src/queues/jobs.ts';
import { dropletLabels } from '../../src/inventory/droplet-of-saga.ts';
import { StepFailure, done, waiting } from '../../src/saga/step.ts';
import { listEvents } from '../../src/saga/events.ts';
import { catalogOf, fakeStep } from '../support/engine.ts';
import { startTcpProxy } from '../support/tcp-proxy.ts';
import { waitFor } from '../support/wait-for.ts';
import type { Fleet } from './stage.ts';
import { backends, openQueueStage } from './stage.ts';

const STAMP = String.raw`^\d{4}-\d\d-\d\dT\S+Z `;

/** The logs of jobs, as Bull Board shows them. */
function openBoard(fleet: Fleet, readEvents: ReadEvents = (sagaId, afterSeq) => listEvents(fleet.engine.db, sagaId, afterSeq)) {
  const dashboard = openQueueDashboard(fleet.connection, readEvents);
  return {
    logs: async (jobId: string, queueName: string = queueNames.steps) => {
      const adapter = dashboard.adapters.find((each) => each.getName() === queueName);
      return (await adapter?.getJobLogs(jobId)) ?? [`there is no queue ${queueName}`];
    },
    [Symbol.asyncDispose]: () => dashboard.close(),
  };
}

const textsOf = (lines: readonly string[]) => lines.map((line) => line.replace(/^\S+ /, ''));

test.each(backends)('each job tells its attempt, its droplet and what was decided, queues on %s', async (backend) => {
  const one = fakeStep('one', { execute: async () => Promise.resolve(done({ droplet_id: 4711 }, 'created droplet 4711')) });
  const two = fakeStep('two', {
    execute: async ({ saga }) => Promise.reject(new StepFailure({ code: 'http_503', message: 'POST /v2/x was answered 503: busy', retryable: saga.attempt === 0 })),
  });
  const { fake } = catalogOf(one, two);
  if (fake === undefined) throw new Error('no saga');
  await using fleet = await openQueueStage(backend, { fake: { ...fake, labels: dropletLabels } });
  await using board = openBoard(fleet);
  const first = await fleet.start();
  await fleet.work();
  expect(await fleet.settled([first])).toEqual(['compensated']);
  const read = async (revision: number, queue = fleet.forward) => {
    const id = jobIdOf({ sagaId: first.sagaId, revision });
    const job = await queue.getJob(id);
    // All of it stands in Postgres: the queue store keeps none of it a second time.
    expect(await queue.getJobLogs(id)).toEqual({ logs: [], count: 0 });
    return { data: job?.data, logs: await board.logs(id, queue.name) };
  };
  await waitFor(async () => (await fleet.backward.getCompletedCount()) === 2, { what: 'the last job to be completed' });
  expect(await read(0)).toEqual({
    data: { sagaId: first.sagaId, revision: 0, step: 'one', position: '1 of 2', attempt: 1 },
    logs: [expect.stringMatching(`${STAMP}saga started$`), expect.stringMatching(`${STAMP}one completed: created droplet 4711$`)],
  });
  expect(await read(2)).toMatchObject({
    data: { step: 'two', attempt: 1, dropletId: 4711 },
    logs: [expect.stringMatching(String.raw`${STAMP}two failed \(attempt 1\), retrying in .*: POST /v2/x was answered 503: busy$`)],
  });
  expect(await read(3)).toMatchObject({
    data: { step: 'two', position: '2 of 2', attempt: 2, dropletId: 4711 },
    logs: [expect.stringMatching(String.raw`${STAMP}two failed \(attempt 2\), rolling back: POST /v2/x was answered 503: busy$`)],
  });
  expect(await read(4, fleet.backward)).toMatchObject({ data: { step: 'two', attempt: 1 }, logs: [expect.stringMatching(`${STAMP}two undone$`)] });
});

test.each(backends)('a wait has a line for each reason, not for each poll, queues on %s', async (backend) => {
  const reasons = ['is new', 'is new', 'is new', 'is active, without an address', 'is active, without an address'];
  const one = fakeStep('one', {
    execute: async ({ memo: { polls = 0 } }) => Promise.resolve(reasons[polls] === undefined ? done({}, 'at last') : waiting(1, reasons[polls], { memo: { polls: polls + 1 } })),
  });
  const asked: string[] = [];
  const io: Io = (_kind, name, operation) => {
    asked.push(name);
    return operation();
  };
  await using fleet = await openQueueStage(backend, catalogOf(one), { io });
  await using board = openBoard(fleet);
  const first = await fleet.start();
  await fleet.work();
  expect(await fleet.settled([first])).toEqual(['completed']);
  const id = jobIdOf({ sagaId: first.sagaId, revision: 1 });
  await waitFor(async () => (await fleet.forward.getJob(id))?.isCompleted(), { what: 'the job to be completed' });
  const shown = await board.logs(id);
  expect(textsOf(shown)).toEqual([reasons[1], reasons[3], 'one completed: at last']);
  const stamps = shown.map((line) => Date.parse(line.split(' ')[0] ?? ''));
  expect(stamps).toEqual(stamps.toSorted((one, other) => one - other));
  expect((await fleet.forward.getJobLogs(id)).logs).toEqual(shown.slice(0, 2));
  expect(asked.filter((name) => name === 'log')).toHaveLength(2);
  // The first run wrote that the saga started, and went on as another job: its log goes on with it, its result says why.
  expect(textsOf(await board.logs(jobIdOf(first)))).toEqual(['saga started', 'one completed: at last']);
  expect((await fleet.forward.getJob(jobIdOf(first)))?.returnvalue).toBe(reasons[0]);
});

test('where the events cannot be read, what BullMQ keeps is shown, and that something is missing', async () => {
  const two = fakeStep('two', { execute: async () => Promise.resolve(waiting(600_000, 'is new')) });
  await using fleet = await openQueueStage('redis', catalogOf(fakeStep('one'), two));
  await using proxy = await startTcpProxy(fleet.engine.url);
  await using stack = new AsyncDisposableStack();
  const db = openDatabase(proxy.through(fleet.engine.url));
  // At once: postgres.js would wait for the connection that was cut.
  stack.defer(() => db.sql.end({ timeout: 0 }));
  await using board = openBoard(fleet, (sagaId, afterSeq) => listEvents(db, sagaId, afterSeq));
  const first = await fleet.start();
  await fleet.work();
  const id = jobIdOf({ sagaId: first.sagaId, revision: 2 });
  await waitFor(async () => (await fleet.forward.getJobLogs(id)).count === 1, { what: 'the wait to be told' });
  expect(textsOf(await board.logs(id))).toEqual(['is new']);
  expect(textsOf(await board.logs(jobIdOf(first)))).toEqual(['saga started', 'one completed']);
  proxy.down();
  const missing = expect.stringMatching(`${STAMP}the saga's events could not be read \\((CONNECTION_CLOSED|ECONNRESET)\\), so they are missing here$`);
  expect(await board.logs(id)).toEqual([expect.stringMatching(`${STAMP}is new$`), missing]);
});

test.each(backends)('a job of no saga has the lines that BullMQ keeps, and is asked for nowhere else, queues on %s', async (backend) => {
  await using fleet = await openQueueStage(backend, catalogOf(fakeStep('one')));
  const asked: string[] = [];
  await using board = openBoard(fleet, (sagaId, afterSeq) => {
    asked.push(sagaId);
    return listEvents(fleet.engine.db, sagaId, afterSeq);
  });
  const byHand = await fleet.forward.add('one', {}, { jobId: 'by-hand' });
  await byHand.log('a line without a time');
  expect(await board.logs('by-hand')).toEqual(['a line without a time']);
  expect(asked).toEqual([]);
  const gone = randomUUID();
  const ofNobody = await fleet.forward.add('one', {}, { jobId: `${gone}_3` });
  await ofNobody.log('2026-01-01T00:00:00.000Z its saga is gone');
  expect(await board.logs(`${gone}_3`)).toEqual(['2026-01-01T00:00:00.000Z its saga is gone']);
  expect(asked).toEqual([gone]);
});

test('a log that cannot be written, or is not answered, changes nothing', async () => {
  const reasons = ['is told to a store that is away', 'is told to a store that does not answer', 'is told'];
  const one = fakeStep('one', {
    execute: async (run, ledger) => {
      const { polls = 0 } = run.memo;
      const reason = reasons[polls];
      if (reason !== undefined) return Promise.resolve(waiting(1, reason, { memo: { polls: polls + 1 } }));
      ledger.make(run, 'one');
      return Promise.resolve(done());
    },
  });
  let logs = 0;
  const io: Io = async (_kind, name, operation) => {
    if (name !== 'log') return operation();
    logs += 1;
    if (logs === 1) throw new Error('the queue store is away');
    if (logs > 2) return operation();
    const unanswered = vi.spyOn(Job.prototype, 'log').mockReturnValueOnce(new Promise(() => undefined));
    const writing = operation();
    unanswered.mockRestore();
    return writing;
  };
  await using fleet = await openQueueStage('redis', catalogOf(one, fakeStep('two')), { io });
  await using board = openBoard(fleet);
  const first = await fleet.start();
  await fleet.work();
  expect(await fleet.settled([first])).toEqual(['completed']);
  await waitFor(() => logs === 3, { what: 'all three logs to be tried' });
  expect(await fleet.forward.getFailedCount()).toBe(0);
  expect(fleet.engine.ledger.historyOf(first.sagaId)).toEqual(['one', 'two']);
  expect(textsOf(await board.logs(jobIdOf({ sagaId: first.sagaId, revision: 1 })))).toEqual(['is told', 'one completed']);
});
