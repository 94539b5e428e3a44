// A droplet as stored, and what the API shows of it at a given time: pure functions of record, faults and time. No
// timers, so ten thousand idle droplets cost nothing.
import type { Image, Region, Size } from './catalog.ts';
import type { Faults } from './faults.ts';
import { matchesName } from './patterns.ts';

/** Addresses in the API's format. */
export type Networks = {
  readonly v4: readonly { ip_address: string; netmask: string; gateway: string; type: string }[];
  readonly v6: readonly { ip_address: string; netmask: number; gateway: string; type: string }[];
};

/** Resources that belong to a droplet, as the API lists them. */
export type AssociatedResource = Readonly<{ id: string; name: string; cost: string }>;
export type Associated = Readonly<{ volumes?: readonly AssociatedResource[] | undefined; volume_snapshots?: readonly AssociatedResource[] | undefined; reserved_ips?: readonly AssociatedResource[] | undefined }>;

/** What a droplet is made of. Times are Unix milliseconds; Infinity means never. */
export type DropletRecord = {
  readonly id: number;
  readonly actionId: number;
  /** A counter. Addresses are derived from it. */
  readonly ordinal: number;
  name: string;
  size: Size;
  readonly image: Image;
  readonly region: Region;
  readonly features: readonly string[];
  readonly volumeIds: readonly string[];
  readonly vpcUuid: string;
  readonly publicNetworking: boolean;
  readonly ipv6: boolean;
  readonly backups: boolean;
  readonly userData: string;
  /** Its public IPv4 address belongs to this machine, so that a test can listen on it. */
  readonly isOnLoopback: boolean;
  tags: readonly string[];
  createdAtMs: number;
  readonly activeAtMs: number;
  /** Created or edited out of band: no lag applies, as if it had always been so. */
  isSettled: boolean;
  readonly isStuckNew: boolean;
  readonly placementFails: boolean;
  /** When its create action ends as `errored`. */
  readonly placementFailsAtMs: number;
  vanishesAtMs: number;
  deletedAtMs: number;
  forcedStatus: string | undefined;
  forcedNetworks: Networks | undefined;
  /** An action is in progress. */
  isLocked: boolean;
  /** Size of its disk, which a resize may keep. */
  diskGib: number;
  snapshotIds: readonly number[];
  /** What else belongs to it, and stays when it is destroyed. */
  associated: Associated;
};

const noNetworks: Networks = { v4: [], v6: [] };

/** Whether it is neither deleted nor vanished. */
export function exists(droplet: DropletRecord, nowMs: number): boolean {
  return nowMs < droplet.deletedAtMs && nowMs < droplet.vanishesAtMs;
}

/** Whether GET by id finds it. */
export function isReadable(droplet: DropletRecord, faults: Faults, nowMs: number): boolean {
  const isShown = nowMs < droplet.deletedAtMs + faults.goneLagMs && nowMs < droplet.vanishesAtMs;
  return isShown && isOlderThan(droplet, faults.notFoundAfterCreateMs, nowMs);
}

/** Whether lists show it, before any filter. */
export function isListed(droplet: DropletRecord, faults: Faults, nowMs: number): boolean {
  return (
    nowMs < droplet.vanishesAtMs &&
    nowMs < droplet.deletedAtMs + faults.deleteLagMs &&
    isOlderThan(droplet, faults.listLagMs, nowMs)
  );
}

/** Whether lists by one of its tags show it, provided that `isListed` holds. */
export function isIndexedByTag(droplet: DropletRecord, faults: Faults, nowMs: number): boolean {
  if (faults.hideGpuFromTagLists && isGpu(droplet)) return false;
  return isOlderThan(droplet, Math.max(faults.tagLagMs, faults.tagIndexLagMs), nowMs);
}

/** Whether no list will ever show it again. */
export function isForgotten(droplet: DropletRecord, faults: Faults, nowMs: number): boolean {
  return nowMs >= droplet.vanishesAtMs || nowMs >= droplet.deletedAtMs + faults.deleteLagMs;
}

/** Whether its size has a GPU. */
export function isGpu(droplet: DropletRecord): boolean {
  return droplet.size.gpu_info !== undefined;
}

/** The status that the API shows. */
export function statusAt(droplet: DropletRecord, faults: Faults, nowMs: number): string {
  if (droplet.forcedStatus !== undefined) return droplet.forcedStatus;
  if (faults.statusOverride !== undefined && matchesName(faults.statusOverrideNames, droplet.name)) return faults.statusOverride;
  return isBorn(droplet, faults, nowMs) ? 'active' : 'new';
}

/** The tags that the API shows. */
export function tagsAt(droplet: DropletRecord, faults: Faults, nowMs: number): readonly string[] {
  return isOlderThan(droplet, faults.tagLagMs, nowMs) ? droplet.tags : [];
}

/** The addresses that the API shows. The private one comes first, as it may in the real API. */
export function networksAt(droplet: DropletRecord, faults: Faults, nowMs: number): Networks {
  if (droplet.forcedNetworks !== undefined) return droplet.forcedNetworks;
  if (!isBorn(droplet, faults, nowMs)) return noNetworks;
  if (nowMs < droplet.activeAtMs + faults.activeWithoutNetworksMs && !droplet.isSettled) return noNetworks;
  const ageMs = droplet.isSettled ? Infinity : nowMs - droplet.activeAtMs;
  const { v4, v6 } = networksOf(droplet);
  const { public_ipv4: publicMs = 0, private_ipv4: privateMs = 0, public_ipv6: sixMs = 0 } = faults.addressLagMs;
  return { v4: v4.filter(({ type }) => ageMs >= (type === 'public' ? publicMs : privateMs)), v6: v6.filter(() => ageMs >= sixMs) };
}

/** The state of its create action. */
export function createActionStatus(droplet: DropletRecord, faults: Faults, nowMs: number): 'in-progress' | 'completed' | 'errored' {
  if (nowMs >= droplet.placementFailsAtMs) return 'errored';
  const endMs = Math.min(nowMs, droplet.vanishesAtMs);
  return isBorn(droplet, faults, endMs) || droplet.deletedAtMs <= endMs ? 'completed' : 'in-progress';
}

function isBorn(droplet: DropletRecord, faults: Faults, nowMs: number): boolean {
  if (droplet.isStuckNew && isNeverActive(faults, droplet.name)) return false;
  return nowMs >= droplet.activeAtMs && !droplet.placementFails;
}

/** Whether the fault `neverActive` matches this name. */
export function isNeverActive(faults: Faults, name: string): boolean {
  return typeof faults.neverActive === 'string' ? matchesName(faults.neverActive, name) : faults.neverActive;
}

/** Whether a lag of a new droplet has passed. */
export function isOlderThan(droplet: DropletRecord, lagMs: number, nowMs: number): boolean {
  return droplet.isSettled || nowMs >= droplet.createdAtMs + lagMs;
}

// On Linux, a program can listen on every address in 127.0.0.0/8.
const LOOPBACK = 127;

// 198.18.0.0/15 (RFC 2544) and 2001:db8::/32 (RFC 3849) are reserved: a test that connects to them by mistake reaches no
// real host.
function networksOf(droplet: DropletRecord): Networks {
  const [high, low] = [Math.floor(droplet.ordinal / 250) % 256, (droplet.ordinal % 250) + 2];
  const second = Math.floor(droplet.ordinal / 64_000) % 2;
  // The API writes the gateway of a private interface as the word "nil".
  const own = { ip_address: `10.${100 + second}.${high}.${low}`, netmask: '255.255.0.0', gateway: 'nil', type: 'private' };
  const first = droplet.isOnLoopback ? LOOPBACK : 198;
  const open = { ip_address: `${first}.${18 + second}.${high}.${low}`, netmask: '255.255.255.0', gateway: `${first}.${18 + second}.${high}.1`, type: 'public' };
  const six = { ip_address: `2001:db8::${(droplet.ordinal + 2).toString(16)}`, netmask: 64, gateway: '2001:db8::1', type: 'public' };
  return {
    v4: droplet.publicNetworking ? [own, open] : [own],
    v6: droplet.ipv6 && droplet.publicNetworking ? [six] : [],
  };
}
