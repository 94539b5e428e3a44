// What must never happen, and how a saga and its droplets must be once it is at rest.
import type { Saga } from '../../src/saga/saga.ts';
import { recordedDropletId } from '../../src/inventory/droplet-of-saga.ts';
import { creates } from '../../src/steps/intents.ts';
import type { SimulatedDroplet } from './simulated-cloud.ts';
import type { SimulatedDatabase } from './simulated-database.ts';
import type { State } from './state.ts';
import { count } from './state.ts';
import { Violation } from './violation.ts';

/** Each throws a violation when something is as it must not be. */
export type Rules = Readonly<{
  /** A droplet is being made for a saga. */
  onCreate: (sagaId: string, posts: number) => void;
  /** A droplet is about to end. */
  onDestroy: (droplet: SimulatedDroplet) => void;
  checkAtRest: (saga: Saga) => void;
}>;

export function createRules(options: { state: State; db: SimulatedDatabase; droplets: () => ReadonlyMap<number, SimulatedDroplet> }): Rules {
  const { state, db, droplets } = options;
  const { isBeyondLimits, plans, without } = state;

  function onCreate(sagaId: string, posts: number): void {
    const [live] = liveDropletsOf(sagaId);
    if (live !== undefined && !isBeyondLimits) throw new Violation(`${sagaId} makes a second droplet, beside ${live}`);
    // Without its intent no POST is announced; what is to be seen is what that does to droplets.
    if (without === 'intent') return;
    const announced = creates({ saga: db.saga(sagaId), now: new Date(state.now) }).sends;
    if (posts > announced) throw new Violation(`${sagaId}: POST ${posts} of a saga that announced ${announced}`);
  }

  function liveDropletsOf(sagaId: string): number[] {
    return [...droplets().values()].filter(({ owner, deletedAt }) => owner === sagaId && deletedAt === null).map(({ id }) => id);
  }

  function onDestroy(droplet: SimulatedDroplet): void {
    if (droplet.owner === null) throw new Violation(`droplet ${droplet.id} is somebody else's, and is destroyed`);
    const actor = state.current?.sagaId === null || state.current === null ? null : db.saga(state.current.sagaId);
    if (actor === null) throw new Violation(`droplet ${droplet.id} is destroyed by no saga`);
    if (actor.name === 'destroy_droplet') {
      if (actor.input['droplet_id'] !== droplet.id) throw new Violation(`droplet ${droplet.id} is destroyed by a saga for another`);
      return;
    }
    if (actor.id !== droplet.owner) throw new Violation(`droplet ${droplet.id} of ${droplet.owner} is destroyed by ${actor.id}`);
    if (actor.status === 'completed' && recordedDropletId(actor) === droplet.id) {
      throw new Violation(`droplet ${droplet.id} is destroyed, though ${actor.id} completed with it`);
    }
  }

  function checkAtRest(saga: Saga): void {
    if (saga.name === 'destroy_droplet') return checkDestroyAtRest(saga);
    const live = liveDropletsOf(saga.id);
    const made = [...droplets().values()].filter((droplet) => droplet.owner === saga.id).length;
    if (made > 1) count(state, `saga made ${made} droplets${isBeyondLimits ? ', beyond the limits' : ''}`);
    if (saga.context['droplet_origin'] === 'adopted') count(state, 'droplet adopted');
    if (saga.error !== null) count(state, `rolled back: ${saga.error.code}`);
    const recorded = recordedDropletId(saga);
    const listed = db.provisionedBy(saga.id);
    const inInventory = listed.filter(({ isDeleted }) => !isDeleted).map(({ providerId }) => Number(providerId));
    if (saga.status === 'compensated') {
      if (live.length > 0 && isBeyondLimits) count(state, 'droplet left to the orphan sweep');
      else if (live.length > 0) throw new Violation(`${saga.id} is compensated, and left droplet ${live.join(', ')}`);
      if (listed.length > 0) throw new Violation(`${saga.id} is compensated, and left ${JSON.stringify(listed)} in the inventory`);
      return;
    }
    const droplet = recorded === null ? undefined : droplets().get(recorded);
    if (droplet?.owner !== saga.id) throw new Violation(`${saga.id} completed with droplet ${recorded}, which is not its own`);
    const surplus = live.filter((id) => id !== recorded);
    if (surplus.length > 0 && isBeyondLimits) count(state, 'droplet left to the orphan sweep');
    else if (surplus.length > 0) throw new Violation(`${saga.id} completed with droplet ${recorded}, and left droplet ${surplus.join(', ')} as well`);
    const destroyers = db.all().filter((other) => other.name === 'destroy_droplet' && other.input['droplet_id'] === recorded);
    const mayBeGone = droplet.hasVanished || destroyers.length > 0;
    if (droplet.deletedAt !== null && !mayBeGone) throw new Violation(`${saga.id} completed, and its droplet ${recorded} is gone`);
    if (destroyers.length > 0) return;
    if (inInventory.length !== 1 || inInventory[0] !== recorded) {
      throw new Violation(`${saga.id} completed with droplet ${recorded}, and the inventory has ${JSON.stringify(listed)}`);
    }
  }

  function checkDestroyAtRest(saga: Saga): void {
    const droplet = droplets().get(Number(saga.input['droplet_id']));
    if (saga.status === 'compensated' && saga.context['destroy_result'] === 'destroyed' && droplet?.deletedAt === null) {
      throw new Violation(`${saga.id} says that droplet ${droplet.id} is destroyed, and it is still there`);
    }
    if (saga.status !== 'completed') return;
    if (droplet?.owner === null) throw new Violation(`${saga.id} completed with somebody else's droplet ${droplet.id}`);
    if (droplet?.deletedAt === null) throw new Violation(`${saga.id} completed, and droplet ${droplet.id} is still there`);
    const owner = plans.flatMap(({ id }) => db.provisionedBy(id)).find(({ providerId }) => Number(providerId) === droplet?.id);
    if (owner?.isDeleted !== true) throw new Violation(`${saga.id} completed, and the inventory still has its droplet`);
  }

  return { onCreate, onDestroy, checkAtRest };
}
