// Routes of /v2/droplets.
import type { Answer, Call } from './answer.ts';
import { errorAnswer, notFound, pageAnswer, unprocessable } from './answer.ts';
import type { CreateRequest } from './create-request.ts';
import { isValidTag, readCreateRequest } from './create-request.ts';
import type { DropletRecord } from './droplet-state.ts';
import { exists, isGpu, isIndexedByTag, isListed, isNeverActive, isOlderThan, isReadable, statusAt } from './droplet-state.ts';
import { addDroplet, nextIds, selectDroplets, wouldExceed } from './droplet-store.ts';
import { showDroplet } from './droplet-view.ts';
import { matchesName } from './patterns.ts';
import { drawMs } from './random.ts';
import { dropletLimit, nowMs, snapshotImages, type World } from './world.ts';

/** POST /v2/droplets: one droplet by `name`, up to ten by `names`. */
export function createDroplets(world: World, call: Call): Answer {
  if (call.body === undefined) return errorAnswer(call, 400, 'bad_request', 'Unable to parse request body.');
  const request = readCreateRequest(call.body, snapshotImages(world));
  if (typeof request === 'string') return unprocessable(call, request);
  const now = nowMs(world);
  if (wouldExceed(world.store, request.names.length, dropletLimit(world), now)) {
    return unprocessable(call, 'creating this/these droplet(s) will exceed your droplet limit');
  }
  const droplets = request.names.map((name) => makeDroplet(world, request, name, now));
  const shown = droplets.map((droplet) => showDroplet(droplet, world.faultBox.settings, now));
  const actions = droplets.map((droplet) => ({
    id: droplet.actionId,
    rel: request.isMultiple ? 'multiple_create' : 'create',
    href: `${call.origin}/v2/actions/${droplet.actionId}`,
  }));
  const body = request.isMultiple ? { droplets: shown } : { droplet: shown[0] };
  return { status: 202, body: { ...body, links: { actions } }, made: droplets.map((droplet) => droplet.id) };
}

/** GET /v2/droplets, with `tag_name`, or `name` and `type`. Includes GPU droplets only with `type=gpus` or by tag. */
export function listDroplets(world: World, call: Call): Answer {
  const { tag_name: tag, name, type } = call.query;
  if (tag !== undefined && (name !== undefined || type !== undefined)) {
    return unprocessable(call, 'tag_name cannot be combined with name or type.');
  }
  if (type !== undefined && type !== 'droplets' && type !== 'gpus') return unprocessable(call, 'type must be droplets or gpus.');
  const faults = world.faultBox.settings;
  const now = nowMs(world);
  const found =
    tag === undefined
      ? selectDroplets(world.store, candidates(world, name), faults, now, (droplet) => {
          return isListed(droplet, faults, now) && isGpu(droplet) === (type === 'gpus');
        })
      : dropletsByTag(world, tag, now);
  return pageAnswer(call, 'droplets', found, (droplet) => showDroplet(droplet, faults, now), faults.nextHost);
}

/** GET /v2/droplets/:id */
export function getDroplet(world: World, call: Call): Answer {
  const now = nowMs(world);
  const faults = world.faultBox.settings;
  const droplet = findDroplet(world, call);
  if (droplet === undefined || !isReadable(droplet, faults, now)) return notFound(call);
  return { status: 200, body: { droplet: showDroplet(droplet, faults, now) } };
}

/** DELETE /v2/droplets/:id */
export function deleteDroplet(world: World, call: Call): Answer {
  const now = nowMs(world);
  const faults = world.faultBox.settings;
  const droplet = findDroplet(world, call);
  if (droplet === undefined) return notFound(call);
  if (!exists(droplet, now)) return isReadable(droplet, faults, now) ? { status: 204 } : notFound(call);
  if (!isOlderThan(droplet, faults.pendingEventMs, now)) return unprocessable(call, 'Droplet already has a pending event.');
  if (!isOlderThan(droplet, faults.deleteNotFoundAfterCreateMs, now)) return notFound(call);
  if (faults.earlyDelete !== 'off' && statusAt(droplet, faults, now) === 'new') {
    if (faults.earlyDelete === '422') return unprocessable(call, 'Droplet already has a pending event.');
    return { status: 204 };
  }
  // Refused while an action is in progress. The caller has to retry.
  if (droplet.isLocked) return unprocessable(call, 'Droplet already has a pending event.');
  droplet.deletedAtMs = now;
  return { status: 204, deleted: [droplet.id] };
}

/** DELETE /v2/droplets?tag_name=…: deletes all droplets with the tag. A tag that was never used is a 404. */
export function deleteDropletsByTag(world: World, call: Call): Answer {
  const tag = call.query['tag_name'];
  if (!isValidTag(tag)) return unprocessable(call, 'tag_name is required.');
  if (world.store.tags.get(tag.toLowerCase()) !== tag) return notFound(call);
  const now = nowMs(world);
  const doomed = dropletsByTag(world, tag, now).filter((droplet) => exists(droplet, now));
  for (const droplet of doomed) droplet.deletedAtMs = now;
  return { status: 204, deleted: doomed.map((droplet) => droplet.id) };
}

/**
 * Returns the droplets that a list by tag currently shows, oldest first. The list ignores the tag's case, unlike the
 * paths of tags.
 */
export function dropletsByTag(world: World, tag: string, now: number): DropletRecord[] {
  const faults = world.faultBox.settings;
  const tagged = world.store.byTag.get(world.store.tags.get(tag.toLowerCase()) ?? tag) ?? [];
  return selectDroplets(world.store, tagged, faults, now, (droplet) => {
    return isListed(droplet, faults, now) && isIndexedByTag(droplet, faults, now);
  });
}

function candidates(world: World, name: string | undefined): Iterable<DropletRecord> {
  return name === undefined ? world.store.listed : (world.store.byName.get(name.toLowerCase()) ?? []);
}

/** Finds the droplet of a path, even if it was deleted. */
export function findDroplet(world: World, call: Call): DropletRecord | undefined {
  const id = call.params['id'] ?? '';
  return /^\d+$/u.test(id) ? world.store.byId.get(Number(id)) : undefined;
}

// The permanent fate of a droplet is drawn here, once. Switching the fault off later does not change it.
function makeDroplet(world: World, request: CreateRequest, name: string, now: number): DropletRecord {
  const { store, faultBox, settings } = world;
  const faults = faultBox.settings;
  const placementFails =
    typeof faults.placementFails === 'string'
      ? matchesName(faults.placementFails, name)
      : faults.placementFails > 0 && faultBox.chance() < faults.placementFails;
  const vanishes = faults.vanishAfterMs !== undefined && matchesName(faults.vanishNames, name) ? faults.vanishAfterMs : Infinity;
  const placementFailsAtMs = placementFails ? now + faults.placementFailsAfterMs : Infinity;
  const endsWithPlacement = placementFails && !faults.placementLeavesNew;
  const droplet: DropletRecord = {
    ...nextIds(store),
    name,
    size: request.size,
    image: request.image,
    region: request.region,
    features: request.features,
    volumeIds: request.volumeIds,
    vpcUuid: request.vpcUuid,
    publicNetworking: request.publicNetworking,
    ipv6: request.ipv6,
    backups: request.backups,
    userData: request.userData,
    isOnLoopback: world.settings.loopbackAddresses,
    tags: request.tags,
    createdAtMs: now,
    activeAtMs: now + drawMs(faults.activateAfterMs ?? settings.activateAfterMs, store.chance),
    isSettled: false,
    isStuckNew: isNeverActive(faults, name),
    placementFails,
    placementFailsAtMs,
    vanishesAtMs: endsWithPlacement ? placementFailsAtMs : now + vanishes,
    deletedAtMs: Infinity,
    forcedStatus: undefined,
    forcedNetworks: undefined,
    isLocked: false,
    diskGib: request.size.disk,
    snapshotIds: [],
    associated: {},
  };
  addDroplet(store, droplet);
  return droplet;
}
