// An app for the crash matrix: a saga whose steps bring effects about at a foreign service, with `once`. Its requests go through
// the worker's I/O, so that they are boundaries too.
import { z } from 'zod';
import type { App } from '../../src/saga/app.ts';
import { defineApp, defineSaga, defineStep } from '../../src/saga/app.ts';
import { StepFailure, done } from '../../src/saga/step.ts';

type Ask = (method: 'POST' | 'GET' | 'DELETE', mark: string) => Promise<number | null>;

// Longer than a request may take, and than a worker may be frozen here.
const waits = { settleMs: 1_500, pollMs: 150 };

const order = (name: 'invoice' | 'parcel') =>
  defineStep({
    name: `order_${name}`,
    async execute({ once }, { ask }: { ask: Ask }) {
      const id = await once(name, { send: async (mark) => ask('POST', mark), find: async (mark) => ask('GET', mark), ...waits });
      return done({ [name]: id });
    },
    async compensate({ effects, undo }, { ask }) {
      const { mark } = effects(name);
      await undo(name, { undo: async () => void (await ask('DELETE', mark)), find: async () => ask('GET', mark), ...waits });
      return done();
    },
  });

const finish = defineStep({
  name: 'finish',
  needs: z.object({ fails: z.boolean() }),
  async execute({ context }) {
    if (context.fails) throw new StepFailure({ code: 'asked_to_fail', message: 'asked to fail', retryable: false });
    return Promise.resolve(done());
  },
  compensate: async () => Promise.resolve(done()),
});

export const placeOrders = defineSaga({ name: 'place_orders', input: z.strictObject({ fails: z.boolean() }), steps: [order('invoice'), order('parcel'), finish] });

/** @param url of the service */
export function ordersAppAt(url: string): App {
  return defineApp({
    sagas: [placeOrders],
    deps: ({ worker }) => ({
      ask: async (method: string, mark: string) =>
        worker.io('http', `${method} /orders`, async () => {
          const response = await fetch(`${url}/orders/${mark}`, { method, signal: AbortSignal.timeout(700) });
          return z.number().nullable().parse(await response.json());
        }),
    }),
  });
}
