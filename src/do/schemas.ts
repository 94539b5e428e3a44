// The parts of the DigitalOcean API's bodies that we read. Ids are validated strictly, because an id decides which
// droplet is destroyed. Any other field that is missing or malformed becomes null, and its user decides what that means.
// It never invalidates the id beside it.
// Source: DigitalOcean's OpenAPI description, https://github.com/digitalocean/openapi.

import { z } from 'zod';

// JSON.parse would have rounded an id above 2^53 to the id of another resource.
const id = z.int().positive();
// Postgres can store neither NUL nor a lone surrogate.
const text = z.string().min(1).transform((value) => value.toWellFormed().replaceAll('\0', '\uFFFD'));

/** Replaces a value that does not match the schema by null. */
function orNull<Schema extends z.ZodType>(schema: Schema) {
  return schema.nullable().catch(null);
}

/** Keeps the items of a list that match the schema. Anything but a list yields an empty list. */
function readable<Schema extends z.ZodType>(schema: Schema) {
  return z
    .array(z.unknown())
    .catch([])
    .transform((items) => items.flatMap((item) => schema.safeParse(item).data ?? []));
}

const network = z.object({
  ip_address: text,
  /** `public` or `private`. */
  type: text,
});

// `{}` in older responses, `{v4: [], v6: []}` in newer ones. Both are without addresses while the droplet is `new`.
const networks = z.object({ v4: readable(network), v6: readable(network) });

// Some systems write "no time" as the year 1 or as 1970. DigitalOcean's first droplets are from 2011.
const FIRST_DROPLET = Date.parse('2011-01-01T00:00:00Z');

const created = z.iso.datetime({ offset: true }).refine((value) => Date.parse(value) >= FIRST_DROPLET);

const tags = z
  .array(z.unknown())
  .nullish()
  .transform((list): string[] | null => (list ?? []).flatMap((tag) => text.safeParse(tag).data ?? []))
  .catch(null);

export const dropletSchema = z.object({
  id,
  name: orNull(text),
  /** `new`, `active`, `off` or `archive` as documented; other values are kept. `unknown`: it could not be read. */
  status: text.catch('unknown'),
  /** ISO 8601. */
  created_at: orNull(created),
  size_slug: orNull(text),
  /** MB. */
  memory: orNull(z.int().nonnegative()),
  vcpus: orNull(z.int().nonnegative()),
  /** GB. */
  disk: orNull(z.int().nonnegative()),
  region: orNull(z.object({ slug: text })),
  image: orNull(z.object({ id, slug: orNull(text) })),
  networks: orNull(networks),
  /** DigitalOcean adds tags after it has accepted the droplet. Null: the field is not a list, so the tags are unknown. */
  tags,
  locked: z.boolean().catch(false),
  vpc_uuid: orNull(text),
});

/** A droplet with its price per hour, in USD. */
export const listedDropletSchema = dropletSchema.extend({ size: orNull(z.object({ price_hourly: z.number().nonnegative() })) });

/** Names the fields of a droplet that are documented for every droplet but are missing or malformed. */
export function oddFieldsOf(droplet: Droplet): string[] {
  // Without the networks: older responses may omit them.
  const { name, status, created_at, size_slug, memory, vcpus, disk, region, image, tags: labels } = droplet;
  const fields = { name, status: status === 'unknown' ? null : status, created_at, size_slug, memory, vcpus, disk, region, image, tags: labels };
  return Object.entries(fields).flatMap(([field, value]) => (value === null ? [field] : []));
}

export const actionSchema = z.object({
  id,
  /** `in-progress`, `completed` or `errored`. `unknown`: it could not be read. */
  status: text.catch('unknown'),
  /** `create`, `destroy`, … */
  type: text.catch('unknown'),
  started_at: orNull(text),
  completed_at: orNull(text),
  /** The id of the droplet. */
  resource_id: orNull(id),
});

/**
 * The account in which a token works: a team or a person's own account. Source:
 * https://docs.digitalocean.com/reference/api/digitalocean/#tag/Account
 */
// An unknown status is no reason to distrust the account's id.
export const accountSchema = z
  .object({
    uuid: text,
    team: z.object({ uuid: text }).nullish(),
    status: z.enum(['active', 'warning', 'locked']).catch('active'),
    status_message: text.catch(''),
    // Shown only to tokens with the scope droplet:read.
    droplet_limit: orNull(z.int().nonnegative()).optional(),
  })
  .transform(({ uuid, team, status, status_message: statusMessage, droplet_limit: limit }) => ({ id: team?.uuid ?? uuid, status, statusMessage, dropletLimit: limit ?? null }));

/** `fingerprint`: MD5, as hexadecimal bytes with colons; empty if it could not be read. */
export const sshKeySchema = z.object({ id, name: text.catch(''), fingerprint: text.catch('') });

// A slug decides what is meant. Any other field that cannot be read becomes null.
const slugs = z.array(z.unknown()).transform((list) => list.flatMap((one) => text.safeParse(one).data ?? []));

/** A region for droplets. `available`: new droplets can be created in it. */
export const regionSchema = z.object({ slug: text, name: text.catch(''), available: orNull(z.boolean()), features: orNull(slugs) });

/** A size. Memory in MB, disk in GB, prices in USD. `price_monthly` is the most that a month costs. */
export const sizeSchema = z.object({
  slug: text,
  description: text.catch(''),
  memory: orNull(z.number().nonnegative()),
  vcpus: orNull(z.number().nonnegative()),
  disk: orNull(z.number().nonnegative()),
  price_hourly: orNull(z.number().nonnegative()),
  price_monthly: orNull(z.number().nonnegative()),
  regions: orNull(slugs),
  available: orNull(z.boolean()),
});

/** An image. `slug` is null for an image of the account. `min_disk_size` in GB. */
export const imageSchema = z.object({
  id,
  slug: orNull(text),
  name: text.catch(''),
  distribution: text.catch(''),
  public: z.boolean().catch(false),
  regions: orNull(slugs),
  min_disk_size: orNull(z.number().nonnegative()),
  status: orNull(text),
});

export const vpcSchema = z.object({ id: z.uuid().toLowerCase(), name: text.catch(''), region: orNull(text) });

export const projectSchema = z.object({ id: z.uuid().toLowerCase(), name: text.catch('') });

export const tagSchema = z.object({
  name: text,
  resources: z.object({
    /** Number of resources that carry the tag. An unreadable count fails, because callers delete the tag if it is 0. */
    count: z.int().nonnegative(),
  }),
});

export type Region = z.infer<typeof regionSchema>;
export type Size = z.infer<typeof sizeSchema>;
export type Image = z.infer<typeof imageSchema>;
export type Vpc = z.infer<typeof vpcSchema>;
export type SshKey = z.infer<typeof sshKeySchema>;
export type Project = z.infer<typeof projectSchema>;
export type Tag = z.infer<typeof tagSchema>;
export type Droplet = z.infer<typeof dropletSchema>;
export type ListedDroplet = z.infer<typeof listedDropletSchema>;
export type Action = z.infer<typeof actionSchema>;
export type Account = z.infer<typeof accountSchema>;

/** Body of `GET /v2/droplets/{id}`. Invalid if it describes another droplet. */
export function dropletBody(dropletId: number) {
  return z.object({ droplet: dropletSchema.extend({ id: z.literal(dropletId) }) });
}

/** Body of `GET /v2/images/{id or slug}`. */
export const imageBody = z.object({ image: imageSchema });

/** Body of a list of which only the number of items counts. */
export const countBody = z.object({ meta: z.object({ total: z.int().nonnegative() }) });

/** Body of `GET /v2/actions/{id}`. */
export function actionBody(actionId: number) {
  return z.object({ action: actionSchema.extend({ id: z.literal(actionId) }) });
}

/** Body of `GET /v2/tags/{name}`. Invalid if it describes another tag. */
export function tagBody(name: string) {
  return z.object({ tag: tagSchema.extend({ name: z.literal(name) }) });
}

const associated = z
  .object({ id: z.union([text, id]).transform(String), name: text.catch(''), cost: orNull(z.union([text, z.number()]).transform(Number).pipe(z.number().nonnegative())).optional() })
  .transform(({ id: resourceId, name, cost }) => ({ id: resourceId, name: name === '' ? resourceId : name, usdPerMonth: cost ?? null }));

/** Something that stays, and costs money, when the droplet that it belongs to is destroyed. */
export type AssociatedResource = z.infer<typeof associated> & Readonly<{ kind: 'volume' | 'snapshot' | 'volume_snapshot' | 'reserved_ip' }>;

/** Body of `GET /v2/droplets/{id}/destroy_with_associated_resources`. Reserved IPs are in it under their former name too. */
export const associatedBody = z
  .object({ volumes: readable(associated), snapshots: readable(associated), volume_snapshots: readable(associated), reserved_ips: readable(associated), floating_ips: readable(associated) })
  .transform(({ volumes, snapshots, volume_snapshots: ofVolumes, reserved_ips: reserved, floating_ips: floating }): AssociatedResource[] => {
    const former = floating.filter((one) => !reserved.some(({ id: known, name }) => known === one.id || name === one.name));
    return [
      ...volumes.map((one) => ({ ...one, kind: 'volume' as const })),
      ...snapshots.map((one) => ({ ...one, kind: 'snapshot' as const })),
      ...ofVolumes.map((one) => ({ ...one, kind: 'volume_snapshot' as const })),
      ...[...reserved, ...former].map((one) => ({ ...one, kind: 'reserved_ip' as const })),
    ];
  });

/** Body of `POST /v2/tags`. The tag may be spelled in another case. */
export function createdTagBody(name: string) {
  return z.object({ tag: z.object({ name: text.refine((spelled) => spelled.toLowerCase() === name.toLowerCase()) }) });
}

/** Body of `POST /v2/projects/{id}/resources`: what became of one resource; null: the answer does not name it. */
export function assignmentBody(urn: string) {
  const assignment = z.object({ urn: text, status: text });
  return z.object({ resources: readable(assignment) }).transform(({ resources }) => resources.find((one) => one.urn === urn)?.status ?? null);
}

/** Body of `GET /v2/account`. */
export const accountBody = z.object({ account: accountSchema });

// The action is useful, but losing it is better than losing a droplet's id. Malformed links therefore mean "no action".
const createActionId = z
  .object({ actions: z.array(z.object({ id, rel: z.string().optional() })) })
  .transform(({ actions }) => (actions.find(({ rel }) => rel === 'create') ?? actions[0])?.id ?? null)
  .catch(null);

/** Body of the 202 to `POST /v2/droplets` with a single `name`. */
export const createDropletBody = z
  .object({ droplet: dropletSchema, links: createActionId })
  .transform(({ droplet, links }) => ({ droplet, actionId: links }));

/** Body of every error. */
export const errorBody = z.object({
  id: z.string().optional().catch(undefined),
  message: z.string().optional().catch(undefined),
  request_id: z.string().optional().catch(undefined),
});

/**
 * Body of `POST /v2/droplets` for a single droplet. DigitalOcean checks the limits and answers 422.
 * Source: `droplet_single_create` of the OpenAPI description.
 */
export type CreateDropletRequest = {
  /** Becomes the host name. At most 255 letters, digits, dots and dashes. */
  readonly name: string;
  /** A slug, or a prefix of one (`nyc`). */
  readonly region?: string | undefined;
  readonly size: string;
  /** Slug of a public image, or the id of any image. */
  readonly image: string | number;
  /** Ids or fingerprints. */
  readonly ssh_keys?: readonly (string | number)[] | undefined;
  readonly tags?: readonly string[] | undefined;
  /** Plain text, at most 64 KiB. Secret: it appears in no error. */
  readonly user_data?: string | undefined;
  readonly vpc_uuid?: string | undefined;
  readonly backups?: boolean | undefined;
  readonly ipv6?: boolean | undefined;
  readonly monitoring?: boolean | undefined;
  readonly with_droplet_agent?: boolean | undefined;
  /** False: the droplet never gets a public address. */
  readonly public_networking?: boolean | undefined;
  /** Ids of block storage volumes. */
  readonly volumes?: readonly string[] | undefined;
};
