// The OpenAPI document: what the schemas of the routes say, without what an app has no use for.
import { jsonSchemaTransform } from 'fastify-type-provider-zod';
import { z } from 'zod';

// The filter of a list, and of a bulk request.
const filter = z.looseObject({ properties: z.record(z.string(), z.unknown()) });
const described = z.looseObject({ querystring: filter.optional(), body: z.looseObject({ properties: z.looseObject({ filter: filter.optional() }) }).optional() });

/** Describes a route without the filter by droplet, for apps that have none. The route takes it all the same. */
export const transformWithoutDroplets: typeof jsonSchemaTransform = (route) => {
  const transformed = jsonSchemaTransform(route);
  const { data } = described.safeParse(transformed.schema);
  if (data === undefined) return transformed;
  for (const one of [data.querystring, data.body?.properties.filter]) delete one?.properties['droplet_id'];
  return { ...transformed, schema: data };
};
