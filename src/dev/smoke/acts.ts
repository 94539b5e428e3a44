// The acts of the smoke test: each tries something on the real API with one droplet and checks the result.
import { setTimeout as delay } from 'node:timers/promises';
import { textOf } from '../../platform/json.ts';
import { sagaIdTag } from '../../steps/ownership.ts';
import type { Saga } from '../../saga/saga.ts';
import { isAtRest } from '../../saga/saga.ts';
import { requester } from '../../cli/requester.ts';
import { LONGEST_LIFE_S } from './cost.ts';
import type { Stage } from './stage.ts';
import { follow, keyOf } from './stage.ts';

export type ActName = 'provision' | 'cancel' | 'killed-worker' | 'lost-answer';

/** Describes each act. */
export const actTexts: Readonly<Record<ActName, string>> = {
  provision: 'provision a droplet and destroy it',
  cancel: 'cancel a provision while it waits for the droplet',
  'killed-worker': 'kill the worker between the POST and its save; another one adopts the droplet; destroy it',
  'lost-answer': 'lose the answer to the POST; the worker finds the droplet again; destroy it',
};

export type ActResult = Readonly<{ act: string; ok: boolean; detail: string }>;

/** Returns the acts of a run, in order. */
export function actsOf(hard: boolean): readonly ActName[] {
  return hard ? ['provision', 'cancel', 'killed-worker', 'lost-answer'] : ['provision'];
}

type Play = (stage: Stage, act: Act) => Promise<string>;
type Act = Readonly<{ act: string; dropletName: string; signal: AbortSignal }>;

class ActFailure extends Error {
  override readonly name = 'ActFailure';
}

const plays: Readonly<Record<ActName, Play>> = {
  provision: async (stage, act) => {
    const saga = await provisioned(stage, act);
    await destroy(stage, act, saga);
    return `droplet ${dropletOf(saga)} was provisioned and destroyed`;
  },
  cancel: async (stage, act) => {
    const sagaId = await start(stage, act);
    await untilMade(stage, sagaId, act.signal);
    await stage.io('cancel', () => stage.client.cancel(sagaId, requester(), 'smoke'));
    const saga = await follow(stage, act.dropletName, sagaId, act.signal);
    require(saga.status === 'compensated', `the saga should have been rolled back, and is ${saga.status}`);
    return 'the saga was cancelled while it waited, and its droplet is gone';
  },
  'killed-worker': async (stage, act) => {
    let isKilled = false;
    stage.witness.onCreated(act.dropletName, async () => {
      await stage.crew.kill();
      isKilled = true;
      stage.say(`  ${act.dropletName}: killed the worker: DigitalOcean has made the droplet, and nobody has written down its id`);
      return 'lose';
    });
    const sagaId = await start(stage, act);
    await until(() => isKilled, stage.lookEveryMs, act.signal);
    await stage.crew.ensure(act.signal);
    return adopted(stage, act, sagaId);
  },
  'lost-answer': async (stage, act) => {
    stage.witness.onCreated(act.dropletName, () => {
      stage.say(`  ${act.dropletName}: the answer to its create is lost`);
      return Promise.resolve('lose');
    });
    return adopted(stage, act, await start(stage, act));
  },
};

/** Runs one act. A failure is its result. */
export async function playAct(stage: Stage, { act, dropletName }: { act: ActName; dropletName: string }, stop: AbortSignal): Promise<ActResult> {
  const signal = AbortSignal.any([stop, AbortSignal.timeout((LONGEST_LIFE_S * 1_000) / 2)]);
  try {
    await stage.crew.ensure(signal);
    return { act, ok: true, detail: await plays[act](stage, { act, dropletName, signal }) };
  } catch (error) {
    stop.throwIfAborted();
    const message = signal.aborted ? 'it took too long' : error instanceof Error ? error.message : String(error);
    return { act, ok: false, detail: message };
  }
}

async function start({ client, io, state }: Stage, { act, dropletName }: Act): Promise<string> {
  const { run, region, size, image } = state.read();
  const options = { idempotencyKey: keyOf(run, act, 'provision'), requestedBy: requester() };
  return (await io('start provision', () => client.provisionDroplet({ name: dropletName, region, size, image: /^\d+$/.test(image) ? Number(image) : image }, options))).sagaId;
}

async function provisioned(stage: Stage, act: Act): Promise<Saga> {
  return completed(await follow(stage, act.dropletName, await start(stage, act), act.signal));
}

/** The saga must adopt the droplet of an unanswered create: that one droplet and no other. */
async function adopted(stage: Stage, act: Act, sagaId: string): Promise<string> {
  const saga = completed(await follow(stage, act.dropletName, sagaId, act.signal));
  const id = dropletOf(saga);
  const { creates, droplets } = stage.state.read();
  require(saga.context['droplet_origin'] === 'adopted', `droplet ${id} should have been adopted, and was ${textOf(saga.context['droplet_origin'], 'not')}`);
  const listed = await stage.api.listDropletsByTag(sagaIdTag(saga));
  require(listed.length === 1 && listed[0]?.id === id, `there should be one droplet with the saga's tag, ${id}, and the list shows ${listed.map((one) => one.id).join(', ') || 'none'}`);
  const posts = creates.filter(({ name }) => name === act.dropletName).length;
  const made = droplets.filter(({ name }) => name === act.dropletName);
  require(posts === 1 && made.length === 1, `there should have been one create and one droplet, and there were ${posts} and ${made.length}`);
  await destroy(stage, act, saga);
  return `droplet ${id} was adopted: one create, one droplet`;
}

async function destroy(stage: Stage, act: Act, provision: Saga): Promise<void> {
  const options = { idempotencyKey: keyOf(stage.state.read().run, act.act, 'destroy'), requestedBy: requester(), reason: 'smoke' };
  const { sagaId } = await stage.io('start destroy', () => stage.client.destroyDroplet(dropletOf(provision), options));
  completed(await follow(stage, act.dropletName, sagaId, act.signal));
}

/** Waits until the droplet is on record and the saga waits for it. */
async function untilMade({ client, lookEveryMs }: Stage, sagaId: string, signal: AbortSignal): Promise<void> {
  await until(async () => {
    const saga = await client.get(sagaId);
    return saga !== null && (isAtRest(saga.status) || typeof saga.context['droplet_id'] === 'number');
  }, Math.min(100, lookEveryMs), signal);
}

async function until(condition: () => Promise<boolean> | boolean, everyMs: number, signal: AbortSignal): Promise<void> {
  while (!(await condition())) await delay(everyMs, undefined, { signal });
}

function completed(saga: Saga): Saga {
  require(saga.status === 'completed', `saga ${saga.id} (${saga.name}) is ${saga.status}: ${saga.error?.message ?? 'no reason recorded'}`);
  return saga;
}

function dropletOf(saga: Saga): number {
  const id = saga.context['droplet_id'];
  if (typeof id !== 'number') throw new ActFailure(`saga ${saga.id} has no droplet on record`);
  return id;
}

function require(holds: boolean, complaint: string): void {
  if (!holds) throw new ActFailure(complaint);
}
