// Stores the account's droplets and tags, indexed by tag and by name, so that lists of ten thousand stay fast.
import { type DropletRecord, exists, isForgotten } from './droplet-state.ts';
import type { Faults } from './faults.ts';
import { type Random, seededRandom } from './random.ts';

/** The account's droplets and tags. */
export type DropletStore = {
  readonly byId: Map<number, DropletRecord>;
  readonly byActionId: Map<number, DropletRecord>;
  /** Droplets that lists may still show, oldest first. */
  readonly listed: Set<DropletRecord>;
  readonly byTag: Map<string, Set<DropletRecord>>;
  readonly byName: Map<string, Set<DropletRecord>>;
  /** The canonical spelling of each tag, by its lower case. The first use decides, as in the real API. */
  readonly tags: Map<string, string>;
  /**
   * The random generator for ids and activation times. It is separate from that of the faults, so that neither shifts the
   * other.
   */
  readonly chance: Random;
  lastId: number;
  lastActionId: number;
  lastOrdinal: number;
};

/** Creates an empty account. */
export function createStore(): DropletStore {
  return {
    byId: new Map(),
    byActionId: new Map(),
    listed: new Set(),
    byTag: new Map(),
    byName: new Map(),
    tags: new Map(),
    chance: seededRandom(7),
    lastId: 512_340_000,
    lastActionId: 2_600_120_000,
    lastOrdinal: 0,
  };
}

/** Deletes everything except the last ids, so that a stale id never matches a new droplet. */
export function clearStore(store: DropletStore): void {
  for (const index of [store.byId, store.byActionId, store.listed, store.byTag, store.byName, store.tags]) index.clear();
}

/** Returns the next ids: ascending, with gaps, as on a platform with other users. */
export function nextIds(store: DropletStore): { id: number; actionId: number; ordinal: number } {
  store.lastId += 1 + Math.floor(store.chance() * 40);
  store.lastActionId += 1 + Math.floor(store.chance() * 200);
  store.lastOrdinal += 1;
  return { id: store.lastId, actionId: store.lastActionId, ordinal: store.lastOrdinal };
}

/** Returns the next action id. */
export function nextActionId(store: DropletStore): number {
  store.lastActionId += 1 + Math.floor(store.chance() * 200);
  return store.lastActionId;
}

/** Adds a droplet and registers its tags. */
export function addDroplet(store: DropletStore, droplet: DropletRecord): void {
  store.byId.set(droplet.id, droplet);
  store.byActionId.set(droplet.actionId, droplet);
  store.listed.add(droplet);
  addTo(store.byName, droplet.name.toLowerCase(), droplet);
  setTags(store, droplet, droplet.tags);
}

/** Replaces a droplet's tags, in their canonical spelling. */
export function setTags(store: DropletStore, droplet: DropletRecord, tags: readonly string[]): void {
  for (const tag of droplet.tags) store.byTag.get(tag)?.delete(droplet);
  droplet.tags = [...new Set(tags.map((tag) => learnTag(store, tag)))];
  for (const tag of droplet.tags) addTo(store.byTag, tag, droplet);
}

/** Registers a tag and returns its canonical spelling. */
export function learnTag(store: DropletStore, tag: string): string {
  const known = store.tags.get(tag.toLowerCase());
  if (known !== undefined) return known;
  store.tags.set(tag.toLowerCase(), tag);
  return tag;
}

/** Removes a tag from the account and from all its droplets. */
export function dropTag(store: DropletStore, tag: string): void {
  for (const droplet of store.byTag.get(tag) ?? []) droplet.tags = droplet.tags.filter((own) => own !== tag);
  store.byTag.delete(tag);
  store.tags.delete(tag.toLowerCase());
}

/** Renames a droplet. */
export function renameDroplet(store: DropletStore, droplet: DropletRecord, name: string): void {
  store.byName.get(droplet.name.toLowerCase())?.delete(droplet);
  droplet.name = name;
  addTo(store.byName, name.toLowerCase(), droplet);
}

/** Selects droplets from an index, and removes from the index those that no list will show again. */
export function selectDroplets(
  store: DropletStore,
  candidates: Iterable<DropletRecord>,
  faults: Faults,
  nowMs: number,
  isWanted: (droplet: DropletRecord) => boolean,
): DropletRecord[] {
  const found: DropletRecord[] = [];
  for (const droplet of candidates) {
    if (isForgotten(droplet, faults, nowMs)) removeFromIndexes(store, droplet);
    else if (isWanted(droplet)) found.push(droplet);
  }
  return found;
}

/** Whether `more` droplets would exceed the account's `limit`. */
export function wouldExceed(store: DropletStore, more: number, limit: number, nowMs: number): boolean {
  if (store.listed.size + more <= limit) return false;
  let alive = 0;
  for (const droplet of store.listed) if (exists(droplet, nowMs)) alive += 1;
  return alive + more > limit;
}

function removeFromIndexes(store: DropletStore, droplet: DropletRecord): void {
  store.listed.delete(droplet);
  store.byName.get(droplet.name.toLowerCase())?.delete(droplet);
  for (const tag of droplet.tags) store.byTag.get(tag)?.delete(droplet);
}

function addTo(index: Map<string, Set<DropletRecord>>, key: string, droplet: DropletRecord): void {
  const group = index.get(key);
  if (group === undefined) index.set(key, new Set([droplet]));
  else group.add(droplet);
}
