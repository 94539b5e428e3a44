// What must never happen, and how a saga and its droplets must be once it is at rest.
import type { Saga } from '../../src/saga/saga.ts';
import { recordedDropletId } from '../../src/inventory/droplet-of-saga.ts';
import { creates } from '../../src/steps/intents.ts';
import { adoptionTag } from '../../src/steps/ownership.ts';
import { MANAGED_TAG } from '../../src/steps/tags.ts';
import type { OtherFleet, SimulatedDroplet } from './simulated-cloud.ts';
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
  /** A droplet is about to get a tag, or to lose one. */
  onTag: (droplet: SimulatedDroplet) => void;
  onUntag: (droplet: SimulatedDroplet, tag: string) => void;
  checkAtRest: (saga: Saga) => void;
  /** At the end, when all leases have ended. */
  checkLeases: () => void;
}>;

export function createRules(options: { state: State; db: SimulatedDatabase; droplets: () => ReadonlyMap<number, SimulatedDroplet>; otherFleet: () => OtherFleet }): Rules {
  const { state, db, droplets, otherFleet } = options;
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
    const adopter = droplet.owner === null ? adopterOf(droplet.id) : null;
    if (droplet.owner === null && adopter === null) throw new Violation(`droplet ${droplet.id} is somebody else's, and is destroyed`);
    const actor = state.current?.sagaId === null || state.current === null ? null : db.saga(state.current.sagaId);
    if (actor === null) throw new Violation(`droplet ${droplet.id} is destroyed by no saga`);
    if (droplet.owner !== null) db.leases.checkDestroy(droplet.owner, actor);
    if (actor.name === 'destroy_droplet') {
      if (actor.input['droplet_id'] !== droplet.id) throw new Violation(`droplet ${droplet.id} is destroyed by a saga for another`);
      return;
    }
    if (actor.id !== droplet.owner) throw new Violation(`droplet ${droplet.id} of ${droplet.owner} is destroyed by ${actor.id}`);
    if (actor.status === 'completed' && recordedDropletId(actor) === droplet.id) {
      throw new Violation(`droplet ${droplet.id} is destroyed, though ${actor.id} completed with it`);
    }
  }

  /** The adoption that has the droplet on record. */
  function adopterOf(dropletId: number): Saga | null {
    return db.all().find((saga) => saga.name === 'adopt_droplet' && db.provisionedBy(saga.id).some(({ providerId }) => Number(providerId) === dropletId)) ?? null;
  }

  function checkAdoptionAtRest(saga: Saga): void {
    const droplet = droplets().get(Number(saga.input['droplet_id']));
    const listed = db.provisionedBy(saga.id);
    const tag = adoptionTag(saga);
    if (saga.error !== null) count(state, `adoption rolled back: ${saga.error.code}`);
    const lost = droplet?.originalTags.filter((one) => !droplet.tags.includes(one)) ?? [];
    if (lost.length > 0) throw new Violation(`droplet ${droplet?.id} has lost ${lost.join(', ')}`);
    const isThere = droplet !== undefined && droplet.deletedAt === null;
    if (saga.status === 'compensated') {
      if (listed.length > 0) throw new Violation(`${saga.id} is compensated, and left ${JSON.stringify(listed)} in the inventory`);
      if (isThere && droplet.tags.includes(tag)) throw new Violation(`${saga.id} is compensated, and left its tag on droplet ${droplet.id}`);
      const isClaimed = otherFleet() !== 'idle' || adopterOf(droplet?.id ?? 0) !== null || droplet?.owner !== null || droplet.originalTags.includes(MANAGED_TAG);
      if (isThere && !isClaimed && droplet.tags.includes(MANAGED_TAG)) throw new Violation(`${saga.id} is compensated, and left ${MANAGED_TAG} on droplet ${droplet.id}`);
      return;
    }
    if (droplet?.owner !== null) throw new Violation(`${saga.id} adopted droplet ${droplet?.id}, which ${droplet?.owner} made`);
    if (otherFleet() === 'kept') throw new Violation(`${saga.id} adopted droplet ${droplet.id}, and so did another fleet`);
    if (listed.length !== 1 || Number(listed[0]?.providerId) !== droplet.id) throw new Violation(`${saga.id} adopted droplet ${droplet.id}, and the inventory has ${JSON.stringify(listed)}`);
    if (isThere && !droplet.tags.includes(tag)) throw new Violation(`${saga.id} adopted droplet ${droplet.id}, which does not carry its tag`);
    if (isThere && !droplet.tags.includes(MANAGED_TAG)) throw new Violation(`${saga.id} adopted droplet ${droplet.id}, which does not carry ${MANAGED_TAG}`);
  }

  function checkAtRest(saga: Saga): void {
    if (saga.name === 'adopt_droplet') return checkAdoptionAtRest(saga);
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
    if (saga.input['ready'] !== undefined && !(droplet.readyAt <= state.now)) throw new Violation(`${saga.id} completed with droplet ${recorded}, which is not ready`);
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
    if (droplet?.owner === null && adopterOf(droplet.id) === null) throw new Violation(`${saga.id} completed with somebody else's droplet ${droplet.id}`);
    if (droplet?.deletedAt === null) throw new Violation(`${saga.id} completed, and droplet ${droplet.id} is still there`);
    const owner = plans.flatMap(({ id }) => db.provisionedBy(id)).find(({ providerId }) => Number(providerId) === droplet?.id);
    if (owner?.isDeleted !== true) throw new Violation(`${saga.id} completed, and the inventory still has its droplet`);
  }

  function checkLeases(): void {
    for (const { id, status, context } of db.all()) {
      const droplet = droplets().get(recordedDropletId({ context }) ?? 0);
      if (status === 'completed' && droplet?.owner === id && droplet.deletedAt === null) throw new Violation(`the lease of droplet ${droplet.id} of ${id} ended, and it is still there`);
    }
  }

  return { onCreate, onDestroy, onTag, onUntag, checkAtRest, checkLeases };
}

function onTag(droplet: SimulatedDroplet): void {
  if (droplet.owner !== null) throw new Violation(`droplet ${droplet.id} of ${droplet.owner} is tagged by an adoption`);
}

function onUntag(droplet: SimulatedDroplet, tag: string): void {
  if (droplet.owner !== null) throw new Violation(`droplet ${droplet.id} of ${droplet.owner} loses ${tag}`);
  if (droplet.originalTags.includes(tag)) throw new Violation(`droplet ${droplet.id} loses ${tag}, which it had before`);
}
