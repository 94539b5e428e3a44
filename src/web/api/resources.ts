// /v1/resources: the inventory, sorted by name.
import { z } from 'zod';
import type { Redaction } from '../../saga/redact.ts';
import { decodeCursor, encodeCursor } from '../../platform/cursor.ts';
import type { App } from '../app.ts';
import type { WebPorts } from '../ports.ts';
import { storableText } from '../storable.ts';
import { answers } from './answers.ts';
import { resourcesAnswer, resourcesQuery } from './inventory-shapes.ts';

const place = z.tuple([storableText(1_000), z.uuid()]);

/** Adds the route. */
export function addResourceRoutes(app: App, resources: NonNullable<WebPorts['resources']>, redact: Redaction): void {
  app.get(
    '/v1/resources',
    {
      schema: {
        operationId: 'listResources',
        summary: 'List the inventory, by name',
        tags: ['resources'],
        querystring: resourcesQuery,
        response: answers(200, resourcesAnswer),
      },
    },
    async ({ query }) => {
      const [name, id] = query.cursor === undefined ? [] : decodeCursor(query.cursor, place);
      const limit = query.limit === undefined ? 100 : Number(query.limit);
      const filter = { status: query.status, region: query.region, tag: query.tag, providerId: query.droplet_id, withDeleted: query.deleted === 'true' };
      const found = await resources.search(filter, { limit: limit + 1, after: name === undefined || id === undefined ? null : { name, id } });
      const shown = found.slice(0, limit);
      const last = shown.at(-1);
      return { resources: redact.value(shown), nextCursor: found.length > limit && last !== undefined ? encodeCursor([last.name, last.id]) : null };
    },
  );
}
