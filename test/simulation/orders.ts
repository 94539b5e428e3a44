// A foreign service that is no cloud, and a saga that brings effects about there with `once`: orders are placed, found by the
// mark that they carry, and cancelled. Answers get lost, come late, and the list lags; all that as the schedule wants it.
import { z } from 'zod';
import { DigitalOceanError } from '../../src/do/errors.ts';
import type { Catalog } from '../../src/saga/definition.ts';
import type { Saga } from '../../src/saga/saga.ts';
import type { Step, StepRun } from '../../src/saga/step.ts';
import { StepFailure, done } from '../../src/saga/step.ts';
import type { Call, Mechanism } from './violation.ts';
import { Violation } from './violation.ts';
import { settings } from './settings.ts';

type Order = { id: number; readonly mark: string; readonly listedAt: number; cancelledAt: number | null; readonly lingersMs: number };

export type Orders = Readonly<{
  catalog: Catalog<unknown>;
  /** @throws {Violation} when the saga's orders are not what its end says */
  checkAtRest(saga: Saga): void;
}>;

// As for droplets: in all less than the settle time, together with what a request may take.
const LAGS_MS = [0, 0, 0, 2_000, 9_000, 24_000];
const LAGS_BEYOND_LIMITS_MS = [...LAGS_MS, 70_000, 150_000];

// One is recorded at once, the other with the end of its step.
const EFFECTS = ['invoice', 'parcel'] as const;

export function createOrders(options: {
  call: Call;
  nowMs: () => number;
  pick: (choices: number) => number;
  without: Mechanism | null;
  isBeyondLimits: boolean;
  count: (what: string) => void;
}): Orders {
  const { call, nowMs, pick, without, isBeyondLimits, count } = options;
  const orders: Order[] = [];
  const lags = isBeyondLimits ? LAGS_BEYOND_LIMITS_MS : LAGS_MS;
  const lag = (what: string) => {
    const ms = lags[pick(lags.length)] ?? 0;
    if (ms > 0) count(what);
    return ms;
  };
  const liveOf = (mark: string) => orders.filter((order) => order.mark === mark && order.cancelledAt === null);

  const place = (mark: string): number => {
    const [live] = liveOf(mark);
    if (live !== undefined && !isBeyondLimits) throw new Violation(`${mark} is ordered a second time, beside order ${live.id}`);
    if (live !== undefined) count('ordered twice, beyond the limits');
    const order: Order = { id: orders.length + 1, mark, listedAt: nowMs() + lag('list of orders lags'), cancelledAt: null, lingersMs: lag('list shows cancelled orders') };
    orders.push(order);
    return order.id;
  };
  const find = (mark: string): number | null => {
    if (without === 'adoption by tag') return null;
    const now = nowMs();
    const shown = orders.find((order) => order.mark === mark && order.listedAt <= now && (order.cancelledAt === null || now < order.cancelledAt + order.lingersMs));
    return shown?.id ?? null;
  };
  const cancel = (id: number): void => {
    const order = orders[id - 1];
    if (order === undefined) throw new Violation(`order ${id} was never placed, and is cancelled`);
    order.cancelledAt ??= nowMs();
  };

  const look = (run: StepRun) => async (mark: string) => {
    const found = await call('http', 'GET /orders', () => find(mark), () => mark);
    if (found !== null && run.direction === 'forward') count('order found');
    return found;
  };
  const settleMs = without === 'settle window' ? 0 : settings.adoptionGraceMs;

  const stepOf = (name: (typeof EFFECTS)[number], recordsWithStep: boolean): Step<unknown> => {
    const keys = recordsWithStep ? { value: name } : {};
    return {
      name: `order_${name}`,
      execute: async (run) => {
        const id = await run.once(name, {
          send: async (mark) => {
            try {
              return await call('http', 'POST /orders', () => place(mark), () => mark);
            } catch (error) {
              // What this world's network says, in the words of a client that knows what a failure means.
              if (!(error instanceof DigitalOceanError) || error.kind === 'ambiguous') throw error;
              throw new StepFailure({ code: 'refused', message: error.message, retryable: true, sent: false });
            }
          },
          find: look(run),
          settleMs,
          pollMs: settings.pollIntervalMs,
          keys,
          ...(recordsWithStep ? { recordsWithStep } : {}),
        });
        return done({ [name]: id });
      },
      compensate: async (run) => {
        await run.undo<number>(name, {
          keys,
          undo: async (id) => call('http', 'PUT /orders/', () => cancel(id), () => String(id)),
          find: look(run),
          settleMs,
          pollMs: settings.pollIntervalMs,
        });
        return done();
      },
    };
  };

  const idle: Step<unknown> = { name: 'do_nothing', execute: async () => Promise.resolve(done()), compensate: async () => Promise.resolve(done()) };
  const steps = [stepOf('invoice', false), stepOf('parcel', true), idle];
  return {
    catalog: { place_orders: { input: z.object({}), steps }, place_orders_in_turn: { input: z.object({}), steps, resource: () => 'shop' } },
    checkAtRest: (saga) => {
      for (const name of EFFECTS) {
        const live = liveOf(`${saga.id}-order_${name}-${name}`).map(({ id }) => id);
        if (saga.status === 'completed') {
          const recorded = Number(saga.context[name]);
          if (!live.includes(recorded)) throw new Violation(`${saga.id} completed with ${name} ${recorded}, and there is none`);
          if (live.length > 1 && !isBeyondLimits) throw new Violation(`${saga.id} completed, and has ${live.length} of ${name}`);
        }
        if (saga.status === 'compensated' && live.length > 0 && !isBeyondLimits) throw new Violation(`${saga.id} is compensated, and left ${name} ${live.join(', ')}`);
      }
    },
  };
}
