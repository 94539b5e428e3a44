// What we read of the DigitalOcean API's bodies. Fields that we do not use may be missing or odd; those that we do use
// may not. Source: DigitalOcean's OpenAPI description, https://github.com/digitalocean/openapi.

import { z } from 'zod';

// An id above 2^53 would have been rounded by JSON.parse into somebody else's.
const id = z.int().positive();
const text = z.string().min(1);

const network = z.object({
  ip_address: text,
  /** `public` or `private`. */
  type: z.string(),
});

const networkList = z.array(network).nullish().transform((list) => list ?? []);

// `{}` in older answers, `{v4: [], v6: []}` in newer ones; either way without addresses while the droplet is `new`.
const networks = z
  .object({ v4: networkList, v6: networkList })
  .nullish()
  .transform((lists) => lists ?? { v4: [], v6: [] });

export const dropletSchema = z.object({
  id,
  name: text,
  /** `new`, `active`, `off` or `archive` as documented; others are kept as they come. */
  status: text,
  /** ISO 8601. */
  created_at: z.iso.datetime({ offset: true }),
  size_slug: text,
  /** MB. */
  memory: z.int().nonnegative(),
  vcpus: z.int().nonnegative(),
  /** GB. */
  disk: z.int().nonnegative(),
  region: z.object({ slug: text }),
  image: z.object({ id, slug: z.string().nullish().transform((slug) => slug ?? null) }),
  networks,
  /** DigitalOcean adds them after it accepted the droplet. */
  tags: z.array(z.string()).nullish().transform((tags) => tags ?? []),
  locked: z.boolean().nullish().transform((locked) => locked ?? false),
  vpc_uuid: z.string().nullish().transform((uuid) => uuid ?? null),
});

/** A droplet with what it costs, in a list that must not fail for one droplet that is not as documented: of such a one, only the id is kept. */
export const listedDropletSchema = z.union([
  dropletSchema.extend({ size: z.object({ price_hourly: z.number().nonnegative() }).nullish().catch(null) }).transform((droplet) => ({ kind: 'droplet' as const, ...droplet })),
  z.object({ id }).transform((odd) => ({ kind: 'odd' as const, id: odd.id })),
]);

export const actionSchema = z.object({
  id,
  /** `in-progress`, `completed` or `errored`. */
  status: text,
  /** `create`, `destroy`, … */
  type: text,
  started_at: z.string().nullish().transform((time) => time ?? null),
  completed_at: z.string().nullish().transform((time) => time ?? null),
  /** The droplet it is about. */
  resource_id: id.nullish().transform((resource) => resource ?? null),
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
