// What the sagas take as input. Strict: a field that we would ignore is a field that the caller believes in.
import { z } from 'zod';
import { MAX_LEASE_S } from '../platform/longest-lease.ts';
import type { Saga } from '../saga/saga.ts';
import { MAX_CALLBACK_URL_LENGTH, partTypeOf, withCallback } from '../platform/cloud-init.ts';
import { isReservedTag } from './tags.ts';

const MAX_USER_DATA_BYTES = 64 * 1024;
const LONGEST_CALLBACK_URL = 'x'.repeat(MAX_CALLBACK_URL_LENGTH);
/** The longest wait that a request may ask for: a day. */
const MAX_LIMIT_S = 86_400;
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
  .refine((value) => !isReservedTag(value), 'expected a tag that does not begin with arcadia-saga-, arcadia-adopted- or arcadia-wave- and is not managed-by-arcadia-cloud: those are set by arcadia-cloud itself');

const LEASE_SECONDS = `expected whole seconds from 1 to ${MAX_LEASE_S} (366 days)`;
const leaseSeconds = z.int(LEASE_SECONDS).min(1, LEASE_SECONDS).max(MAX_LEASE_S, LEASE_SECONDS);

const leaseFrom = (start: string) =>
  z
    .strictObject({
      ttl_s: leaseSeconds.describe(`seconds from ${start} until the droplet is destroyed, unless somebody renews the lease`),
      max_s: leaseSeconds.optional().describe(`seconds from ${start} that no renewal goes beyond`),
    })
    .refine(({ ttl_s: ttl, max_s: max }) => max === undefined || max >= ttl, { path: ['max_s'], message: 'expected at least ttl_s' });
const limitSeconds = z.int(`expected whole seconds, 1 to ${MAX_LIMIT_S}`).min(1, `expected at least 1 second`).max(MAX_LIMIT_S, `expected at most ${MAX_LIMIT_S} seconds (a day)`);
const port = z.int('expected a port: a whole number from 1 to 65535').min(1, 'expected a port: 1 to 65535').max(65_535, 'expected a port: 1 to 65535');

const ready = z
  .strictObject({
    tcp: port.optional().describe('ready once this TCP port of the droplet takes connections'),
    http: z
      .strictObject({
        port,
        path: z
          .string('expected a path, such as /healthz')
          .max(1_000, 'expected at most 1000 characters')
          .regex(/^\/[\x21-\x22\x24-\x7e]*$/, 'expected a path that begins with /, in printable ASCII without blanks and #')
          .optional()
          .describe('default: /'),
        status: z.int('expected a status, such as 200').min(200, 'expected a status from 200 to 599').max(599, 'expected a status from 200 to 599').optional().describe('default: any from 200 to 299'),
      })
      .optional()
      .describe('ready once GET of this path is answered with this status; redirects are not followed'),
    callback: z.literal(true, 'expected true, or no callback').optional().describe('ready once the droplet itself reports that its user_data ran without an error'),
    within_s: limitSeconds.optional().describe('seconds after which a droplet that is not ready is given up; default: 600'),
  })
  .refine(({ tcp, http, callback }) => [tcp, http, callback].filter((way) => way !== undefined).length === 1, 'expected exactly one of tcp, http and callback');

export type Ready = z.infer<typeof ready>;

/**
 * Input of `provision_droplet`: DigitalOcean's own create fields.
 * Source: `POST /v2/droplets`, https://docs.digitalocean.com/reference/api/digitalocean/#tag/Droplets
 */
const fields = z.strictObject({
  name: z
    .string('expected a host name')
    .max(255, 'expected at most 255 characters')
    .regex(/^[a-zA-Z0-9]?[a-z0-9A-Z.-]*[a-z0-9A-Z]$/, 'expected a host name: letters, digits, dots and dashes, beginning and ending with a letter or digit')
    .meta({ examples: ['web-1'] }),
  region: slug('the slug of a region, such as fra1').meta({ examples: ['fra1'] }),
  size: slug('the slug of a size, such as s-1vcpu-1gb').meta({ examples: ['s-1vcpu-1gb'] }),
  image: z.union([slug('the slug of an image, such as debian-12-x64'), positiveId], 'expected the slug of an image, such as debian-12-x64, or its id').meta({ examples: ['debian-12-x64'] }),
  ssh_keys: z.array(z.union([positiveId, text(255)], 'expected the id, the fingerprint or the name of an SSH key')).max(100).optional(),
  tags: z.array(tag).max(100).meta({ examples: [['shop']] }).optional(),
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
  project: text(255).optional().describe('name or id of the project that the droplet is put into'),
  protected: z.boolean().optional().describe('true: the droplet is not destroyed until its protection is lifted'),
  lease: leaseFrom('the announcement of the create').optional().describe('the droplet is destroyed when nobody renews its lease in time'),
  ready: ready.optional().describe('what the droplet must answer before the saga is completed'),
  wait_s: limitSeconds.optional().describe('seconds to wait for the droplet to become active, with its addresses; default: WAIT_MAX_POLLS times WAIT_POLL_INTERVAL_MS'),
});

/** The input of `provision_droplet`: see {@link fields}. */
export const provisionDropletInput = fields.superRefine(({ ready: asked, user_data: userData = '' }, context) => {
  if (asked?.callback !== true || userData === '') return;
  const refuse = (message: string) => context.addIssue({ code: 'custom', path: ['user_data'], message });
  if (partTypeOf(userData) === null) refuse('expected a cloud-config (`#cloud-config` in the first line) or a script (`#!`): ready.callback adds a part to it');
  else if (Buffer.byteLength(withCallback(userData, LONGEST_CALLBACK_URL)) > MAX_USER_DATA_BYTES) refuse('expected at most 64 KiB with what ready.callback adds to it (some 3 KiB, and a third of text that is not ASCII)');
});

/** The same as stored with a saga: a newer version's fields go to DigitalOcean as they are. */
export const storedProvisionInput = fields.loose();

/** What a stored saga's droplet must answer to be ready; null: it was not asked for. */
export function readyOf({ input }: Pick<Saga, 'input'>): Ready | null {
  return input['ready'] === undefined || input['ready'] === null ? null : ready.parse(input['ready']);
}

/** How long a stored saga waits for its droplet to become active, in milliseconds; null: as long as the process says. */
export function waitLimitMs({ input }: Pick<Saga, 'input'>): number | null {
  const seconds = input['wait_s'];
  return typeof seconds === 'number' ? seconds * 1_000 : null;
}

export type ProvisionDropletInput = z.infer<typeof provisionDropletInput>;

/** Input of `destroy_droplet`. */
export const destroyDropletInput = z.strictObject({
  droplet_id: z.int('expected the id of a droplet: a positive whole number').positive('expected the id of a droplet: a positive whole number').meta({ examples: [4711] }),
  reason: text(1_000).optional(),
});

/** Input of `adopt_droplet`. */
export const adoptDropletInput = z.strictObject({
  droplet_id: z.int('expected the id of a droplet: a positive whole number').positive('expected the id of a droplet: a positive whole number').meta({ examples: [4711] }),
  reason: text(1_000).optional(),
  protected: z.boolean().optional().describe('true: the droplet is not destroyed until its protection is lifted'),
  lease: leaseFrom('the registration of the droplet').optional().describe('the droplet is destroyed when nobody renews its lease in time; not set: no lease'),
});

export const storedAdoptInput = adoptDropletInput.loose();

export const storedDestroyInput = destroyDropletInput.loose();

/** A lease, in seconds. `max_s`: its longest total duration, including all renewals. */
export type LeaseTerms = Readonly<{ ttl_s: number; max_s?: number | undefined }>;

/** Names the field that exceeds `maxS` seconds, and says what was expected; null: none does. */
export function beyondPolicy(lease: LeaseTerms | undefined, maxS: number): Readonly<{ field: string; message: string }> | null {
  if (lease === undefined) return null;
  const name = lease.ttl_s > maxS ? 'ttl_s' : (lease.max_s ?? 0) > maxS ? 'max_s' : null;
  return name === null ? null : { field: `lease.${name}`, message: `lease.${name}: expected at most ${maxS} seconds (LEASE_MAX_S), found ${lease[name]}` };
}
