// Parses the body of POST /v2/droplets as leniently as the real API (nulls and unknown fields are accepted). Refuses what
// the API refuses, in its wording where error reports of its users show it.
import type { Image, Region, Size } from './catalog.ts';
import { defaultVpcId, findImage, findRegion, findSize, regions } from './catalog.ts';
import { isObject } from './json.ts';

/** A valid create. */
export type CreateRequest = {
  readonly names: readonly string[];
  readonly isMultiple: boolean;
  readonly size: Size;
  readonly image: Image;
  readonly region: Region;
  readonly tags: readonly string[];
  readonly features: readonly string[];
  readonly volumeIds: readonly string[];
  readonly vpcUuid: string;
  readonly publicNetworking: boolean;
  readonly ipv6: boolean;
  readonly backups: boolean;
  readonly userData: string;
};

const namePattern = /^[a-zA-Z0-9]?[a-z0-9A-Z.-]*[a-z0-9A-Z]$/u;
const tagPattern = /^[a-zA-Z0-9_\-:]+$/u;
const maxUserDataBytes = 65_536;
const maxNames = 10;

/**
 * Returns the create, or the message of the 422 response.
 *
 * @param ownImages images of the account, in addition to the catalog's
 */
export function readCreateRequest(input: unknown, ownImages: readonly Image[] = []): CreateRequest | string {
  if (!isObject(input)) return 'Unable to parse request body.';
  const names = readNames(input);
  if (typeof names === 'string') return names;
  const size = findSize(input['size']);
  if (size === undefined || !size.available) return 'You specified an invalid size for Droplet creation.';
  const image = findImage(input['image'], ownImages);
  if (image === undefined) return 'You specified an invalid image for Droplet creation.';
  const region = chooseRegion(input['region'], size, image);
  if (typeof region === 'string') return region;
  if (size.disk < image.min_disk_size) return `Cannot create a droplet with a smaller disk (${size.disk}GB) than the image (${image.min_disk_size}GB)`;
  const tags = readTags(input['tags']);
  if (typeof tags === 'string') return tags;
  const userData = typeof input['user_data'] === 'string' ? input['user_data'] : '';
  if (Buffer.byteLength(userData) > maxUserDataBytes) return 'User data is too long (maximum is 64 KiB).';
  if (!isListOrNull(input['ssh_keys'])) return 'SSH keys must be a list of ids or fingerprints.';
  return {
    names,
    isMultiple: Array.isArray(input['names']),
    size,
    image,
    region,
    tags,
    features: readFeatures(input),
    volumeIds: Array.isArray(input['volumes']) ? input['volumes'].map(String) : [],
    vpcUuid: typeof input['vpc_uuid'] === 'string' ? input['vpc_uuid'] : defaultVpcId(region.slug),
    publicNetworking: input['public_networking'] !== false,
    ipv6: input['ipv6'] === true,
    backups: input['backups'] === true,
    userData,
  };
}

/** Whether DigitalOcean allows this tag. */
export function isValidTag(tag: unknown): tag is string {
  return typeof tag === 'string' && tag.length <= 255 && tagPattern.test(tag);
}

/** The API's message for an invalid tag. */
export function invalidTagMessage(tag: unknown): string {
  return `Error validating resource tag: "tag-name ${JSON.stringify(tag)} contains invalid characters"`;
}

function readNames(input: Readonly<Record<string, unknown>>): readonly string[] | string {
  const names: unknown[] = Array.isArray(input['names']) ? input['names'] : [input['name']];
  if (names.length === 0 || names.some((name) => name === undefined || name === null || name === '')) return "Name can't be blank";
  if (names.length > maxNames) return `You can only create up to ${maxNames} Droplets at a time.`;
  return names.every(isHostname) ? names : 'Only valid hostname characters are allowed. (a-z, A-Z, 0-9, . and -)';
}

/** Whether a droplet may have this name. */
export function isHostname(name: unknown): name is string {
  return typeof name === 'string' && name.length <= 255 && namePattern.test(name);
}

// Without a region, or with a prefix such as `nyc`, the platform chooses.
function chooseRegion(wanted: unknown, size: Size, image: Image): Region | string {
  const fits = (region: Region): boolean => region.available && size.regions.includes(region.slug) && image.regions.includes(region.slug);
  const exact = findRegion(wanted);
  if (exact === undefined) {
    const prefix = typeof wanted === 'string' ? wanted.toLowerCase() : '';
    if (!regions.some((region) => region.slug.startsWith(prefix))) return 'You specified an invalid region for Droplet creation.';
    return regions.find((region) => region.slug.startsWith(prefix) && fits(region)) ?? 'Size is not available in this region.';
  }
  if (!exact.available) return 'Region is not available';
  if (!size.regions.includes(exact.slug)) return 'Size is not available in this region.';
  if (!image.regions.includes(exact.slug)) {
    return 'The image you specified is not available in the selected region, you can initiate a transfer on the image to make it available.';
  }
  return exact;
}

function readTags(tags: unknown): readonly string[] | string {
  if (tags === undefined || tags === null) return [];
  if (!Array.isArray(tags)) return 'Tags must be a list of names.';
  const invalid: unknown = tags.find((tag: unknown) => !isValidTag(tag));
  return invalid === undefined ? tags.filter(isValidTag) : invalidTagMessage(invalid);
}

function readFeatures(input: Readonly<Record<string, unknown>>): readonly string[] {
  const features = ['private_networking'];
  if (input['backups'] === true) features.push('backups');
  if (input['ipv6'] === true) features.push('ipv6');
  if (input['monitoring'] === true) features.push('monitoring');
  if (input['with_droplet_agent'] !== false) features.push('droplet_agent');
  return features;
}

function isListOrNull(value: unknown): boolean {
  return value === undefined || value === null || Array.isArray(value);
}
