// The sandbox's control routes, /sandbox/*: inspect its state, set faults, create and change droplets out of band. They
// require no token, have no rate limit and are not recorded in the ledger.
import type { IncomingHttpHeaders } from 'node:http';
import type { FastifyInstance } from 'fastify';
import { z } from 'zod';
import { clearActions, endDueActions } from './action-store.ts';
import { defaultVpcId, findImage, findRegion, findSize, images, regions } from './catalog.ts';
import { isValidTag } from './create-request.ts';
import type { DropletRecord } from './droplet-state.ts';
import { addDroplet, clearStore, nextIds, renameDroplet, setTags } from './droplet-store.ts';
import { type DropletLine, showDroplet, showLine } from './droplet-view.ts';
import { describeIssues, type FaultBox, type Faults, SandboxInputError, mergeFaults, resetFaults } from './faults.ts';
import { clearLedger, readLedger, summarizeLedger } from './ledger.ts';
import { clearProjects } from './project-store.ts';
import { createVpcs } from './vpc-store.ts';
import { nowMs, type World } from './world.ts';

const networksSchema = z.strictObject({
  v4: z.array(z.strictObject({ ip_address: z.string(), netmask: z.string(), gateway: z.string(), type: z.string() })).default([]),
  v6: z.array(z.strictObject({ ip_address: z.string(), netmask: z.number(), gateway: z.string(), type: z.string() })).default([]),
});
const sizeSlug = z.string().refine((slug) => findSize(slug) !== undefined, 'is not a size of the sandbox');
const tagList = z.array(z.string().refine(isValidTag, 'is not a valid tag'));

const associatedList = z.array(z.strictObject({ id: z.string().min(1), name: z.string().min(1), cost: z.string().regex(/^\d+\.\d\d$/, 'is not an amount in USD, such as 10.00') })).optional();
const associatedSchema = z.strictObject({ volumes: associatedList, volume_snapshots: associatedList, reserved_ips: associatedList });

const foreignDropletSchema = z.strictObject({
  name: z.string().min(1),
  size_slug: sizeSlug.default('s-1vcpu-1gb'),
  region: z.string().refine((slug) => findRegion(slug) !== undefined, 'is not a region of the sandbox').default('nyc3'),
  image: z
    .union([z.string(), z.number()])
    .refine((key) => findImage(key) !== undefined, 'is not an image of the sandbox')
    .default('debian-12-x64'),
  tags: tagList.default([]),
  status: z.string().default('active'),
  created_at: z.iso.datetime({ offset: true }).optional(),
  networks: networksSchema.optional(),
  associated: associatedSchema.optional(),
});

const editSchema = z
  .strictObject({ name: z.string().min(1), size_slug: sizeSlug, status: z.string(), tags: tagList, networks: networksSchema, associated: associatedSchema, vanish: z.literal(true) })
  .partial();

/** A droplet created out of band. Only `name` is required. */
export type ForeignDroplet = z.input<typeof foreignDropletSchema>;
/** Changes to a droplet out of band. `vanish` makes it gone without a DELETE. `associated`: what else belongs to it, and stays billed without it. */
export type DropletEdit = z.input<typeof editSchema>;

/** Selects droplets of the state. */
export type StateFilter = { readonly alive?: boolean | undefined; readonly tag?: string | undefined; readonly name?: string | undefined };

/** Returns all droplets that ever existed, oldest first. */
export function readState(world: World, filter: StateFilter = {}): DropletLine[] {
  const now = nowMs(world);
  endDueActions(world.actions, now);
  return [...world.store.byId.values()]
    .map((droplet) => showLine(droplet, world.faultBox.settings, now))
    .filter((line) => filter.alive === undefined || line.alive === filter.alive)
    .filter((line) => filter.tag === undefined || line.tags.some((tag) => tag.toLowerCase() === filter.tag?.toLowerCase()))
    .filter((line) => filter.name === undefined || line.name === filter.name);
}

/** Returns the current faults, with the counters of their rules. */
export function readFaults(box: FaultBox): Omit<Faults, 'rules'> & { rules: (Faults['rules'][number] & { seen: number; fired: number })[] } {
  return { ...box.settings, rules: box.rules.map(({ rule, seen, fired }) => ({ ...rule, seen, fired })) };
}

/** Creates a droplet as if another program had done so. No lag applies to it. Throws SandboxInputError for invalid input. */
export function addForeignDroplet(world: World, input: unknown): Record<string, unknown> & { id: number } {
  const wanted = parse(foreignDropletSchema, input);
  const createdAtMs = wanted.created_at === undefined ? nowMs(world) : Date.parse(wanted.created_at);
  const droplet: DropletRecord = {
    ...nextIds(world.store),
    name: wanted.name,
    size: known(findSize(wanted.size_slug)),
    image: findImage(wanted.image) ?? known(images[0]),
    region: findRegion(wanted.region) ?? known(regions[0]),
    features: ['private_networking', 'droplet_agent'],
    volumeIds: [],
    vpcUuid: defaultVpcId(wanted.region.toLowerCase()),
    publicNetworking: true,
    ipv6: false,
    backups: false,
    userData: '',
    isOnLoopback: world.settings.loopbackAddresses,
    tags: wanted.tags,
    createdAtMs,
    activeAtMs: createdAtMs,
    isSettled: true,
    isStuckNew: false,
    placementFails: false,
    placementFailsAtMs: Infinity,
    vanishesAtMs: Infinity,
    deletedAtMs: Infinity,
    forcedStatus: wanted.status === 'active' ? undefined : wanted.status,
    forcedNetworks: wanted.networks ?? (wanted.status === 'new' ? { v4: [], v6: [] } : undefined),
    isLocked: false,
    diskGib: known(findSize(wanted.size_slug)).disk,
    snapshotIds: [],
    associated: wanted.associated ?? {},
  };
  addDroplet(world.store, droplet);
  return { ...showDroplet(droplet, world.faultBox.settings, nowMs(world)), id: droplet.id };
}

/** Changes a droplet out of band. Returns undefined for an unknown id. Throws SandboxInputError for invalid input. */
export function editDroplet(world: World, id: number, input: unknown): DropletLine | undefined {
  const edit = parse(editSchema, input);
  endDueActions(world.actions, nowMs(world));
  const droplet = world.store.byId.get(id);
  if (droplet === undefined) return undefined;
  if (edit.name !== undefined) renameDroplet(world.store, droplet, edit.name);
  if (edit.size_slug !== undefined) {
    droplet.size = known(findSize(edit.size_slug));
    droplet.diskGib = droplet.size.disk;
  }
  if (edit.status !== undefined) droplet.forcedStatus = edit.status;
  if (edit.tags !== undefined) setTags(world.store, droplet, edit.tags);
  if (edit.associated !== undefined) droplet.associated = edit.associated;
  if (edit.networks !== undefined) droplet.forcedNetworks = edit.networks;
  if (edit.vanish === true) droplet.vanishesAtMs = Math.min(droplet.vanishesAtMs, nowMs(world));
  return showLine(droplet, world.faultBox.settings, nowMs(world));
}

/** Returns a droplet's user data, as its cloud-init reads it; undefined for an unknown id. */
export function readUserData(world: World, id: number): string | undefined {
  return world.store.byId.get(id)?.userData;
}

/**
 * Deletes droplets, tags, SSH keys, actions, snapshots, VPCs, ledger entries, rate windows and faults. The clock and the
 * id counters continue.
 */
export function resetWorld(world: World): void {
  clearStore(world.store);
  world.sshKeys.byId.clear();
  clearActions(world.actions);
  world.snapshots.byId.clear();
  world.vpcs.clear();
  for (const [id, vpc] of createVpcs()) world.vpcs.set(id, vpc);
  clearProjects(world.projects);
  clearLedger(world.ledger);
  world.rates.clear();
  resetFaults(world.faultBox);
}

function isForeign({ origin, host, 'sec-fetch-site': site }: IncomingHttpHeaders): boolean {
  // Programs send neither header; browsers send at least one.
  if (origin === undefined && site === undefined) return false;
  const isOwn = /^(localhost|127(\.\d{1,3}){3}|\[::1\])(:\d{1,5})?$/.test(host ?? '');
  return !isOwn || (site !== undefined && site !== 'same-origin' && site !== 'none') || (origin !== undefined && origin !== `http://${host}`);
}

/** Adds the routes to a server that parses bodies as text. */
export function addControlRoutes(app: FastifyInstance, world: World): void {
  // The routes require no token, so no web page in a browser may call them: neither by the sandbox's address nor by a
  // host name that the page points here (DNS rebinding).
  app.addHook('onRequest', async (request, reply) => {
    if (!request.url.startsWith('/sandbox/') || !isForeign(request.headers)) return;
    await reply.code(403).send({ id: 'forbidden', message: 'the routes under /sandbox are not for pages of other sites' });
  });
  app.get<{ Querystring: { alive?: string; tag?: string; name?: string } }>('/sandbox/state', (request) => {
    const { alive, tag, name } = request.query;
    const droplets = readState(world, { alive: alive === undefined ? undefined : alive === '1' || alive === 'true', tag, name });
    return { now: new Date(nowMs(world)).toISOString(), alive: droplets.filter((line) => line.alive).length, droplets };
  });
  app.get<{ Querystring: { summary?: string; since?: string } }>('/sandbox/ledger', (request) => {
    const { summary, since } = request.query;
    if (summary !== undefined && summary !== '0') return summarizeLedger(world.ledger);
    return { total: world.ledger.total, requests: readLedger(world.ledger, Number(since ?? 0) || 0) };
  });
  app.delete('/sandbox/ledger', async (_request, reply) => {
    clearLedger(world.ledger);
    await reply.code(204).send();
  });
  app.get('/sandbox/faults', () => readFaults(world.faultBox));
  app.post('/sandbox/faults', (request) => {
    mergeFaults(world.faultBox, readJson(request.body));
    return readFaults(world.faultBox);
  });
  app.delete('/sandbox/faults', async (_request, reply) => {
    resetFaults(world.faultBox);
    await reply.code(204).send();
  });
  app.post('/sandbox/droplets', async (request, reply) => {
    await reply.code(201).send({ droplet: addForeignDroplet(world, readJson(request.body)) });
  });
  app.patch<{ Params: { id: string } }>('/sandbox/droplets/:id', async (request, reply) => {
    const droplet = editDroplet(world, Number(request.params.id), readJson(request.body));
    if (droplet === undefined) await reply.code(404).send({ id: 'not_found', message: `no droplet ${request.params.id}` });
    else await reply.send({ droplet });
  });
  app.get<{ Params: { id: string } }>('/sandbox/droplets/:id/user-data', async (request, reply) => {
    const userData = readUserData(world, Number(request.params.id));
    if (userData === undefined) await reply.code(404).send({ id: 'not_found', message: `no droplet ${request.params.id}` });
    else await reply.type('text/plain; charset=utf-8').send(userData);
  });
  app.post('/sandbox/clock', (request) => {
    world.clock.advancedMs += parse(z.strictObject({ advanceMs: z.number().min(0) }), readJson(request.body)).advanceMs;
    return { now: new Date(nowMs(world)).toISOString() };
  });
  app.post('/sandbox/reset', async (_request, reply) => {
    resetWorld(world);
    await reply.code(204).send();
  });
}

function readJson(body: unknown): unknown {
  if (typeof body !== 'string' || body === '') return {};
  try {
    return JSON.parse(body);
  } catch (error) {
    throw new SandboxInputError('body: is not JSON', { cause: error });
  }
}

function parse<T extends z.ZodType>(schema: T, input: unknown): z.output<T> {
  const parsed = schema.safeParse(input);
  if (parsed.success) return parsed.data;
  throw new SandboxInputError(describeIssues(parsed.error));
}

function known<T>(value: T | undefined): T {
  if (value === undefined) throw new SandboxInputError('is not in the catalogue of the sandbox');
  return value;
}
