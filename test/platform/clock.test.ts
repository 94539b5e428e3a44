import { afterEach, beforeEach, describe, expect, inject, onTestFinished, test, vi } from 'vitest';
import { createDatabaseClock, keepDatabaseTime } from '../../src/platform/clock.ts';
import { openDatabase } from '../../src/platform/db.ts';
import { HOUR_MS } from '../support/shifted-clock.ts';
import { startTcpProxy } from '../support/tcp-proxy.ts';
import { waitFor } from '../support/wait-for.ts';

const realNow = Date.now.bind(Date);
let machineOffMs = 0;
const machineNow = () => realNow() + machineOffMs;

const offMs = () => Math.abs(Date.now() - realNow());

beforeEach(() => {
  machineOffMs = 0;
  Date.now = machineNow;
});

afterEach(() => {
  Date.now = realNow;
});

async function open(url = inject('services').databaseUrl, everyMs = 60_000) {
  const db = openDatabase(url, { max: 1 });
  onTestFinished(db.close);
  const warn = vi.fn();
  const watch = await keepDatabaseTime({ db, everyMs, log: { warn, info: vi.fn(), debug: vi.fn() }, tickMs: 10 });
  onTestFinished(watch.close);
  return { watch, warn };
}

describe('keepDatabaseTime', () => {
  test.each([HOUR_MS, -HOUR_MS, 5_000])('corrects a clock that is off by %i ms, says so, and leaves it as it was when closed', async (off) => {
    machineOffMs = off;
    const { watch, warn } = await open();
    expect(offMs()).toBeLessThan(1_000);
    expect(warn).toHaveBeenCalledWith(expect.anything(), expect.stringContaining(off > 0 ? 'ahead of the database' : 'behind the database'));
    watch.close();
    expect(Date.now).toBe(machineNow);
  });

  test('leaves a clock alone that is right', async () => {
    const { warn } = await open();
    await new Promise((resolve) => void setTimeout(resolve, 50));
    expect(Date.now).toBe(machineNow);
    expect(warn).not.toHaveBeenCalled();
  });

  test('corrects a clock that jumps, and believes it again once it is right', async () => {
    await open();
    for (const off of [HOUR_MS, -HOUR_MS, 0]) {
      machineOffMs = off;
      await waitFor(() => offMs() < 1_000 && (off === 0) === (Date.now === machineNow), { what: 'the correction', everyMs: 5 });
    }
    expect(offMs()).toBeLessThan(10);
  });

  test('goes by a clock that never jumps while the database does not say its time', async () => {
    await using proxy = await startTcpProxy(inject('services').databaseUrl);
    await open(proxy.through(inject('services').databaseUrl), 20);
    proxy.down();
    machineOffMs = HOUR_MS;
    await waitFor(() => offMs() < 1_000, { what: 'the correction' });
    proxy.up();
    machineOffMs = 0;
    await waitFor(() => Date.now === machineNow, { what: 'the machine to be believed again' });
    expect(offMs()).toBeLessThan(10);
  });
});

test('a database clock tells the database\'s time, and leaves that of the process alone', async () => {
  const db = openDatabase(inject('services').databaseUrl, { max: 1 });
  onTestFinished(db.close);
  machineOffMs = HOUR_MS;
  const clock = createDatabaseClock(db);
  for (const _ of [1, 2]) expect(Math.abs((await clock()) - realNow())).toBeLessThan(1_000);
  expect(Date.now).toBe(machineNow);
});
