// What we read of the DigitalOcean API's bodies. An id is read strictly: it decides which droplet is destroyed. Any other
// field that is missing or odd is null here, for whoever needs it to decide; it never costs the id beside it.
// Source: DigitalOcean's OpenAPI description, https://github.com/digitalocean/openapi.

import { z } from 'zod';

// An id above 2^53 would have been rounded by JSON.parse into somebody else's.
const id = z.int().positive();
// Postgres can store neither NUL nor half a surrogate pair.
const text = z.string().min(1).transform((value) => value.toWellFormed().replaceAll('\0', '\uFFFD'));

/** Null for anything that the schema does not take. */
function orNull<Schema extends z.ZodType>(schema: Schema) {
  return schema.nullable().catch(null);
}

/** The items of a list that the schema takes; none for what is no list. */
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

// `{}` in older answers, `{v4: [], v6: []}` in newer ones; either way without addresses while the droplet is `new`.
const networks = z.object({ v4: readable(network), v6: readable(network) });

// Some clocks write "no time" as the year 1 or as 1970. DigitalOcean has made droplets since 2011.
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
  /** `new`, `active`, `off` or `archive` as documented; others are kept as they come. `unknown`: it could not be read. */
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
  /** DigitalOcean adds them after it accepted the droplet. Null: there is something else than a list, so nobody knows. */
  tags,
  locked: z.boolean().catch(false),
  vpc_uuid: orNull(text),
});

/** A droplet with what it costs an hour, in USD. */
export const listedDropletSchema = dropletSchema.extend({ size: orNull(z.object({ price_hourly: z.number().nonnegative() })) });

/** What could not be read of a droplet, or is missing, of what DigitalOcean documents for each. */
export function oddFieldsOf(droplet: Droplet): string[] {
  // Not the networks: older answers may leave them out.
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
  /** The droplet it is about. */
  resource_id: orNull(id),
});

/** What a token works in: a team, or a person's own account. Source: https://docs.digitalocean.com/reference/api/digitalocean/#tag/Account */
export const accountSchema = z
  .object({ uuid: text, team: z.object({ uuid: text }).nullish() })
  .transform(({ uuid, team }) => ({ id: team?.uuid ?? uuid }));

export type Droplet = z.infer<typeof dropletSchema>;
export type ListedDroplet = z.infer<typeof listedDropletSchema>;
export type Action = z.infer<typeof actionSchema>;
export type Account = z.infer<typeof accountSchema>;

/** Body of `GET /v2/droplets/{id}`. That it is about another droplet than the one asked for makes it invalid. */
export function dropletBody(dropletId: number) {
  return z.object({ droplet: dropletSchema.extend({ id: z.literal(dropletId) }) });
}

/** Body of `GET /v2/actions/{id}`. */
export function actionBody(actionId: number) {
  return z.object({ action: actionSchema.extend({ id: z.literal(actionId) }) });
}

/** Body of `GET /v2/account`. */
export const accountBody = z.object({ account: accountSchema });

// The action is good to have, not worth losing a droplet's id over: whatever is wrong with the links, there is none.
const createActionId = z
  .object({ actions: z.array(z.object({ id, rel: z.string().optional() })) })
  .transform(({ actions }) => (actions.find(({ rel }) => rel === 'create') ?? actions[0])?.id ?? null)
  .catch(null);

/** Body of the 202 to `POST /v2/droplets` with a single `name`. */
export const createDropletBody = z
  .object({ droplet: dropletSchema, links: createActionId })
  .transform(({ droplet, links }) => ({ droplet, actionId: links }));

/** Body of any error. */
export const errorBody = z.object({
  id: z.string().optional().catch(undefined),
  message: z.string().optional().catch(undefined),
  request_id: z.string().optional().catch(undefined),
});

/**
 * Body of `POST /v2/droplets`, for a single droplet. The limits are DigitalOcean's to check; it answers 422.
 * Source: `droplet_single_create` of the OpenAPI description.
 */
export type CreateDropletRequest = {
  /** Becomes the host name. At most 255 letters, digits, dots and dashes. */
  readonly name: string;
  /** A slug, or the beginning of one (`nyc`). */
  readonly region?: string | undefined;
  readonly size: string;
  /** Slug of a public image, or the id of any. */
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
  /** False: the droplet never has a public address. */
  readonly public_networking?: boolean | undefined;
  /** Ids of block storage volumes. */
  readonly volumes?: readonly string[] | undefined;
};
