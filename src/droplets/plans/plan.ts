// The plan of a provision: whether its input is possible now, what the droplet costs, and when the saga would start. The HTTP
// API, the command line and the start page all show this plan. Planning creates nothing.
import type { DigitalOceanClient } from '../../do/client.ts';
import type { Directory } from '../../do/directory.ts';
import { DigitalOceanError } from '../../do/errors.ts';
import type { ReadList } from '../../do/kept-list.ts';
import type { Offers } from '../../do/offers.ts';
import type { Image } from '../../do/schemas.ts';
import type { ProvisionDropletInput } from '../../steps/inputs.ts';
import type { CloudFacts, PlanCheck, PlanPolicy, PlanPrice, Seen } from './checks.ts';
import { checkCloud, checkPolicy, findImage, mayBeAmong, priceOf, seen, unseen } from './checks.ts';
import type { FleetFactsOfPlan, PlanStart } from './start.ts';
import { judgeStart } from './start.ts';

/**
 * A plan. `possible`: `no` if a check found a problem, `unknown` if none did but one could not be made. It holds for the moment:
 * the create itself decides.
 */
export type Plan = Readonly<{
  possible: 'yes' | 'no' | 'unknown';
  checks: readonly PlanCheck[];
  price: PlanPrice;
  start: PlanStart;
  /** Age of the oldest list of regions, sizes and images that the plan used, in seconds; null: it used none. */
  listsAgeSeconds: number | null;
}>;

/** DigitalOcean, for planning. Its requests should have the lowest priority. */
export type PlanCloud = Readonly<{
  client: Pick<DigitalOceanClient, 'getAccount' | 'countDroplets' | 'getImage' | 'listVpcs'>;
  offers: Offers;
  directory: Directory;
}>;

export type PlanDeps = Readonly<{
  /** Null: this process has no token, so it cannot ask DigitalOcean. */
  cloud: PlanCloud | null;
  policy: PlanPolicy;
  /** What the database and the queues know. Throws if Postgres is unreachable. */
  fleet: () => Promise<FleetFactsOfPlan>;
}>;

/** How old the lists of regions, sizes and images may be, in milliseconds. */
export const OFFERS_KEPT_MS = 300_000;
/** The same for SSH keys and projects, which people add and then use at once. */
export const NAMES_KEPT_MS = 15_000;

const NO_TOKEN = 'this process has no DIGITALOCEAN_TOKEN';

/**
 * Plans a provision. What could not be read becomes a check with the result `unknown`.
 *
 * @throws if Postgres is unreachable
 */
export async function planProvision(input: ProvisionDropletInput, { cloud, policy, fleet }: PlanDeps): Promise<Plan> {
  const [facts, known] = await Promise.all([readCloud(input, cloud), fleet()]);
  const checks = [...checkCloud(input, facts, known), ...checkPolicy(input, policy)];
  return {
    possible: checks.some(({ result }) => result === 'problem') ? 'no' : checks.some(({ result }) => result === 'unknown') ? 'unknown' : 'yes',
    checks,
    price: priceOf(input, facts),
    start: judgeStart(input, known),
    listsAgeSeconds: oldestOf(facts),
  };
}

async function readCloud(input: ProvisionDropletInput, cloud: PlanCloud | null): Promise<CloudFacts> {
  const ask = async <T>(read: (from: PlanCloud) => Promise<T>): Promise<Seen<T>> => (cloud === null ? unseen(NO_TOKEN) : see(() => read(cloud)));
  const list = async <T>(read: (from: PlanCloud) => ReadList<T>, maxAgeMs: number): Promise<Seen<readonly T[]>> => (cloud === null ? unseen(NO_TOKEN) : seeList(read(cloud), maxAgeMs));
  // SSH keys by id cost a read too: DigitalOcean refuses a create with an id that it does not know.
  const [account, droplets, regions, sizes, images, sshKeys, projects, vpcs] = await Promise.all([
    ask(({ client }) => client.getAccount()),
    ask(async ({ client }) => {
      const [plain, gpus] = await Promise.all([client.countDroplets(), client.countDroplets('gpus')]);
      return { plain, gpus };
    }),
    list(({ offers }) => offers.regions, OFFERS_KEPT_MS),
    list(({ offers }) => offers.sizes, OFFERS_KEPT_MS),
    list(({ offers }) => offers.images, OFFERS_KEPT_MS),
    ifGiven((input.ssh_keys ?? []).length > 0, () => namesOf(({ directory }) => directory.sshKeys, cloud, (keys) => (input.ssh_keys ?? []).every((entry) => mayBeAmong(keys, entry)))),
    ifGiven(input.project !== undefined, () => namesOf(({ directory }) => directory.projects, cloud, (found) => found.some(({ id, name }) => id === input.project?.toLowerCase() || name === input.project))),
    ifGiven(input.vpc_uuid !== undefined, () => ask(({ client }) => client.listVpcs())),
  ]);
  return { account, droplets, regions, sizes, images, image: await seeImage(input.image, images, ask), sshKeys, projects, vpcs };
}

async function ifGiven<T>(isGiven: boolean, read: () => Promise<Seen<T>>): Promise<Seen<T> | null> {
  return isGiven ? read() : null;
}

/** A name that a cached list lacks may be new: the list is read again. */
async function namesOf<T>(listOf: (from: PlanCloud) => ReadList<T>, cloud: PlanCloud | null, hasAll: (items: readonly T[]) => boolean): Promise<Seen<readonly T[]>> {
  if (cloud === null) return unseen(NO_TOKEN);
  const kept = await seeList(listOf(cloud), NAMES_KEPT_MS);
  return kept.kind === 'unseen' || kept.ageMs === 0 || hasAll(kept.value) ? kept : seeList(listOf(cloud), 0);
}

/** An image that the list lacks may be new, so DigitalOcean is asked for it by its name. */
async function seeImage(wanted: string | number, images: Seen<readonly Image[]>, ask: <T>(read: (from: PlanCloud) => Promise<T>) => Promise<Seen<T>>): Promise<Seen<Image | null>> {
  const listed = images.kind === 'seen' ? findImage(images.value, wanted) : undefined;
  if (listed !== undefined) return seen(listed);
  // `..` in the path would be another path.
  return /^\.+$/.test(String(wanted)) ? seen(null) : ask(({ client }) => client.getImage(wanted));
}

async function seeList<T>(read: ReadList<T>, maxAgeMs: number): Promise<Seen<readonly T[]>> {
  try {
    const { items, ageMs } = await read(maxAgeMs);
    return seen(items, ageMs);
  } catch (error) {
    return unseenFor(error);
  }
}

async function see<T>(read: () => Promise<T>): Promise<Seen<T>> {
  try {
    return seen(await read());
  } catch (error) {
    return unseenFor(error);
  }
}

/** Says why DigitalOcean could not be read. */
export function unseenFor(error: unknown): Extract<Seen<never>, { kind: 'unseen' }> {
  if (!(error instanceof DigitalOceanError)) throw error;
  const { kind, status, message, retryAfterMs, hold } = error;
  if (kind === 'throttled') return unseen(`the budget of requests to DigitalOcean is used up for about ${Math.ceil((retryAfterMs ?? 0) / 1_000)} s`);
  if (status === 401) return { ...unseen('DigitalOcean refuses the token'), isTokenRefused: true };
  if (status === 403) return unseen(`the token lacks the scope ${hold?.scopes.join(' or ') ?? ''}`.trim());
  return unseen(message);
}

function oldestOf({ regions, sizes, images }: CloudFacts): number | null {
  const ages = [regions, sizes, images].flatMap((list) => (list.kind === 'seen' ? [list.ageMs] : []));
  return ages.length === 0 ? null : Math.round(Math.max(...ages) / 1_000);
}
