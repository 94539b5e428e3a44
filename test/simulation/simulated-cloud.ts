// DigitalOcean, as far as the steps use it: droplets that show late in lists, get their tags late, vanish, never become
// active, refuse their deletion; and droplets of other people. Errors of the way there are the world's business.
import { uncounted } from '../../src/do/budget.ts';
import type { DigitalOceanClient } from '../../src/do/client.ts';
import { DigitalOceanError } from '../../src/do/errors.ts';
import type { DigitalOceanFailure } from '../../src/do/errors.ts';
import type { CreateDropletRequest, Droplet } from '../../src/do/schemas.ts';
import type { Tape } from './tape.ts';
import type { Call, Mechanism } from './violation.ts';
import { Violation } from './violation.ts';

export type SimulatedDroplet = {
  readonly id: number;
  readonly name: string;
  readonly tags: readonly string[];
  readonly createdAt: number;
  /** The saga that asked for it; null: somebody else's. */
  readonly owner: string | null;
  readonly visibleAt: number;
  readonly listedAt: number;
  readonly taggedAt: number;
  readonly activeAt: number;
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
};

export type SimulatedCloud = Readonly<{
  client: DigitalOceanClient;
  droplets: ReadonlyMap<number, SimulatedDroplet>;
  addForeign(droplet: { name: string; tags: readonly string[]; ageMs: number }): void;
  /** Lets vanish what is to vanish by now. */
  settle(): void;
  /** How many POSTs the saga's droplets took. */
  postsOf(sagaId: string): number;
  /** How often a deletion of the saga's droplets was refused. */
  refusalsOf(sagaId: string): number;
}>;

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
}): SimulatedCloud {
  const { call, nowMs, tape, without, count } = options;
  const droplets = new Map<number, SimulatedDroplet>();
  const lags = options.isBeyondLimits ? LAGS_BEYOND_LIMITS_MS : LAGS_MS;
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
      owner,
      createdAt,
      visibleAt: createdAt + lag('reads lag'),
      listedAt: createdAt + lag('lists lag'),
      taggedAt: createdAt + lag('tags lag'),
      activeAt: fate === 10 ? Number.POSITIVE_INFINITY : createdAt + (fate % 2 === 0 ? 3_000 : 11_000),
      vanishesAt: fate === 11 ? createdAt + ([2_000, 8_000, 20_000, 60_000][tape.pick(4)] ?? 0) : Number.POSITIVE_INFINITY,
      busyUntil: createdAt + (fate % 3 === 0 ? 0 : 15_000),
      busyAnswer: fate % 3 === 1 ? 'refuses' : 'forgets',
      deletedAt: null,
      lingersMs: 0,
      hasVanished: false,
      isProtected: false,
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
    networks: { v4: droplet.activeAt <= at ? [{ ip_address: '192.0.2.1', type: 'public' }] : [], v6: [] },
    tags: droplet.taggedAt <= at ? [...droplet.tags] : [],
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

  return {
    client,
    droplets,
    settle,
    addForeign: ({ name, tags, ageMs }) => {
      const at = nowMs() - ageMs;
      droplets.set(nextId, {
        id: nextId,
        name,
        tags,
        owner: null,
        createdAt: at,
        visibleAt: at,
        listedAt: at,
        taggedAt: at,
        activeAt: at,
        vanishesAt: Number.POSITIVE_INFINITY,
        busyUntil: at,
        busyAnswer: 'refuses',
        deletedAt: null,
        lingersMs: 0,
        hasVanished: false,
        isProtected: false,
      });
      nextId += 1;
    },
    postsOf: (sagaId) => posts.get(sagaId) ?? 0,
    refusalsOf: (sagaId) => refusals.get(sagaId) ?? 0,
  };
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
