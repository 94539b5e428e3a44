// /v1/audit: who did what, and when.
import { z } from 'zod';
import type { Redaction } from '../../saga/redact.ts';
import type { App } from '../app.ts';
import type { AuditPort } from '../ports.ts';
import { storableText } from '../storable.ts';
import { answers } from './answers.ts';
import { answerTime, json, limit, time } from './fields.ts';

const FALLBACK_LIMIT = 50;

/** Query of `GET /v1/audit`. */
const auditQuery = z.strictObject({
  actor: storableText(255).optional().describe('who did it, such as http:ada, cli:ada or sync'),
  action: storableText(255).optional().describe('what was done, such as cancel_requested'),
  saga_id: z.uuid('expected a saga id, a UUID').toLowerCase().optional(),
  from: time.optional().describe('at this time or later'),
  before: time.optional().describe('before this time'),
  cursor: z.string().max(500).optional().describe('the nextCursor of the page before'),
  limit: limit(200, FALLBACK_LIMIT),
});

/** Answer of `GET /v1/audit`. */
export const auditAnswer = z.object({
  audit: z.array(
    z.object({
      id: z.string(),
      at: answerTime,
      actor: z.string().describe('who did it: proven by credentials over HTTP, else as the caller claims'),
      databaseRole: z.string().nullable().describe('the database role that wrote the row, as Postgres knows it'),
      action: z.string(),
      sagaId: z.uuid().nullable(),
      detail: json,
    }),
  ),
  nextCursor: z.string().nullable().describe('pass it as cursor to read the next page; null: the list ends here'),
});

/** Adds the route. */
export function addAuditRoute(app: App, audit: AuditPort, redact: Redaction): void {
  app.get(
    '/v1/audit',
    { schema: { operationId: 'listAudit', summary: 'List who did what, newest first', tags: ['audit'], querystring: auditQuery, response: answers(200, auditAnswer) } },
    async ({ query }) => {
      const { actor, action, saga_id: sagaId, from, before, cursor } = query;
      const filter = { actor, action, sagaId, from: from === undefined ? undefined : new Date(from), before: before === undefined ? undefined : new Date(before) };
      const page = await audit.search(filter, { limit: Number(query.limit ?? FALLBACK_LIMIT), cursor });
      return { audit: redact.value(page.rows), nextCursor: page.nextCursor };
    },
  );
}
