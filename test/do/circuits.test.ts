// Circuits on Postgres: who may probe after a harmless request has shown that nothing speaks against it.
import { setTimeout as sleep } from 'node:timers/promises';
import { expect, test } from 'vitest';
import { createCircuitStore } from '../../src/do/circuit-store.ts';
import type { Asked, Ending } from '../../src/do/circuit-rules.ts';
import { createCircuits } from '../../src/do/circuits.ts';
import { silentLog } from '../../src/platform/log.ts';
import { useSharedDatabase } from '../support/shared-database.ts';
import { errorOf } from './support.ts';

const database = useSharedDatabase(4);
let scopes = 0;

const FIRST_MS = 50;
const MAX_MS = 600_000;
const AGAIN_MS = 20_000;

const create: Asked = { method: 'POST', path: '/v2/droplets', fields: [], subject: 'web-1' };
const forbidden: Ending = { outcome: 'unauthorized', status: 403, message: 'You are not authorized' };
const full: Ending = { outcome: 'rejected', status: 422, message: 'creating this droplet will exceed your droplet limit' };
const invalid: Ending = { outcome: 'rejected', status: 422, message: 'name is missing' };
const none = async (): Promise<Ending> => Promise.reject(new Error('nobody asks for the account'));

/** The circuits of workers of one fleet. */
function fleet(delays = { firstMs: FIRST_MS, maxMs: MAX_MS }) {
  const scope = `circuits-${(scopes += 1)}`;
  return {
    worker: (waitsForRoom = false) => createCircuits({ store: createCircuitStore(database(), scope, delays), leaseMs: 10_000, holdMs: 60_000, waitsForRoom, log: silentLog }),
    row: async () => {
      const [row] = await database().sql<{ delayMs: number; dueInMs: number; isOpen: boolean }[]>`
        select delay_ms, extract(epoch from next_probe_at - clock_timestamp())::float8 * 1000 as due_in_ms, closed_at is null as is_open from arcadia.circuits where scope = ${scope}`;
      if (row === undefined) throw new Error('no circuit');
      return row;
    },
  };
}

/** Opens the circuit of creates, and lets a harmless request show that nothing speaks against them any more. */
async function invited() {
  const { worker, row } = fleet();
  const circuits = worker();
  await circuits.settle(create, null, forbidden, none);
  await sleep(2 * FIRST_MS);
  await circuits.refresh();
  const [due] = await circuits.takeDue();
  expect(await circuits.maySagaProbe(due?.id ?? '', () => Promise.resolve(invalid))).toBe(true);
  return { circuits, worker, row };
}

test('an invited saga that has to wait for the request budget stays invited, and nothing probes meanwhile', async () => {
  const { circuits, worker, row } = await invited();
  const passage = await circuits.admit(create);
  await circuits.giveBack(passage, AGAIN_MS);
  expect((await row()).dueInMs).toBeGreaterThan(AGAIN_MS);
  expect(await circuits.takeDue()).toEqual([]);
  // When there is room, it may be another worker that has it.
  const other = worker();
  await other.refresh();
  const again = await other.admit(create);
  expect(again).toMatchObject({ isInvited: true });
  await other.settle(create, again, { outcome: 'done', status: 202, message: '' }, none);
  expect((await row()).isOpen).toBe(false);
});

test('only one of those that come is invited', async () => {
  const { circuits } = await invited();
  const results = await Promise.allSettled([circuits.admit(create), circuits.admit(create), circuits.admit(create)]);
  expect(results.filter(({ status }) => status === 'fulfilled')).toHaveLength(1);
});

test('where nobody comes for the invitation, the next probe waits for the delay, which grows', async () => {
  const { row, worker } = fleet({ firstMs: FIRST_MS, maxMs: MAX_MS });
  const circuits = worker();
  await circuits.settle(create, null, forbidden, none);
  const probe = async () => {
    await sleep(Math.max(0, (await row()).dueInMs) + 20);
    await database().sql`update arcadia.circuits set waking_until = '-infinity'`;
    await circuits.refresh();
    const [due] = await circuits.takeDue();
    expect(await circuits.maySagaProbe(due?.id ?? '', () => Promise.resolve(invalid))).toBe(true);
    return row();
  };
  const [first, second, third] = [await probe(), await probe(), await probe()];
  expect([first.delayMs, second.delayMs, third.delayMs]).toEqual([FIRST_MS, 2 * FIRST_MS, 4 * FIRST_MS]);
  expect(third.dueInMs).toBeGreaterThan(2 * FIRST_MS);
});

test('a saga that a full account holds waits on, also where a worker that would fail has it', async () => {
  const { worker, row } = fleet();
  const [waits, fails] = [worker(true), worker(false)];
  expect(await waits.settle(create, null, full, none)).toMatchObject({ kind: 'throttled', hold: { isAccountFull: true } });
  await sleep(2 * FIRST_MS);
  await fails.refresh();
  const [due] = await fails.takeDue();
  expect(await fails.maySagaProbe(due?.id ?? '', () => Promise.resolve({ outcome: 'done', status: 200, message: '' }))).toBe(true);
  const passage = await fails.admit(create);
  expect(await fails.settle(create, passage, full, none)).toMatchObject({ kind: 'throttled', hold: { isAccountFull: true } });
  expect((await row()).isOpen).toBe(true);
  // Nobody goes on without a look, as after a create that succeeded.
  await fails.refresh();
  expect((await errorOf(fails.admit(create))).code).toBe('circuit_open');
});
