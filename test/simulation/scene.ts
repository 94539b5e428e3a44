// What a schedule begins with, and what people ask for later on.
import { recordedDropletId } from '../../src/inventory/droplet-of-saga.ts';
import { isAtRest } from '../../src/saga/saga.ts';
import { startSaga } from './processes.ts';
import { LEASE_PASS_MS } from './settings.ts';
import { count, oneOf, pick } from './state.ts';
import type { World } from './world.ts';

const input = { name: 'web-1', region: 'fra1', size: 's-1vcpu-1gb', image: 'debian-12-x64' };

export async function setTheScene(world: World): Promise<void> {
  const { state, cloud, scenario } = world;
  if (scenario === 'adoptions') return setAdoptions(world);
  const sagas = oneOf(state, [1, 1, 2, 3]);
  const isInTurn = scenario === 'orders' && pick(state, 2) === 1;
  for (let index = 1; index <= sagas; index += 1) {
    const id = `a000000${index}-0000-4000-8000-00000000000${index}`;
    if (scenario === 'orders') {
      await startSaga(world, id, isInTurn ? 'place_orders_in_turn' : 'place_orders', {});
      continue;
    }
    state.plans.push({ id, thenDestroys: oneOf(state, ['no', 'no', 'at its end', 'under way']) });
    addForeign(world, id, index);
    const terms = scenario === 'leases' ? { lease: leaseOf(world) } : {};
    await startSaga(world, id, 'provision_droplet', { ...input, ...terms, name: `web-${index}`, ...(pick(state, 3) === 2 ? { ready: { tcp: 22, within_s: 30 } } : {}) });
  }
  if (scenario === 'leases') state.nextLeasePassAt = state.now + LEASE_PASS_MS;
  // Somebody asks for the end of a droplet that arcadia-cloud did not make.
  const [foreign] = cloud.droplets.values();
  if (foreign !== undefined && pick(state, 4) === 3) {
    await startSaga(world, 'f0000000-0000-4000-8000-000000000000', 'destroy_droplet', { droplet_id: foreign.id });
  }
}

/** Somebody else's droplet, and who wants to adopt it: once or twice; a droplet of its name is perhaps provisioned meanwhile. */
async function setAdoptions(world: World): Promise<void> {
  const { state, cloud } = world;
  const tags = oneOf<string[]>(state, [[], ['web'], ['web', 'billing'], [], ['managed-by-arcadia-cloud'], ['arcadia-saga-id-ffffffff-ffff-4fff-8fff-ffffffffffff']]);
  const name = oneOf(state, ['old-1', 'web-1']);
  const dropletId = cloud.addForeign({ name, tags, ageMs: 3_600_000, activeInMs: oneOf(state, [0, 0, 8_000]), vanishesInMs: oneOf(state, [Number.POSITIVE_INFINITY, Number.POSITIVE_INFINITY, Number.POSITIVE_INFINITY, 20_000]) });
  if (pick(state, 3) === 2) {
    const id = 'a0000001-0000-4000-8000-000000000001';
    state.plans.push({ id, thenDestroys: oneOf(state, ['no', 'at its end']) });
    // Beyond the limits, a rolled-back saga may leave a droplet that looks like nobody's.
    state.adoptsOwn = !state.isBeyondLimits && pick(state, 2) === 1;
    await startSaga(world, id, 'provision_droplet', { ...input, name: 'web-1' });
  }
  const adoptions = oneOf(state, [1, 1, 2]);
  for (let index = 4; index < 4 + adoptions; index += 1) {
    const id = `b000000${index}-0000-4000-8000-00000000000${index}`;
    state.plans.push({ id, thenDestroys: oneOf(state, ['no', 'no', 'at its end']) });
    await startSaga(world, id, 'adopt_droplet', { droplet_id: dropletId });
  }
  if (pick(state, 4) === 3) await startSaga(world, 'f0000000-0000-4000-8000-000000000000', 'destroy_droplet', { droplet_id: dropletId });
}

function leaseOf({ state }: World): { ttl_s: number; max_s?: number } {
  const ttl = oneOf(state, [60, 20, 200, 400]);
  return { ttl_s: ttl, ...oneOf<{ max_s?: number }>(state, [{}, { max_s: ttl + 100 }]) };
}

/** Somebody else's droplets, of the kinds that might be taken for the saga's. */
function addForeign({ state, cloud }: World, id: string, index: number): void {
  const name = `web-${index}`;
  const saga8Tag = `arcadia-saga-${id.slice(0, 8)}`;
  const otherId = `arcadia-saga-id-${id.slice(0, 8)}-ffff-4fff-8fff-ffffffffffff`;
  const kinds = [
    [],
    [{ name, tags: [], ageMs: 3_600_000 }],
    [{ name: `other-${index}`, tags: [saga8Tag], ageMs: 0 }],
    [{ name, tags: [saga8Tag, otherId], ageMs: 0 }],
    [{ name: `other-${index}`, tags: ['managed-by-arcadia-cloud', 'arcadia-saga-id-ffffffff-ffff-4fff-8fff-ffffffffffff'], ageMs: 0 }],
    [{ name, tags: [saga8Tag], ageMs: 3_600_000 }],
    [{ name, tags: [], ageMs: 0 }],
  ];
  for (const foreign of kinds[Math.max(0, pick(state, 14) - 7)] ?? []) {
    count(state, 'foreign droplet that looks like ours');
    cloud.addForeign(foreign);
  }
}

export async function startWhatFollows(world: World): Promise<void> {
  const { state, db, cloud } = world;
  const own = [...cloud.droplets.values()].find(({ owner, deletedAt }) => owner !== null && deletedAt === null);
  if (state.adoptsOwn && own !== undefined) {
    state.adoptsOwn = false;
    count(state, 'adoption of a droplet that is being provisioned');
    await startSaga(world, 'b0000009-0000-4000-8000-000000000009', 'adopt_droplet', { droplet_id: own.id });
  }
  // The other fleet ends what it began.
  const [first] = cloud.droplets.keys();
  if (state.isCalm && first !== undefined && ['looked', 'tagged'].includes(cloud.otherFleet())) cloud.moveOtherFleet(first);
  for (const plan of state.plans) {
    const saga = db.saga(plan.id);
    const dropletId = recordedDropletId(saga);
    const isDue = saga.status === 'completed' || (plan.thenDestroys === 'under way' && dropletId !== null && !isAtRest(saga.status));
    if (plan.thenDestroys === 'no' || !isDue) continue;
    plan.thenDestroys = 'no';
    if (saga.status !== 'completed') count(state, 'destroy of a droplet whose provision is under way');
    if (dropletId !== null) await startSaga(world, `d${plan.id.slice(1)}`, 'destroy_droplet', { droplet_id: dropletId });
  }
}
