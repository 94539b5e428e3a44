// Compares the desired and the actual state. Pure.
import type { JsonObject } from '../platform/json.ts';
import { textOf } from '../platform/json.ts';

export type DriftField = 'existence' | 'size_slug' | 'region' | 'image' | 'power_state';

export const driftFields: readonly DriftField[] = ['existence', 'size_slug', 'region', 'image', 'power_state'];

/** The actual state, as the inventory knows it. */
export type Actual = Readonly<{
  isDeleted: boolean;
  sizeSlug: string | null;
  region: string | null;
  image: Readonly<{ id: number; slug: string | null }> | null;
  /** `active`, `off`, …; `provisioning` and `unknown` cannot be compared. */
  status: string;
}>;

/** One difference. */
export type Difference = Readonly<{ field: DriftField; desired: string; actual: string }>;

const PASSING_STATES: ReadonlySet<string> = new Set(['provisioning', 'unknown']);

/**
 * Finds the differences.
 *
 * @param spec `{size_slug, region, image, power_state?}`; omitted and null fields may have any value
 */
export function findDifferences(spec: JsonObject, actual: Actual): Difference[] {
  if (actual.isDeleted) return [{ field: 'existence', desired: 'present', actual: 'absent' }];
  const differences: Difference[] = [];
  const size = textOf(spec['size_slug']);
  if (size !== '' && actual.sizeSlug !== null && !isSame(size, actual.sizeSlug)) differences.push({ field: 'size_slug', desired: size, actual: actual.sizeSlug });
  const region = textOf(spec['region']);
  if (region !== '' && actual.region !== null && !isIn(actual.region, region)) differences.push({ field: 'region', desired: region, actual: actual.region });
  const image = textOf(spec['image']);
  if (image !== '' && actual.image !== null && !isOf(actual.image, image)) {
    differences.push({ field: 'image', desired: image, actual: /^\d+$/.test(image) ? String(actual.image.id) : (actual.image.slug ?? String(actual.image.id)) });
  }
  const powerState = textOf(spec['power_state'], 'active');
  if (!PASSING_STATES.has(actual.status) && actual.status !== powerState) differences.push({ field: 'power_state', desired: powerState, actual: actual.status });
  return differences;
}

/** DigitalOcean accepts slugs in any case and returns its own spelling. */
function isSame(slug: string, other: string): boolean {
  return slug.toLowerCase() === other.toLowerCase();
}

/** A create may request `nyc`, and then any of `nyc1`, `nyc2`, … matches. */
function isIn(actual: string, desired: string): boolean {
  return isSame(actual, desired) || (/[a-z]$/i.test(desired) && isSame(actual.slice(0, desired.length), desired) && /^\d+$/.test(actual.slice(desired.length)));
}

/** DigitalOcean moves a slug to a newer image. A droplet whose image has no slug may therefore match what was requested. */
function isOf(actual: { id: number; slug: string | null }, desired: string): boolean {
  if (/^\d+$/.test(desired)) return String(actual.id) === desired;
  return actual.slug === null || isSame(actual.slug, desired);
}

/** Returns the desired state after a difference is accepted; null: nothing is desired any more. */
export function acceptDifference(spec: JsonObject, { field, actual }: Pick<Difference, 'field' | 'actual'>): JsonObject | null {
  return field === 'existence' ? null : { ...spec, [field]: actual };
}
