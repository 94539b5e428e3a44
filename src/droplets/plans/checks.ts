// The checks of a plan. Pure: what DigitalOcean and this process know goes in, checks and the price come out.
import type { Account, Image, Project, Region, Size, SshKey, Vpc } from '../../do/schemas.ts';
import { formatDuration } from '../../platform/duration.ts';
import { counted, shorten, visible } from '../../platform/text.ts';
import { StepFailure } from '../../saga/step.ts';
import type { ProvisionDropletInput } from '../../steps/inputs.ts';
import type { LeasePolicy } from '../../steps/lease.ts';
import { leaseOf } from '../../steps/lease.ts';
import { isName } from '../../steps/named.ts';
import { nearestFirst } from '../../steps/near.ts';

const checkNames = ['account', 'room', 'region', 'size', 'image', 'ssh_keys', 'project', 'vpc_uuid', 'volumes', 'user_data', 'ready', 'lease'] as const;

/**
 * One check of a plan, in a sentence. `problem`: the create would be refused. `unknown`: the check could not be made. `name`: the
 * field of the input, or `account` and `room` (in the account, for one more droplet).
 */
export type PlanCheck = Readonly<{ name: (typeof checkNames)[number]; result: 'ok' | 'problem' | 'unknown'; message: string }>;

/** The price of a droplet by DigitalOcean's list, in USD. `usdPerMonth` is the most that a month costs. Null: could not be read. */
export type PlanPrice = Readonly<{ usdPerHour: number | null; usdPerMonth: number | null; message: string }>;

/** What was read, and how old it is; or why it could not be read. */
export type Seen<T> = Readonly<{ kind: 'seen'; value: T; ageMs: number }> | Readonly<{ kind: 'unseen'; why: string; isTokenRefused?: true }>;

/** What DigitalOcean says. Null: the input does not need it. `image`: the wanted one; null: there is none. */
export type CloudFacts = Readonly<{
  account: Seen<Account>;
  droplets: Seen<Readonly<{ plain: number; gpus: number }>>;
  regions: Seen<readonly Region[]>;
  sizes: Seen<readonly Size[]>;
  images: Seen<readonly Image[]>;
  image: Seen<Image | null>;
  sshKeys: Seen<readonly SshKey[]> | null;
  projects: Seen<readonly Project[]> | null;
  vpcs: Seen<readonly Vpc[]> | null;
}>;

/** What the database knows: sagas whose create is under way, and the account that its droplets belong to. */
export type KnownFacts = Readonly<{ creating: number; account: string | null }>;

/** How this process is configured. `canSeal`: it has a key for user data. */
export type PlanPolicy = Readonly<{ lease: LeasePolicy; canSeal: boolean; publicUrl: string | null }>;

const MOST_NAMES = 5;
const MOST_COMPARED = 1_000;

export function seen<T>(value: T, ageMs = 0): Extract<Seen<T>, { kind: 'seen' }> {
  return { kind: 'seen', value, ageMs };
}

export function unseen(why: string): Extract<Seen<never>, { kind: 'unseen' }> {
  return { kind: 'unseen', why };
}

/** Finds an image by id, or by slug. */
export function findImage(images: readonly Image[], wanted: string | number): Image | undefined {
  return images.find(({ id, slug }) => id === wanted || String(id) === wanted || slug === String(wanted).toLowerCase());
}

/** The checks against DigitalOcean. */
export function checkCloud(input: ProvisionDropletInput, facts: CloudFacts, known: KnownFacts): PlanCheck[] {
  const region = checkRegion(input, facts.regions);
  const size = checkSize(input, facts.sizes, region.places);
  const sized = facts.sizes.kind === 'seen' ? findSize(facts.sizes.value, input.size) : undefined;
  return [
    checkAccount(facts.account, known),
    checkRoom(facts, known),
    region.check,
    size.check,
    checkImage(input, facts, { places: size.places, size: sized }),
    ...(facts.sshKeys === null ? [] : [checkSshKeys(input, facts.sshKeys)]),
    ...(facts.projects === null ? [] : [checkProject(input, facts.projects)]),
    ...(facts.vpcs === null ? [] : [checkVpc(input, facts.vpcs)]),
    ...((input.volumes ?? []).length === 0 ? [] : [unknown('volumes', 'Volumes are not checked: only the create shows whether they can be attached.')]),
  ];
}

/** The checks against the configuration of this process. */
export function checkPolicy(input: ProvisionDropletInput, { lease, canSeal, publicUrl }: PlanPolicy): PlanCheck[] {
  const checks: PlanCheck[] = [];
  if (input.user_data !== undefined && !canSeal) checks.push(problem('user_data', 'User data cannot be sealed: ARCADIA_ENCRYPTION_KEYS is not set here.'));
  else if (input.user_data !== undefined) checks.push(ok('user_data', 'User data is sealed until it is sent.'));
  if (input.ready?.callback === true && publicUrl === null) checks.push(problem('ready', 'The droplet cannot call back: PUBLIC_URL is not set here.'));
  try {
    const terms = leaseOf({ input }, lease);
    if (terms !== null) checks.push(ok('lease', `The droplet is destroyed ${formatDuration(terms.ttl_s * 1_000)} after its create, unless somebody renews the lease.`));
  } catch (error) {
    if (!(error instanceof StepFailure)) throw error;
    checks.push(problem('lease', `${error.message}.`));
  }
  return checks;
}

/** The price of the droplet. What it needs beside it is not in DigitalOcean's list of sizes. */
export function priceOf(input: ProvisionDropletInput, { sizes }: Pick<CloudFacts, 'sizes'>): PlanPrice {
  if (sizes.kind === 'unseen') return { usdPerHour: null, usdPerMonth: null, message: `The price could not be read: ${sizes.why}.` };
  const size = findSize(sizes.value, input.size);
  if (size === undefined) return { usdPerHour: null, usdPerMonth: null, message: 'The price is not known, because there is no such size.' };
  const { price_hourly: usdPerHour, price_monthly: usdPerMonth } = size;
  const extra = [...(input.backups === true ? ['backups'] : []), ...((input.volumes ?? []).length > 0 ? ['volumes'] : [])];
  const more = extra.length === 0 ? '' : ` ${sentenceCase(extra.join(' and '))} cost extra.`;
  return { usdPerHour, usdPerMonth, message: `${describePrice({ usdPerHour, usdPerMonth })}.${more}` };
}

/** Such as "$0.00893 an hour, at most $6.00 a month". */
export function describePrice({ usdPerHour, usdPerMonth }: Pick<PlanPrice, 'usdPerHour' | 'usdPerMonth'>): string {
  const hourly = usdPerHour === null ? 'Price per hour not known' : `$${trimmed(usdPerHour)} an hour`;
  return usdPerMonth === null ? `${hourly}, price per month not known` : `${hourly}, at most $${usdPerMonth.toFixed(2)} a month`;
}

function trimmed(amount: number): string {
  const exact = amount.toFixed(5).replace(/0+$/, '');
  return /\.\d{2,}$/.test(exact) ? exact : amount.toFixed(2);
}

function sentenceCase(text: string): string {
  return text.charAt(0).toUpperCase() + text.slice(1);
}

function checkAccount(account: Seen<Account>, { account: onRecord }: KnownFacts): PlanCheck {
  if (account.kind === 'unseen') return account.isTokenRefused === true ? problem('account', 'DigitalOcean refuses the token (401). Check DIGITALOCEAN_TOKEN.') : unread('account', 'The account', account.why);
  const { id, status, statusMessage } = account.value;
  const words = statusMessage === '' ? '' : `: ${quoteLess(statusMessage)}`;
  if (onRecord !== null && onRecord !== id) return problem('account', `The token belongs to the account ${id}, but the droplets of this database are in the account ${onRecord}.`);
  if (status === 'locked') return problem('account', `The account is locked${words}`.replace(/\.?$/, '.'));
  return ok('account', status === 'warning' ? `The account has a warning${words}`.replace(/\.?$/, '.') : 'The account is active.');
}

function checkRoom({ account, droplets }: CloudFacts, { creating }: KnownFacts): PlanCheck {
  if (account.kind === 'unseen') return unread('room', 'The droplet limit', account.why);
  if (droplets.kind === 'unseen') return unread('room', 'The number of droplets', droplets.why);
  const { dropletLimit: limit } = account.value;
  if (limit === null) return unread('room', 'The droplet limit', 'the token lacks the scope droplet:read');
  const { plain, gpus } = droplets.value;
  const count = `The account has ${plain + gpus} of ${limit} droplets${gpus === 0 ? '' : `, ${gpus} of them with GPUs`}`;
  const more = creating === 0 ? '' : `, and ${creating} more ${creating === 1 ? 'is' : 'are'} being created`;
  if (plain + creating >= limit) return problem('room', `${count}${more}: there is no room for another one.`);
  if (plain + gpus + creating >= limit) return unknown('room', `${count}${more}. DigitalOcean does not say whether droplets with GPUs count.`);
  return ok('room', `${count}${more}.`);
}

type Places = readonly string[] | null;

/** A slug, or a prefix such as `nyc`: then DigitalOcean chooses one of its regions. */
function candidatesOf(wanted: string, slugs: readonly string[]): string[] {
  const prefix = wanted.toLowerCase();
  return slugs.includes(prefix) ? [prefix] : slugs.filter((slug) => slug.startsWith(prefix));
}

/** @returns `places`: the regions that it may be; null: not known */
function checkRegion(input: ProvisionDropletInput, regions: Seen<readonly Region[]>): { check: PlanCheck; places: Places } {
  if (regions.kind === 'unseen') return { check: unread('region', 'The regions', regions.why), places: null };
  const slugs = candidatesOf(input.region, regions.value.map(({ slug }) => slug));
  if (slugs.length === 0) return { check: problem('region', `There is no region ${quote(input.region)}. ${nearest(input.region, regions.value.map(({ slug }) => slug))}`), places: null };
  const found = regions.value.filter(({ slug }) => slugs.includes(slug));
  const open = found.filter(({ available }) => available !== false);
  const places = open.map(({ slug }) => slug);
  if (open.length === 0) return { check: problem('region', `${listOf(slugs)} ${found.length === 1 ? 'takes' : 'take'} no new droplets at the moment.`), places: slugs };
  const needed = [...(input.backups === true ? ['backups'] : []), ...(input.ipv6 === true ? ['ipv6'] : [])];
  const lacking = needed.filter((feature) => open.every(({ features }) => features !== null && !features.includes(feature)));
  if (lacking.length > 0) return { check: problem('region', `${listOf(places)} ${open.length === 1 ? 'has' : 'have'} no ${lacking.join(' and ')}.`), places };
  if (open.every(({ available }) => available === null)) return { check: unknown('region', `Whether ${listOf(places)} takes new droplets could not be read.`), places };
  const names = open.map(({ slug, name }) => (name === '' ? slug : `${slug} (${quoteLess(name)})`));
  return { check: ok('region', open.length === 1 ? `${listOf(names)} takes new droplets.` : `DigitalOcean chooses one of ${listOf(names)}.`), places };
}

function findSize(sizes: readonly Size[], wanted: string): Size | undefined {
  return sizes.find(({ slug }) => slug === wanted.toLowerCase());
}

/** @returns `places`: the regions that are left; null: not known */
function checkSize(input: ProvisionDropletInput, sizes: Seen<readonly Size[]>, places: Places): { check: PlanCheck; places: Places } {
  if (sizes.kind === 'unseen') return { check: unread('size', 'The sizes', sizes.why), places };
  const size = findSize(sizes.value, input.size);
  if (size === undefined) return { check: problem('size', `There is no size ${quote(input.size)}. ${nearest(input.size, sizes.value.map(({ slug }) => slug))}`), places };
  const what = describeSize(size);
  if (size.available === false) return { check: problem('size', `${what} is not available for new droplets.`), places };
  if (size.regions === null) return { check: unknown('size', `Where ${what} is available could not be read.`), places };
  const { regions } = size;
  const left = places === null ? candidatesOf(input.region, regions) : places.filter((slug) => regions.includes(slug));
  if (left.length > 0) return { check: ok('size', `${what} is available in ${listOf(left)}.`), places: left };
  return { check: problem('size', `${what} is not available in ${quoteLess(input.region)}. It is available in ${regions.length === 0 ? 'no region' : listOf(regions.toSorted())}.`), places };
}

function describeSize({ slug, vcpus, memory, disk }: Size): string {
  const parts = [vcpus === null ? null : `${vcpus} vCPU`, memory === null ? null : memory < 1_024 ? `${memory} MB` : `${memory / 1_024} GB`, disk === null ? null : `${disk} GB disk`].filter((part) => part !== null);
  return parts.length === 0 ? slug : `${slug} (${parts.join(', ')})`;
}

function checkImage(input: ProvisionDropletInput, { image, images }: CloudFacts, { places, size }: { places: Places; size: Size | undefined }): PlanCheck {
  if (image.kind === 'unseen') return unread('image', 'The image', image.why);
  if (image.value === null) {
    const slugs = images.kind === 'seen' ? images.value.flatMap(({ slug }) => slug ?? []) : [];
    return problem('image', `The account can use no image ${quote(String(input.image))}. ${typeof input.image === 'number' || slugs.length === 0 ? '' : nearest(input.image, slugs)}`.trim());
  }
  const { slug, id, name, distribution, regions, min_disk_size: minDisk, status } = image.value;
  const title = [distribution, name].filter((part) => part !== '').join(' ');
  const what = `${slug ?? id}${title === '' ? '' : ` (${quoteLess(title)})`}`;
  if (status !== null && status !== 'available') return problem('image', `${what} cannot be used: its status is ${quoteLess(status)}.`);
  if (regions === null) return unknown('image', `Where ${what} is available could not be read.`);
  const left = places === null ? candidatesOf(input.region, regions) : places.filter((place) => regions.includes(place));
  if (left.length === 0) return problem('image', `${what} is not available in ${places === null ? quoteLess(input.region) : listOf(places)}. It is available in ${regions.length === 0 ? 'no region' : listOf(regions.toSorted())}.`);
  if (minDisk === null || size === undefined || size.disk === null) return unknown('image', `${what} is available in ${listOf(left)}. Whether the disk is large enough for it could not be read.`);
  if (size.disk < minDisk) return problem('image', `${what} needs a disk of ${minDisk} GB; ${size.slug} has ${size.disk} GB.`);
  return ok('image', `${what} is available in ${listOf(left)} and fits the disk.`);
}

function checkSshKeys({ ssh_keys: wanted = [] }: ProvisionDropletInput, keys: Seen<readonly SshKey[]>): PlanCheck {
  if (keys.kind === 'unseen') return unread('ssh_keys', 'The SSH keys', keys.why);
  let unchecked = 0;
  for (const entry of wanted) {
    const found = keys.value.filter((key) => isKey(key, entry));
    if (found.length > 1) return problem('ssh_keys', `The account has ${found.length} SSH keys called ${quote(String(entry))}. Give the id of the one that you mean.`);
    if (found.length === 0 && !isComparable(entry)) unchecked += 1;
    else if (found.length === 0) return problem('ssh_keys', noSuchKey(String(entry), isName(entry), keys.value));
  }
  if (unchecked > 0) return unknown('ssh_keys', `${counted(unchecked, 'SSH key')} could not be checked, because DigitalOcean shows no SHA256 fingerprints.`);
  return ok('ssh_keys', `The account has ${wanted.length === 1 ? 'the SSH key' : `all ${wanted.length} SSH keys`}.`);
}

/** Whether a key may be among the account's; of SHA256 fingerprints, which DigitalOcean does not show, it cannot be told. */
export function mayBeAmong(keys: readonly SshKey[], entry: string | number): boolean {
  return !isComparable(entry) || keys.some((key) => isKey(key, entry));
}

function isKey({ id, name, fingerprint }: SshKey, entry: string | number): boolean {
  return isName(entry) ? name === entry : String(id) === String(entry) || fingerprint.toLowerCase() === String(entry).toLowerCase();
}

function isComparable(entry: string | number): boolean {
  return !/^sha256:/i.test(String(entry));
}

function noSuchKey(wanted: string, isByName: boolean, keys: readonly SshKey[]): string {
  if (isByName) return `The account has no SSH key ${quote(wanted)}. ${nearest(wanted, keys.map(({ name }) => name))}`;
  const isId = /^\d+$/.test(wanted);
  const called = keys.filter(({ name }) => name === wanted).map(({ id }) => id);
  const instead = called.length === 0 ? '' : ` A key of that name has the id ${called.slice(0, MOST_NAMES).join(' or ')}: give that.`;
  return `The account has no SSH key with the ${isId ? 'id' : 'fingerprint'} ${quoteLess(wanted)}. ${isId ? 'Digits are read as an id, never as a name.' : 'This form is read as a fingerprint, never as a name.'}${instead}`;
}

function checkProject({ project = '' }: ProvisionDropletInput, projects: Seen<readonly Project[]>): PlanCheck {
  if (projects.kind === 'unseen') return unread('project', 'The projects', projects.why);
  const found = projects.value.filter(({ id, name }) => id === project.toLowerCase() || name === project);
  if (found.length > 1) return problem('project', `The account has ${found.length} projects called ${quote(project)}. Give the id of the one that you mean.`);
  if (found.length === 0) return problem('project', `The account has no project ${quote(project)}. ${nearest(project, projects.value.map(({ name }) => name))}`);
  return ok('project', 'The account has the project.');
}

function checkVpc({ vpc_uuid: wanted = '', region }: ProvisionDropletInput, vpcs: Seen<readonly Vpc[]>): PlanCheck {
  if (vpcs.kind === 'unseen') return unread('vpc_uuid', 'The VPCs', vpcs.why);
  const vpc = vpcs.value.find(({ id }) => id === wanted.toLowerCase());
  if (vpc === undefined) return problem('vpc_uuid', `The account has no VPC ${wanted}.`);
  if (vpc.region === null) return unknown('vpc_uuid', 'The region of the VPC could not be read.');
  if (!vpc.region.startsWith(region.toLowerCase())) return problem('vpc_uuid', `The VPC is in ${vpc.region}, not in ${quoteLess(region)}.`);
  return ok('vpc_uuid', `The VPC is in ${vpc.region}.`);
}

function nearest(wanted: string, names: readonly string[]): string {
  const known = [...new Set(names.filter((name) => name !== ''))];
  if (known.length === 0) return 'There is none.';
  return `The nearest ${known.length === 1 ? 'name is' : 'names are'} ${nearestFirst(wanted, known.slice(0, MOST_COMPARED)).slice(0, MOST_NAMES).map(quoteLess).join(', ')}.`;
}

function listOf(words: readonly string[]): string {
  return words.length < 2 ? (words[0] ?? '') : `${words.slice(0, -1).join(', ')} and ${words.at(-1)}`;
}

function quote(text: string): string {
  return JSON.stringify(quoteLess(text));
}

function quoteLess(text: string): string {
  return visible(shorten(text, 100));
}

function ok(name: PlanCheck['name'], message: string): PlanCheck {
  return { name, result: 'ok', message };
}

function problem(name: PlanCheck['name'], message: string): PlanCheck {
  return { name, result: 'problem', message };
}

function unknown(name: PlanCheck['name'], message: string): PlanCheck {
  return { name, result: 'unknown', message };
}

function unread(name: PlanCheck['name'], what: string, why: string): PlanCheck {
  return unknown(name, `${what} could not be read: ${why}.`);
}
