// Routes of /v2/vpcs: private networks. Each region initially has a default one.
import { randomUUID } from 'node:crypto';
import { z } from 'zod';
import type { Answer, Call } from './answer.ts';
import { errorAnswer, notFound, pageAnswer, unprocessable } from './answer.ts';
import { findRegion } from './catalog.ts';
import { exists } from './droplet-state.ts';
import { isoSeconds } from './droplet-view.ts';
import type { Vpc } from './vpc-store.ts';
import { nowMs, type World } from './world.ts';

const name = z.string().regex(/^[a-zA-Z0-9\-.]+$/u, 'name may only contain alphanumeric characters, dashes and periods');
const description = z.string().max(255, 'description may have at most 255 characters');
const createSchema = z.object({ name, region: z.string('region is required'), description: description.nullish(), ip_range: z.string().nullish() });
const updateSchema = z.object({ name: name.optional(), description: description.optional(), default: z.boolean().optional() });

/** GET /v2/vpcs */
export function listVpcs(world: World, call: Call): Answer {
  return pageAnswer(call, 'vpcs', [...world.vpcs.values()], (vpc) => vpc, world.faultBox.settings.nextHost);
}

/** POST /v2/vpcs */
export function createVpc(world: World, call: Call): Answer {
  const parsed = createSchema.safeParse(call.body);
  if (!parsed.success) return unprocessable(call, parsed.error.issues[0]?.message ?? 'Unable to parse request body.');
  const region = findRegion(parsed.data.region);
  if (region === undefined) return unprocessable(call, 'region is invalid');
  if (isNameTaken(world, parsed.data.name)) return unprocessable(call, 'name must be unique');
  const range = parsed.data.ip_range ?? freeRange(world);
  const [base, bits] = readRange(range) ?? [];
  if (base === undefined || bits === undefined || bits < 16 || bits > 28) return unprocessable(call, 'ip_range must be a private network of /16 to /28 in CIDR notation');
  if ([...world.vpcs.values()].some((vpc) => overlaps(vpc.ip_range, range))) return unprocessable(call, 'This range/size overlaps with another VPC network in your account');
  const id = randomUUID();
  const vpc: Vpc = { id, urn: `do:vpc:${id}`, name: parsed.data.name, description: parsed.data.description ?? '', region: region.slug, ip_range: range, default: false, created_at: isoSeconds(nowMs(world)) };
  world.vpcs.set(id, vpc);
  return { status: 201, body: { vpc } };
}

/** GET /v2/vpcs/:vpcId */
export function getVpc(world: World, call: Call): Answer {
  const vpc = findVpc(world, call);
  return vpc === undefined ? notFound(call) : { status: 200, body: { vpc } };
}

/** PUT and PATCH /v2/vpcs/:vpcId: name, description, and whether it is the default of its region. */
export function updateVpc(world: World, call: Call): Answer {
  const vpc = findVpc(world, call);
  if (vpc === undefined) return notFound(call);
  const parsed = updateSchema.safeParse(call.body);
  if (!parsed.success) return unprocessable(call, parsed.error.issues[0]?.message ?? 'Unable to parse request body.');
  if (parsed.data.name !== undefined && parsed.data.name !== vpc.name && isNameTaken(world, parsed.data.name)) return unprocessable(call, 'name must be unique');
  const becomesDefault = parsed.data.default === true;
  if (becomesDefault) for (const other of world.vpcs.values()) if (other.region === vpc.region) world.vpcs.set(other.id, { ...other, default: false });
  const changed: Vpc = { ...vpc, name: parsed.data.name ?? vpc.name, description: parsed.data.description ?? vpc.description, default: becomesDefault || vpc.default };
  world.vpcs.set(vpc.id, changed);
  return { status: 200, body: { vpc: changed } };
}

/** DELETE /v2/vpcs/:vpcId. Refuses a region's default VPC and one with droplets. */
export function deleteVpc(world: World, call: Call): Answer {
  const vpc = findVpc(world, call);
  if (vpc === undefined) return notFound(call);
  if (vpc.default) return errorAnswer(call, 403, 'forbidden', 'Can not delete default VPCs');
  if (membersOf(world, vpc).length > 0) return errorAnswer(call, 403, 'forbidden', 'Can not delete VPC with members');
  world.vpcs.delete(vpc.id);
  return { status: 204 };
}

/** GET /v2/vpcs/:vpcId/members: the droplets in it. */
export function listVpcMembers(world: World, call: Call): Answer {
  const vpc = findVpc(world, call);
  if (vpc === undefined) return notFound(call);
  return pageAnswer(call, 'members', membersOf(world, vpc), (droplet) => ({ urn: `do:droplet:${droplet.id}`, name: droplet.name, created_at: isoSeconds(droplet.createdAtMs) }), world.faultBox.settings.nextHost);
}

function findVpc(world: World, call: Call): Vpc | undefined {
  return world.vpcs.get((call.params['vpcId'] ?? '').toLowerCase());
}

function isNameTaken(world: World, wanted: string): boolean {
  return [...world.vpcs.values()].some((vpc) => vpc.name === wanted);
}

function membersOf(world: World, vpc: Vpc) {
  return [...world.store.byId.values()].filter((droplet) => droplet.vpcUuid === vpc.id && exists(droplet, nowMs(world)));
}

function freeRange(world: World): string {
  for (let second = 120; ; second += 1) {
    const range = `10.${second}.0.0/20`;
    if (![...world.vpcs.values()].some((vpc) => overlaps(vpc.ip_range, range))) return range;
  }
}

/** Parses a private network (RFC 1918) into its first address as a number and its prefix length; null for anything else. */
function readRange(range: string): [number, number] | null {
  const [, ...parts] = /^(\d{1,3})\.(\d{1,3})\.(\d{1,3})\.(\d{1,3})\/(\d{1,2})$/u.exec(range) ?? [];
  const [a = -1, b = -1, c = -1, d = -1, bits = -1] = parts.map(Number);
  const isAddress = [a, b, c, d].every((part) => part >= 0 && part <= 255) && bits >= 0 && bits <= 32;
  const isPrivate = a === 10 || (a === 172 && b >= 16 && b <= 31) || (a === 192 && b === 168);
  return isAddress && isPrivate ? [((a * 256 + b) * 256 + c) * 256 + d, bits] : null;
}

function overlaps(one: string, other: string): boolean {
  const [first, second] = [readRange(one), readRange(other)];
  if (first === null || second === null) return false;
  const size = 2 ** (32 - Math.min(first[1], second[1]));
  return Math.floor(first[0] / size) === Math.floor(second[0] / size);
}
