// A worker whose own machine is in trouble (out of file descriptors, of local ports; its name service silent) says so at
// level error, and spends no attempt of any saga: nobody else has heard of what it could not ask.

import { execFile } from 'node:child_process';
import { promisify } from 'node:util';
import { describe, expect, test } from 'vitest';
import { isDatabaseOutage } from '../../src/platform/db.ts';
import { DigitalOceanError } from '../../src/do/errors.ts';
import { toStepOutcome } from '../../src/steps/failures.ts';
import { openFaultStage } from '../support/fault-stage.ts';
import { queueStoreKinds } from '../support/topology.ts';
import { waitFor } from '../support/wait-for.ts';

const codes = ['EMFILE', 'ENFILE', 'ENOMEM', 'ENOBUFS', 'EADDRNOTAVAIL', 'EAI_AGAIN'];

describe.each(codes)('%s', (code) => {
  const error = Object.assign(new Error(`connect ${code}`), { code });

  test('of Postgres or the queues leaves the job for later', () => {
    expect(isDatabaseOutage(error)).toBe(true);
    expect(toStepOutcome(error, 'forward', {})).toBeNull();
  });

  test.each(['forward', 'backward'] as const)('of a request that was never sent waits, and alarms (%s)', (direction) => {
    const unsent = new DigitalOceanError(`GET /v2/droplets/1: no connection (${code})`, { kind: 'later', code, status: null, requestId: null, retryAfterMs: null, method: 'GET', path: '/v2/droplets/1' });
    expect(toStepOutcome(unsent, direction, {})).toMatchObject({ kind: 'waiting', alarm: true, reason: expect.stringContaining('trouble of its own machine') });
  });
});

test.for(queueStoreKinds())('a worker out of file descriptors spends no attempt, says so, and goes on once it has some (queues on %s)', async (queues) => {
  await using stage = await openFaultStage({ ...(queues === 'postgres' ? { redisUrl: null } : {}), settings: { STEP_ATTEMPTS: '1', DIGITALOCEAN_TIMEOUT_MS: '5000', WORKER_LOCK_MS: '6000', ADOPTION_GRACE_MS: '7000' } });
  const worker = stage.fork();
  await worker.ready();
  // Its connections stand, and so does the way of a create.
  await stage.until(await stage.provision('web-1'), 'completed', ({ status }) => status === 'completed');
  // What is open stays open; nothing else can be opened.
  await limit(worker.pid, 3);
  const ids = await Promise.all([2, 3, 4].map((at) => stage.provision(`web-${at}`)));
  const alarms = () => worker.log().filter(({ level, ...line }) => (level === 'error' || level === 'fatal') && JSON.stringify(line).includes('EMFILE'));
  await waitFor(() => alarms().length > 0, { what: 'the worker to say that it is out of file descriptors' });
  await limit(worker.pid, 10_000);
  expect((await stage.atRest()).map(({ status, error }) => error?.message ?? status)).toEqual(['completed', ...ids.map(() => 'completed')]);
  await stage.expectLawful();
});

async function limit(pid: number, files: number): Promise<void> {
  await promisify(execFile)('prlimit', ['--pid', String(pid), `--nofile=${files}:10000`]);
}
