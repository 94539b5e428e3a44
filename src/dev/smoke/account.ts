// Reads the whole account: the ids and tags of all droplets, and the names of all tags. Done before and after a run.
import { z } from 'zod';
import type { DigitalOceanClient } from '../../do/client.ts';
import { DigitalOceanError } from '../../do/errors.ts';
import { dropletSchema, tagSchema } from '../../do/schemas.ts';
import type { SeenDroplet } from './state.ts';

/** Reads the account's id; null if the token may not read it (scope `account:read`). */
export async function readAccountId(api: DigitalOceanClient): Promise<string | null> {
  try {
    return (await api.getAccount()).id;
  } catch (error) {
    if (error instanceof DigitalOceanError && error.status === 403) return null;
    throw error;
  }
}

/** Reads every droplet, with and without a GPU. */
export async function readDroplets(api: DigitalOceanClient): Promise<SeenDroplet[]> {
  const found = new Map<number, SeenDroplet>();
  // Plain lists omit GPU droplets.
  for (const type of ['droplets', 'gpus'] as const) {
    for (const { id, name, tags } of await api.listPaginated('/v2/droplets', 'droplets', { params: { type }, itemSchema: dropletSchema })) found.set(id, { id, name, tags });
  }
  return [...found.values()];
}

/** Reads the names of all tags. */
export async function readTagNames(api: DigitalOceanClient): Promise<string[]> {
  return (await api.listPaginated('/v2/tags', 'tags', { itemSchema: tagSchema.pick({ name: true }) })).map(({ name }) => name);
}

const sizeSchema = z.object({ slug: z.string(), price_hourly: z.number().nonnegative(), regions: z.array(z.string()).catch([]), available: z.boolean().catch(true) });

/** Finds a size, with its price in USD per hour; null: unknown name. */
export async function readSize(api: DigitalOceanClient, slug: string): Promise<z.infer<typeof sizeSchema> | null> {
  const sizes = await api.listPaginated('/v2/sizes', 'sizes', { itemSchema: sizeSchema });
  return sizes.find((size) => size.slug === slug.toLowerCase()) ?? null;
}

/**
 * Describes how foreign droplets changed, one sentence per droplet. New droplets do not count: other programs may create
 * them.
 */
export function differencesOf(before: readonly SeenDroplet[], after: readonly SeenDroplet[]): string[] {
  const now = new Map(after.map((droplet) => [droplet.id, droplet]));
  return before.flatMap(({ id, name, tags }) => {
    const found = now.get(id);
    const label = `droplet ${id}${name === null ? '' : ` (${name})`}`;
    if (found === undefined) return [`${label} is gone`];
    const [had, has] = [tags, found.tags].map((list) => [...(list ?? [])].toSorted().join(', '));
    return had === has ? [] : [`${label} had the tags [${had}] and has [${has}]`];
  });
}
