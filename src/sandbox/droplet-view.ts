// Formats droplets and their create actions for the API.
import type { DropletRecord } from './droplet-state.ts';
import { createActionStatus, networksAt, statusAt, tagsAt } from './droplet-state.ts';
import type { Faults } from './faults.ts';
import { matchesName } from './patterns.ts';

/** Formats a droplet as the API shows it at `nowMs`. */
export function showDroplet(droplet: DropletRecord, faults: Faults, nowMs: number): Record<string, unknown> {
  const status = statusAt(droplet, faults, nowMs);
  const { size } = droplet;
  const shown = {
    id: droplet.id,
    name: droplet.name,
    memory: size.memory,
    vcpus: size.vcpus,
    disk: droplet.diskGib,
    disk_info: size.disk_info,
    locked: droplet.isLocked,
    status,
    kernel: null,
    created_at: isoSeconds(droplet.createdAtMs),
    features: droplet.features,
    backup_ids: [],
    next_backup_window:
      droplet.backups && status !== 'new'
        ? { start: isoSeconds(droplet.createdAtMs + 86_400_000), end: isoSeconds(droplet.createdAtMs + 2 * 86_400_000) }
        : null,
    snapshot_ids: droplet.snapshotIds,
    image: droplet.image,
    volume_ids: droplet.volumeIds,
    size,
    size_slug: size.slug,
    networks: networksAt(droplet, faults, nowMs),
    region: droplet.region,
    tags: tagsAt(droplet, faults, nowMs),
    vpc_uuid: droplet.vpcUuid,
    ...(size.gpu_info === undefined ? {} : { gpu_info: size.gpu_info }),
  };
  const isGarbled = (faults.garbleMissing.length > 0 || Object.keys(faults.garble).length > 0) && matchesName(faults.garbleNames, droplet.name);
  return isGarbled ? garbled(shown, faults) : shown;
}

function garbled(shown: Record<string, unknown>, { garble, garbleMissing }: Faults): Record<string, unknown> {
  return Object.fromEntries(Object.entries({ ...shown, ...garble }).filter(([field]) => !garbleMissing.includes(field)));
}

/** Formats the action that created a droplet. */
export function showCreateAction(droplet: DropletRecord, faults: Faults, nowMs: number): Record<string, unknown> {
  const status = createActionStatus(droplet, faults, nowMs);
  const endMs = Math.min(droplet.placementFails ? droplet.placementFailsAtMs : droplet.activeAtMs, nowMs);
  return {
    id: droplet.actionId,
    status,
    type: 'create',
    started_at: isoSeconds(droplet.createdAtMs),
    completed_at: status === 'in-progress' ? null : isoSeconds(Math.max(endMs, droplet.createdAtMs)),
    resource_id: droplet.id,
    resource_type: 'droplet',
    region: droplet.region,
    region_slug: droplet.region.slug,
  };
}

/** One entry of GET /sandbox/state. Times are ISO; null: it did not happen. */
export type DropletLine = {
  readonly id: number;
  readonly name: string;
  readonly status: string;
  readonly alive: boolean;
  readonly tags: readonly string[];
  readonly size_slug: string;
  readonly region: string;
  readonly image: string;
  readonly created_at: string;
  readonly deletedAt: string | null;
  readonly vanishedAt: string | null;
  readonly userDataBytes: number;
};

/** Formats a droplet as the sandbox knows it: its real tags and whether it exists, regardless of any lag. */
export function showLine(droplet: DropletRecord, faults: Faults, nowMs: number): DropletLine {
  return {
    id: droplet.id,
    name: droplet.name,
    status: statusAt(droplet, faults, nowMs),
    alive: nowMs < droplet.deletedAtMs && nowMs < droplet.vanishesAtMs,
    tags: droplet.tags,
    size_slug: droplet.size.slug,
    region: droplet.region.slug,
    image: droplet.image.slug ?? String(droplet.image.id),
    created_at: isoSeconds(droplet.createdAtMs),
    deletedAt: droplet.deletedAtMs <= nowMs ? new Date(droplet.deletedAtMs).toISOString() : null,
    vanishedAt: droplet.vanishesAtMs <= nowMs ? new Date(droplet.vanishesAtMs).toISOString() : null,
    userDataBytes: Buffer.byteLength(droplet.userData),
  };
}

/** Formats a time as ISO 8601 without milliseconds, like the API. */
export function isoSeconds(ms: number): string {
  return new Date(ms).toISOString().replace(/\.\d{3}Z$/u, 'Z');
}
