// DigitalOcean, as far as the steps use it: droplets that show late in lists, get their tags late, vanish, never become
// active, refuse their deletion; and droplets of other people. Errors of the way there are the world's business.
import { uncounted } from '../../src/do/budget.ts';
import type { DigitalOceanClient } from '../../src/do/client.ts';
import { DigitalOceanError } from '../../src/do/errors.ts';
import type { DigitalOceanFailure } from '../../src/do/errors.ts';
import type { CreateDropletRequest, Droplet } from '../../src/do/schemas.ts';
import type { Readiness } from '../../src/steps/deps.ts';
import { MANAGED_TAG, isAdoptionTag, isReservedTag } from '../../src/steps/tags.ts';
import type { Tape } from './tape.ts';
import type { Call, Mechanism } from './violation.ts';
import { Violation } from './violation.ts';

export type SimulatedDroplet = {
  readonly id: number;
  readonly name: string;
  tags: readonly string[];
  /** Those of somebody else's droplet, before anybody adopted it. */
  readonly originalTags: readonly string[];
  readonly createdAt: number;
  /** The saga that asked for it; null: somebody else's. */
  readonly owner: string | null;
  readonly visibleAt: number;
  readonly listedAt: number;
  readonly taggedAt: number;
  readonly activeAt: number;
  /** Takes connections from then on. */
  readonly readyAt: number;
  readonly vanishesAt: number;
  /** Until then a DELETE is refused (422), or accepted and forgotten. */
  readonly busyUntil: number;
  readonly busyAnswer: 'refuses' | 'forgets';
  deletedAt: number | null;
  /** How long lists and reads still show it after its end. */
  lingersMs: number;
  hasVanished: boolean;
  /** Its deletion is refused until a person has seen to it. */
  isProtected: boolean;
  /** Until then, reads show the tags that it had before. */
  tagsShown: { tags: readonly string[]; until: number };
};

export type SimulatedCloud = Readonly<{
  client: DigitalOceanClient;
  probe: Readiness['probe'];
  droplets: ReadonlyMap<number, SimulatedDroplet>;
  /** Returns its id. `activeInMs` and `vanishesInMs`: from now on. */
  addForeign(droplet: { name: string; tags: readonly string[]; ageMs: number; activeInMs?: number; vanishesInMs?: number }): number;
  /** Another fleet, which plays by the same rules, makes its next move to adopt a droplet. */
  moveOtherFleet(dropletId: number): void;
  /** How far the other fleet has come. */
  otherFleet(): OtherFleet;
  /** Lets vanish what is to vanish by now. */
  settle(): void;
  /** How many POSTs the saga's droplets took. */
  postsOf(sagaId: string): number;
  /** How often a deletion of the saga's droplets was refused. */
  refusalsOf(sagaId: string): number;
}>;

/** `kept`: it took the droplet. `gone`: it left the droplet alone, or gave way. */
export type OtherFleet = 'idle' | 'looked' | 'tagged' | 'kept' | 'gone';

const TAG_OF_OTHERS = 'arcadia-adopted-0ffffff0-ffff-4fff-8fff-ffffffffffff';

// In all less than the adoption grace, together with what a request may take: see the limits in world.ts.
const LAGS_MS = [0, 0, 0, 2_000, 9_000, 24_000];
const LAGS_BEYOND_LIMITS_MS = [...LAGS_MS, 70_000, 150_000];

// One turn of what is ready to go on.
const turn = Promise.resolve();

export function createSimulatedCloud(options: {
  call: Call;
  nowMs: () => number;
  tape: Pick<Tape, 'pick'>;
  without: Mechanism | null;
  /** Lists, reads and tags may lag by more than the adoption grace. */
  isBeyondLimits: boolean;
  count: (what: string) => void;
  /** A droplet is being made for a saga: throws a violation when it must not be. */
  onCreate: (sagaId: string, posts: number) => void;
  /** A droplet is about to end: throws a violation when it must not. */
  onDestroy: (droplet: SimulatedDroplet) => void;
  /** A droplet is about to get a tag, or to lose one: throw a violation when it must not. */
  onTag: (droplet: SimulatedDroplet) => void;
  onUntag: (droplet: SimulatedDroplet, tag: string) => void;
}): SimulatedCloud {
  const { call, nowMs, tape, without, count } = options;
  const droplets = new Map<number, SimulatedDroplet>();
  const lags = options.isBeyondLimits ? LAGS_BEYOND_LIMITS_MS : LAGS_MS;
  let otherFleet: OtherFleet = 'idle';
  const posts = new Map<string, number>();
  const refusals = new Map<string, number>();
  let nextId = 1_001;
  // DigitalOcean's clock is not the database's.
  const skewMs = [0, 20_000, -20_000][tape.pick(3)] ?? 0;

  const settle = () => {
    for (const droplet of droplets.values()) {
      if (droplet.deletedAt !== null || droplet.vanishesAt > nowMs()) continue;
      droplet.deletedAt = droplet.vanishesAt;
      droplet.hasVanished = true;
      count('droplet vanishes');
    }
  };

  const lag = (what: string) => {
    const lagMs = lags[tape.pick(lags.length)] ?? 0;
    if (lagMs > 0) count(what);
    return lagMs;
  };

  const create = (request: CreateDropletRequest): { droplet: Droplet; actionId: number | null } => {
    const tags = request.tags ?? [];
    const owner = tags.find((tag) => tag.startsWith('arcadia-saga-id-'))?.slice('arcadia-saga-id-'.length);
    if (owner === undefined) throw new Violation('a droplet is asked for that bears no full id of a saga');
    posts.set(owner, (posts.get(owner) ?? 0) + 1);
    options.onCreate(owner, posts.get(owner) ?? 0);
    const createdAt = nowMs();
    const fate = tape.pick(12);
    if (fate === 10) count('droplet never becomes active');
    const droplet: SimulatedDroplet = {
      id: nextId,
      name: request.name,
      tags,
      originalTags: [],
      owner,
      createdAt,
      visibleAt: createdAt + lag('reads lag'),
      listedAt: createdAt + lag('lists lag'),
      taggedAt: createdAt + lag('tags lag'),
      activeAt: fate === 10 ? Number.POSITIVE_INFINITY : createdAt + (fate % 2 === 0 ? 3_000 : 11_000),
      readyAt: fate === 8 ? Number.POSITIVE_INFINITY : createdAt + (fate % 2 === 0 ? 21_000 : 12_000),
      vanishesAt: fate === 11 ? createdAt + ([2_000, 8_000, 20_000, 60_000][tape.pick(4)] ?? 0) : Number.POSITIVE_INFINITY,
      busyUntil: createdAt + (fate % 3 === 0 ? 0 : 15_000),
      busyAnswer: fate % 3 === 1 ? 'refuses' : 'forgets',
      deletedAt: null,
      lingersMs: 0,
      hasVanished: false,
      isProtected: false,
      tagsShown: { tags: [], until: 0 },
    };
    nextId += 1 + tape.pick(2);
    droplets.set(droplet.id, droplet);
    return { droplet: view(droplet, createdAt), actionId: null };
  };

  const view = (droplet: SimulatedDroplet, at: number): Droplet => ({
    id: droplet.id,
    name: droplet.name,
    status: droplet.activeAt <= at ? 'active' : 'new',
    created_at: new Date(Math.floor((droplet.createdAt + skewMs) / 1_000) * 1_000).toISOString(),
    size_slug: 's-1vcpu-1gb',
    memory: 1_024,
    vcpus: 1,
    disk: 25,
    region: { slug: 'fra1' },
    image: { id: 1, slug: 'debian-12-x64' },
    networks: { v4: droplet.activeAt <= at ? [{ ip_address: addressOf(droplet), type: 'public' }] : [], v6: [] },
    tags: droplet.taggedAt > at ? [] : at < droplet.tagsShown.until ? [...droplet.tagsShown.tags] : [...droplet.tags],
    locked: false,
    vpc_uuid: null,
  });

  const isShown = (droplet: SimulatedDroplet, since: number) =>
    since <= nowMs() && (droplet.deletedAt === null || nowMs() < droplet.deletedAt + droplet.lingersMs);

  const list = (matches: (droplet: SimulatedDroplet) => boolean): Droplet[] => {
    settle();
    if (without === 'adoption by tag') return [];
    return [...droplets.values()].filter((droplet) => isShown(droplet, droplet.listedAt) && matches(droplet)).map((droplet) => view(droplet, nowMs()));
  };

  const get = (id: number): Droplet | null => {
    settle();
    const droplet = droplets.get(id);
    return droplet === undefined || !isShown(droplet, droplet.visibleAt) ? null : view(droplet, nowMs());
  };

  const setTags = (droplet: SimulatedDroplet, tags: readonly string[]) => {
    // Two fleets that see each other late would both keep the droplet: that is beyond what anybody can promise.
    const lagMs = otherFleet === 'idle' ? lag('tags of an adopted droplet lag') : 0;
    const before = nowMs() < droplet.tagsShown.until ? droplet.tagsShown.tags : droplet.tags;
    droplet.tagsShown = { tags: before, until: nowMs() + lagMs };
    droplet.tags = tags;
  };

  const putTag = (tag: string, id: number): 'tagged' | 'absent' => {
    settle();
    const droplet = droplets.get(id);
    if (droplet === undefined || droplet.deletedAt !== null) return 'absent';
    options.onTag(droplet);
    if (!droplet.tags.includes(tag)) setTags(droplet, [...droplet.tags, tag]);
    return 'tagged';
  };

  const takeTagOff = (tag: string, id: number): 'untagged' | 'absent' => {
    settle();
    const droplet = droplets.get(id);
    if (droplet === undefined || droplet.deletedAt !== null) return 'absent';
    options.onUntag(droplet, tag);
    if (droplet.tags.includes(tag)) setTags(droplet, droplet.tags.filter((other) => other !== tag));
    return 'untagged';
  };

  const deleteTag = (tag: string): 'deleted' => {
    for (const droplet of droplets.values()) if (droplet.tags.includes(tag)) takeTagOff(tag, droplet.id);
    return 'deleted';
  };

  const moveOtherFleet = (id: number) => {
    const droplet = droplets.get(id);
    if (droplet === undefined || droplet.deletedAt !== null) {
      otherFleet = 'gone';
      return;
    }
    if (otherFleet === 'idle') {
      droplet.tagsShown = { tags: [], until: 0 };
      otherFleet = droplet.activeAt > nowMs() || droplet.tags.some((tag) => isReservedTag(tag)) ? 'gone' : 'looked';
    } else if (otherFleet === 'looked') {
      setTags(droplet, [...new Set([...droplet.tags, TAG_OF_OTHERS, MANAGED_TAG])]);
      otherFleet = 'tagged';
    } else if (otherFleet === 'tagged') {
      const givesWay = droplet.tags.some(isOurAdoptionTag);
      if (givesWay) setTags(droplet, droplet.tags.filter((tag) => tag !== TAG_OF_OTHERS));
      otherFleet = givesWay ? 'gone' : 'kept';
    }
    count(`another fleet: ${otherFleet}`);
  };

  const destroy = (id: number): 'destroyed' | 'absent' => {
    settle();
    const droplet = droplets.get(id);
    if (droplet === undefined || droplet.deletedAt !== null || droplet.visibleAt > nowMs()) return 'absent';
    options.onDestroy(droplet);
    const isBusy = droplet.busyUntil > nowMs();
    if (droplet.isProtected || (isBusy && droplet.busyAnswer === 'refuses')) {
      refusals.set(droplet.owner ?? '', (refusals.get(droplet.owner ?? '') ?? 0) + 1);
      count('deletion refused');
      throw failure('DELETE', 'later', { status: 422, message: 'Droplet already has a pending event.' });
    }
    if (isBusy) {
      count('deletion accepted and forgotten');
      refusals.set(droplet.owner ?? '', (refusals.get(droplet.owner ?? '') ?? 0) + 1);
      return 'destroyed';
    }
    droplet.deletedAt = nowMs();
    droplet.lingersMs = lag('lists show what is gone');
    return 'destroyed';
  };

  const client: DigitalOceanClient = {
    // There is no budget in this world: requests are throttled as the schedule wants it.
    at: () => client,
    for: () => client,
    withdraw: async () => Promise.resolve(),
    reserveCreate: async () => {
      await turn;
      return { ...uncounted, passage: null };
    },
    createDroplet: (request) => call('http', 'POST /v2/droplets', () => create(request), () => request.name),
    getDroplet: (id) => call('http', 'GET /v2/droplets/', () => get(id), () => String(id)),
    listDropletsByTag: (tag) => call('http', 'GET /v2/droplets?tag_name=', () => list((droplet) => droplet.taggedAt <= nowMs() && droplet.tags.includes(tag)), () => tag),
    listDroplets: (filter = {}) =>
      call('http', 'GET /v2/droplets?name=', () => list((droplet) => !('name' in filter) || droplet.name === filter.name)),
    destroyDroplet: (id) => call('http', 'DELETE /v2/droplets/', () => destroy(id), () => String(id)),
    // No volumes in this world. A request of its own is no more than a look.
    listAssociatedResources: async () => {
      await turn;
      return [];
    },
    createTag: (name) => call('http', 'POST /v2/tags', () => ({ name }), () => name),
    reserveTagging: async () => {
      await turn;
      return { ...uncounted, passage: null };
    },
    tagDroplet: (tag, id) => call('http', 'POST /v2/tags/resources', () => putTag(tag, id), () => `${tag} on ${id}`),
    untagDroplet: (tag, id) => call('http', 'DELETE /v2/tags/resources', () => takeTagOff(tag, id), () => `${tag} on ${id}`),
    readTag: unused,
    tryOut: unused,
    deleteTag: (tag) => call('http', 'DELETE /v2/tags', () => deleteTag(tag), () => tag),
    countDroplets: unused,
    listRegions: unused,
    listSizes: unused,
    listImages: unused,
    getImage: unused,
    listVpcs: unused,
    listSshKeys: unused,
    listProjects: unused,
    assignToProject: unused,
    getAction: unused,
    getAccount: unused,
    // The actions of a droplet: nobody knows of any.
    listPaginated: async () => {
      await turn;
      return [];
    },
    pages: () => {
      throw new Violation('no step needs this call');
    },
  };

  const answers = (address: string): boolean => {
    settle();
    return [...droplets.values()].some((droplet) => addressOf(droplet) === address && droplet.deletedAt === null && droplet.readyAt <= nowMs());
  };

  // A check never throws: what goes wrong on the way is no answer.
  const probe: Readiness['probe'] = async ({ address }) => {
    const answered = await call('http', 'check tcp', () => answers(address), () => address).catch(() => false);
    return answered ? { answered } : { answered, why: 'no answer' };
  };

  return {
    client,
    probe,
    droplets,
    settle,
    moveOtherFleet,
    otherFleet: () => otherFleet,
    addForeign: ({ name, tags, ageMs, activeInMs = -ageMs, vanishesInMs = Number.POSITIVE_INFINITY }) => {
      const at = nowMs() - ageMs;
      droplets.set(nextId, {
        id: nextId,
        name,
        tags,
        originalTags: tags,
        owner: null,
        createdAt: at,
        visibleAt: at,
        listedAt: at,
        taggedAt: at,
        activeAt: nowMs() + activeInMs,
        readyAt: at,
        vanishesAt: nowMs() + vanishesInMs,
        busyUntil: at,
        busyAnswer: 'refuses',
        deletedAt: null,
        lingersMs: 0,
        hasVanished: false,
        isProtected: false,
        tagsShown: { tags: [], until: 0 },
      });
      nextId += 1;
      return nextId - 1;
    },
    postsOf: (sagaId) => posts.get(sagaId) ?? 0,
    refusalsOf: (sagaId) => refusals.get(sagaId) ?? 0,
  };
}

function isOurAdoptionTag(tag: string): boolean {
  return isAdoptionTag(tag) && tag !== TAG_OF_OTHERS;
}

function addressOf({ id }: Pick<SimulatedDroplet, 'id'>): string {
  return `198.18.${Math.floor(id / 250)}.${(id % 250) + 1}`;
}

async function unused(): Promise<never> {
  throw new Violation('no step needs this call');
}

/** An error as the client throws it. */
export function failure(
  method: DigitalOceanFailure['method'],
  kind: DigitalOceanFailure['kind'],
  more: { status: number | null; message: string; retryAfterMs?: number },
): DigitalOceanError {
  return new DigitalOceanError(more.message, {
    kind,
    code: more.status === null ? 'timeout' : 'simulated',
    status: more.status,
    requestId: null,
    retryAfterMs: more.retryAfterMs ?? null,
    method,
    path: '/v2/droplets',
  });
}
