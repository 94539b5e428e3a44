// Droplet snapshots: created by an action, listed as snapshots and as private images, and usable as images of new
// droplets.
import type { Answer, Call } from './answer.ts';
import { notFound, pageAnswer } from './answer.ts';
import type { Image } from './catalog.ts';
import { findDroplet } from './droplet-routes.ts';
import type { DropletRecord } from './droplet-state.ts';
import { isReadable } from './droplet-state.ts';
import { isoSeconds } from './droplet-view.ts';
import { nowMs, type World } from './world.ts';

// Source: https://www.digitalocean.com/pricing/droplets
const SNAPSHOT_USD_PER_GIB = 0.06;

/** Takes a snapshot of a droplet. */
export function addSnapshot(world: World, droplet: DropletRecord, name: string, atMs: number): void {
  const image: Image = {
    ...droplet.image,
    id: 180_000_001 + world.snapshots.made,
    name,
    type: 'snapshot',
    slug: null,
    public: false,
    regions: [droplet.region.slug],
    created_at: isoSeconds(atMs),
    min_disk_size: droplet.diskGib,
    size_gigabytes: droplet.image.size_gigabytes,
    description: '',
    tags: [],
  };
  world.snapshots.made += 1;
  world.snapshots.byId.set(image.id, { image, dropletId: droplet.id });
  droplet.snapshotIds = [...droplet.snapshotIds, image.id];
}

/** GET /v2/snapshots, with `resource_type`. There are no volume snapshots. */
export function listSnapshots(world: World, call: Call): Answer {
  const all = call.query['resource_type'] === 'volume' ? [] : [...world.snapshots.byId.values()];
  return pageAnswer(call, 'snapshots', all, showSnapshot, world.faultBox.settings.nextHost);
}

/** GET /v2/snapshots/:snapshotId */
export function getSnapshot(world: World, call: Call): Answer {
  const snapshot = world.snapshots.byId.get(Number(call.params['snapshotId']));
  return snapshot === undefined ? notFound(call) : { status: 200, body: { snapshot: showSnapshot(snapshot) } };
}

/** DELETE /v2/snapshots/:snapshotId. Droplets created from it continue to exist. */
export function deleteSnapshot(world: World, call: Call): Answer {
  const snapshot = world.snapshots.byId.get(Number(call.params['snapshotId']));
  if (snapshot === undefined) return notFound(call);
  world.snapshots.byId.delete(snapshot.image.id);
  const droplet = world.store.byId.get(snapshot.dropletId);
  if (droplet !== undefined) droplet.snapshotIds = droplet.snapshotIds.filter((id) => id !== snapshot.image.id);
  return { status: 204 };
}

/** GET /v2/droplets/:id/snapshots */
export function listDropletSnapshots(world: World, call: Call): Answer {
  const droplet = findDroplet(world, call);
  if (droplet === undefined || !isReadable(droplet, world.faultBox.settings, nowMs(world))) return notFound(call);
  const own = [...world.snapshots.byId.values()].filter(({ dropletId }) => dropletId === droplet.id);
  return pageAnswer(call, 'snapshots', own, (snapshot) => ({ ...baseOf(snapshot.image), id: snapshot.image.id, type: 'snapshot' }), world.faultBox.settings.nextHost);
}

/** GET /v2/droplets/:id/destroy_with_associated_resources: what would stay without the droplet. Volumes of its create have no names here. */
export function listAssociated(world: World, call: Call): Answer {
  const droplet = findDroplet(world, call);
  if (droplet === undefined || !isReadable(droplet, world.faultBox.settings, nowMs(world))) return notFound(call);
  const { volumes = [], volume_snapshots = [], reserved_ips = [] } = droplet.associated;
  const created = droplet.volumeIds.map((id) => ({ id, name: `volume-${id.slice(0, 8)}`, cost: '10.00' }));
  const snapshots = [...world.snapshots.byId.values()]
    .filter(({ dropletId }) => dropletId === droplet.id)
    .map(({ image }) => ({ id: String(image.id), name: image.name, cost: (image.size_gigabytes * SNAPSHOT_USD_PER_GIB).toFixed(2) }));
  return { status: 200, body: { reserved_ips, floating_ips: reserved_ips, snapshots, volumes: [...created, ...volumes], volume_snapshots } };
}

function showSnapshot({ image, dropletId }: Readonly<{ image: Image; dropletId: number }>): Record<string, unknown> {
  return { id: String(image.id), ...baseOf(image), resource_id: String(dropletId), resource_type: 'droplet', tags: image.tags };
}

function baseOf({ name, created_at, regions, min_disk_size, size_gigabytes }: Image): Record<string, unknown> {
  return { name, created_at, regions, min_disk_size, size_gigabytes };
}
