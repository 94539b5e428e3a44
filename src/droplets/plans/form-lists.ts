// The lists that a form for a provision offers. A list that cannot be read is null: the form then has a text field.
import { withDeadline } from '../../platform/deadline.ts';
import type { ReadList } from '../../do/kept-list.ts';
import { describePrice } from './checks.ts';
import type { PlanCloud } from './plan.ts';
import { NAMES_KEPT_MS, OFFERS_KEPT_MS, unseenFor } from './plan.ts';

/** An entry of a list: what the input takes, and what people read. `group`: a heading; empty: none. */
type FormOption = Readonly<{ value: string; text: string; group: string }>;

export type FormLists = Readonly<{
  regions: readonly FormOption[] | null;
  sizes: readonly FormOption[] | null;
  images: readonly FormOption[] | null;
  sshKeys: readonly FormOption[] | null;
  projects: readonly FormOption[] | null;
  /** Why a list could not be read; null: all were. */
  why: string | null;
  /** Age of the oldest list of regions, sizes and images, in seconds; null: none was read. */
  ageSeconds: number | null;
}>;

const NONE: FormLists = { regions: null, sizes: null, images: null, sshKeys: null, projects: null, why: 'this process has no DIGITALOCEAN_TOKEN', ageSeconds: null };

// A page must not wait for long.
const READ_WITHIN_MS = 4_000;

/** Reads the lists, cached for minutes. Never rejects because of DigitalOcean. */
export async function readFormLists(cloud: PlanCloud | null): Promise<FormLists> {
  if (cloud === null) return NONE;
  const { offers, directory } = cloud;
  const [regions, sizes, images, sshKeys, projects] = await Promise.all([
    readOne(offers.regions, OFFERS_KEPT_MS),
    readOne(offers.sizes, OFFERS_KEPT_MS),
    readOne(offers.images, OFFERS_KEPT_MS),
    readOne(directory.sshKeys, NAMES_KEPT_MS),
    readOne(directory.projects, NAMES_KEPT_MS),
  ]);
  const ages = [regions, sizes, images].flatMap((list) => (list.items === null ? [] : [list.ageMs]));
  return {
    regions: regions.items?.filter(({ available }) => available !== false).map(({ slug, name }) => ({ value: slug, text: name === '' ? slug : `${name} (${slug})`, group: '' })).toSorted(byText) ?? null,
    sizes: sizes.items?.filter(({ available }) => available !== false).toSorted((one, other) => (one.price_hourly ?? 0) - (other.price_hourly ?? 0)).map((size) => ({ value: size.slug, text: `${size.slug}: ${describePrice({ usdPerHour: size.price_hourly, usdPerMonth: size.price_monthly })}`, group: size.description })) ?? null,
    images: images.items?.filter(({ status }) => status === null || status === 'available').map(({ id, slug, name, distribution, public: isPublic }) => ({ value: slug ?? String(id), text: `${isPublic ? `${distribution} ` : ''}${name} (${slug ?? id})`, group: isPublic ? distribution : 'Your images' })).toSorted(byText) ?? null,
    sshKeys: sshKeys.items?.map(({ id, name }) => ({ value: String(id), text: name === '' ? String(id) : name, group: '' })).toSorted(byText) ?? null,
    projects: projects.items?.map(({ id, name }) => ({ value: id, text: name === '' ? id : name, group: '' })).toSorted(byText) ?? null,
    why: [regions, sizes, images, sshKeys, projects].flatMap(({ why }) => why ?? [])[0] ?? null,
    ageSeconds: ages.length === 0 ? null : Math.round(Math.max(...ages) / 1_000),
  };
}

type ReadOne<T> = Readonly<{ items: readonly T[]; ageMs: number; why: null }> | Readonly<{ items: null; why: string }>;

async function readOne<T>(list: ReadList<T>, maxAgeMs: number): Promise<ReadOne<T>> {
  try {
    return { ...(await withDeadline(READ_WITHIN_MS, list(maxAgeMs), () => new LateError())), why: null };
  } catch (error) {
    return { items: null, why: error instanceof LateError ? error.message : unseenFor(error).why };
  }
}

class LateError extends Error {
  override readonly name = 'LateError';

  constructor() {
    super(`DigitalOcean did not answer within ${READ_WITHIN_MS / 1_000} s`);
  }
}

function byText(one: FormOption, other: FormOption): number {
  return one.group.localeCompare(other.group) || one.text.localeCompare(other.text);
}
