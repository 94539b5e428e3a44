// What the sagas take as input. Strict: a field that we would ignore is a field that the caller believes in.
import { z } from 'zod';
import { isReservedTag } from './tags.ts';

const MAX_USER_DATA_BYTES = 64 * 1024;
const TAG_PATTERN = /^[a-zA-Z0-9_\-:]{1,255}$/;

// Postgres can store neither NUL nor half a surrogate pair.
const text = (max: number) =>
  z
    .string()
    .min(1, 'expected at least 1 character')
    .max(max, `expected at most ${max} characters`)
    .refine((value) => !value.includes('\0') && value.isWellFormed(), 'expected text without NUL characters and broken surrogates');

const slug = (what: string) => text(100).regex(/^[a-zA-Z0-9._-]+$/, `expected ${what}`);
const positiveId = z.int('expected a whole number').positive('expected a positive number');

const tag = z
  .string()
  .regex(TAG_PATTERN, 'expected 1 to 255 letters, digits, and _ - :')
  .refine((value) => !isReservedTag(value), 'expected a tag that does not begin with arcadia-saga- or arcadia-wave- and is not managed-by-arcadia-cloud: those are set by arcadia-cloud itself');

/**
 * Input of `provision_droplet`: DigitalOcean's own create fields.
 * Source: `POST /v2/droplets`, https://docs.digitalocean.com/reference/api/digitalocean/#tag/Droplets
 */
export const provisionDropletInput = z.strictObject({
  name: z
    .string('expected a host name')
    .max(255, 'expected at most 255 characters')
    .regex(/^[a-zA-Z0-9]?[a-z0-9A-Z.-]*[a-z0-9A-Z]$/, 'expected a host name: letters, digits, dots and dashes, beginning and ending with a letter or digit'),
  region: slug('the slug of a region, such as fra1'),
  size: slug('the slug of a size, such as s-1vcpu-1gb'),
  image: z.union([slug('the slug of an image, such as debian-12-x64'), positiveId], 'expected the slug of an image, such as debian-12-x64, or its id'),
  ssh_keys: z.array(z.union([positiveId, text(255)], 'expected the id or the fingerprint of an SSH key')).max(100).optional(),
  tags: z.array(tag).max(100).optional(),
  user_data: z
    .string()
    .refine((value) => Buffer.byteLength(value) <= MAX_USER_DATA_BYTES, 'expected at most 64 KiB')
    .refine((value) => !value.includes('\0') && value.isWellFormed(), 'expected text without NUL characters and broken surrogates')
    .meta({ description: 'at most 64 KiB of UTF-8', maxLength: MAX_USER_DATA_BYTES })
    .optional(),
  vpc_uuid: z.uuid('expected the UUID of a VPC').optional(),
  backups: z.boolean().optional(),
  ipv6: z.boolean().optional(),
  monitoring: z.boolean().optional(),
  with_droplet_agent: z.boolean().optional(),
  public_networking: z.boolean().optional(),
  volumes: z.array(z.uuid('expected the UUID of a volume')).max(100).optional(),
});

/** The same as stored with a saga: a newer version's fields go to DigitalOcean as they are. */
export const storedProvisionInput = provisionDropletInput.loose();

export type ProvisionDropletInput = z.infer<typeof provisionDropletInput>;

/** Input of `destroy_droplet`. */
export const destroyDropletInput = z.strictObject({
  droplet_id: z.int('expected the id of a droplet: a positive whole number').positive('expected the id of a droplet: a positive whole number'),
  reason: text(1_000).optional(),
});

export const storedDestroyInput = destroyDropletInput.loose();
