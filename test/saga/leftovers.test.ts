// What a rollback left is said of every saga whose steps left it, whatever its own words are.
import { randomUUID } from 'node:crypto';
import { describe, expect, test } from 'vitest';
import { z } from 'zod';
import { formatSaga, formatSagas } from '../../src/cli/saga-text.ts';
import type { JsonObject } from '../../src/platform/json.ts';
import { emptyKeyRing } from '../../src/platform/key-ring.ts';
import type { Catalog } from '../../src/saga/definition.ts';
import { rerunSaga } from '../../src/saga/rerun.ts';
import type { SagaWords, StepWords } from '../../src/saga/saga-words.ts';
import { sagaOutcomes } from '../../src/saga/saga-outcomes.ts';
import { done } from '../../src/saga/step.ts';
import { loadSaga } from '../../src/saga/store.ts';
import type { Step } from '../../src/saga/step.ts';
import { describeEnd, leftoversOf, surfaceOf } from '../../src/saga/words.ts';
import { createDroplet } from '../../src/steps/create-droplet.ts';
import { catalog } from '../../src/steps/catalog.ts';
import { destroyDroplet } from '../../src/steps/destroy-droplet.ts';
import { useSharedDatabase } from '../support/shared-database.ts';

const database = useSharedDatabase(2);

const nothingLeft = () => 'Rolled back. Nothing is left.';

const nothing = async () => Promise.resolve(done());

/** An app with one saga that has these steps. */
function appOf(steps: readonly Step<never>[], rolledBack?: SagaWords['rolledBack']): Catalog<never> {
  return { onboard: { input: z.record(z.string(), z.json()), steps, ...(rolledBack === undefined ? {} : { words: { rolledBack } }) } };
}

function leaving(words?: Partial<StepWords>): Step<never> {
  return { name: 'order', remains: z.object({ unproven_orders: z.array(z.string()).optional(), orders: z.int().optional() }), ...(words === undefined ? {} : { words: { doing: 'ordering', ...words } }), execute: nothing, compensate: nothing };
}

/** A rolled-back saga in the database. */
async function rolledBack(context: JsonObject, steps: readonly string[], name = 'onboard') {
  const db = database();
  const id = randomUUID();
  await db.sql`insert into arcadia.sagas (id, saga8, name, status, steps, input, context, finished_at, wake_at) values (${id}, ${id.slice(0, 8)}, ${name}, 'compensated', ${[...steps]}, '{"droplet_id": 7}', ${JSON.stringify(context)}::text::jsonb, now(), null)`;
  await db.sql`insert into arcadia.saga_events (saga_id, seq, kind, detail) values (${id}, 1, 'compensation_completed', '{"status":"compensated"}')`;
  const loaded = await loadSaga(db, id);
  if (loaded === null) throw new Error('the saga is not there');
  return loaded.saga;
}

const describeIn = (app: Catalog<never>, saga: Awaited<ReturnType<typeof rolledBack>>) => describeEnd(surfaceOf(app).words(saga), saga);

describe('a droplet that a rollback could not prove to be its own', () => {
  const left = { unproven_droplets: [512] };

  test.each([['says that nothing is left', nothingLeft], ['says nothing', undefined]])('is said of an own saga that %s, and its rerun is refused until it is confirmed', async (_what, words) => {
    const app = appOf([createDroplet], words);
    const saga = await rolledBack(left, ['create_droplet']);
    expect(describeIn(app, saga)).toMatchObject({ text: expect.stringMatching(/^Rolled back, but check droplet 512/), label: 'check its droplet', tone: 'attention' });
    const rerun = async (despiteLeftovers?: boolean) => rerunSaga(database(), app, { sagaId: saga.id, despiteLeftovers }, 0, emptyKeyRing);
    expect(await rerun()).toMatchObject({ kind: 'refused', leftovers: expect.stringContaining('droplet 512') });
    expect(await rerun(true)).toMatchObject({ kind: 'accepted' });
    expect(formatSaga(saga, [], surfaceOf(app), { hold: undefined, lease: undefined, now: new Date() })).toMatch(/^to check +Rolled back, but check droplet 512/m);
    expect(formatSagas([saga], surfaceOf(app), { leases: new Map(), holds: new Map(), lastAnswers: new Map(), now: new Date(), maxWidth: null })).toContain('check its droplet');
  });

  test('is said, and told to callers, of a saga that this process does not know, if it knows the step', async () => {
    const app = appOf([createDroplet]);
    const saga = await rolledBack(left, ['create_droplet', 'of_another_version'], 'of_another_app');
    expect(describeIn(app, saga)).toMatchObject({ tone: 'attention', text: expect.stringContaining('droplet 512') });
    expect((await sagaOutcomes(app).read(database(), [`${saga.id}/1`])).get(`${saga.id}/1`)?.data.outputs).toEqual(left);
  });

  test('is added to what the words of the saga ask to check, and makes its rerun unsafe', async () => {
    const app = appOf([createDroplet], () => ({ text: 'Check the ledger.', label: 'check', tone: 'attention', rerunIsSafe: true }));
    expect(describeIn(app, await rolledBack(left, ['create_droplet']))).toEqual({ text: expect.stringMatching(/^Check the ledger\. Also check droplet 512/), label: 'check', tone: 'attention' });
    expect(describeIn(app, await rolledBack({}, ['create_droplet']))).toMatchObject({ text: 'Check the ledger.', rerunIsSafe: true });
  });

  test('is not said where none is left', async () => {
    for (const context of [{}, { unproven_droplets: [] }]) {
      expect(describeIn(appOf([createDroplet], nothingLeft), await rolledBack(context, ['create_droplet']))).toMatchObject({ text: 'Rolled back. Nothing is left.', tone: 'plain' });
    }
  });
});

test('a droplet that an own saga did not destroy is said, and may be destroyed again without a word', async () => {
  const app = appOf([destroyDroplet], nothingLeft);
  expect(describeIn(app, await rolledBack({ destroy_result: 'not_destroyed' }, ['destroy_droplet']))).toEqual({ text: 'Droplet 7 was not destroyed.', label: 'not destroyed', tone: 'attention', rerunIsSafe: true });
  const destroyed = await rolledBack({ destroy_result: 'destroyed', still_billed: [{ kind: 'volume', id: 'v1', name: 'data', usd_per_month: 10 }] }, ['destroy_droplet']);
  expect(describeIn(app, destroyed)).toMatchObject({ text: 'Droplet 7 was destroyed, and cannot be restored. Still billed: volume data (10.00 USD a month).', label: 'destroyed', tone: 'attention' });
  // The words of destroy_droplet itself say why.
  expect(describeEnd(surfaceOf(catalog).words({ ...destroyed, name: 'destroy_droplet' }), destroyed)).toMatchObject({ text: 'The cancel came too late: droplet 7 is destroyed. Still billed: volume data (10.00 USD a month).', tone: 'plain' });
  const gone = await rolledBack({ destroy_result: 'already_gone', still_billed: null }, ['destroy_droplet']);
  expect([describeIn(app, gone).tone, leftoversOf(surfaceOf(app).words(gone), gone)]).toEqual(['plain', null]);
});

describe('a step of one\'s own', () => {
  const keys = { unproven_orders: ['A1'], orders: 0 };

  test('has the filled keys named if it has no words for them', async () => {
    const saga = await rolledBack(keys, ['order']);
    const text = 'Rolled back, but check what step order left: unproven_orders.';
    expect(describeIn(appOf([leaving()], nothingLeft), saga)).toEqual({ text, label: 'check what is left', tone: 'attention' });
    const own = { text: 'Check order A1.', label: 'check', tone: 'attention', rerunIsSafe: true } as const;
    expect(describeIn(appOf([leaving()], () => own), saga)).toEqual(own);
  });

  test('says it in its own words, or that there is nothing to check', async () => {
    const saga = await rolledBack(keys, ['order']);
    const end = (remains: NonNullable<StepWords['remains']>) => describeIn(appOf([leaving({ remains })], nothingLeft), saga);
    expect(end(({ context }) => `Check order ${JSON.stringify(context['unproven_orders'])}.`)).toEqual({ text: 'Check order ["A1"].', label: 'check what is left', tone: 'attention' });
    expect(end(() => null)).toMatchObject({ tone: 'plain' });
    expect(end(() => {
      throw new TypeError('no orders');
    })).toMatchObject({ text: expect.stringContaining('left: unproven_orders.'), tone: 'attention' });
  });
});
