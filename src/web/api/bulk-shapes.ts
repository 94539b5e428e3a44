// The schemas of bulk requests: which sagas they mean, and what came of each.
import { z } from 'zod';
import { status, text } from './fields.ts';
import { filterFields } from './saga-shapes.ts';

/** Which sagas a bulk request means. */
const bulkFilter = z
  .strictObject({ status: z.array(status).min(1).optional(), ...filterFields, droplet_id: z.int().positive().optional() })
  .refine((filter) => Object.values(filter).some((value) => value !== undefined), 'expected at least one condition');

/** The maximum number of ids in one bulk request. */
const MAX_BULK_IDS = 1_000;

const MAX_BULK = 1_000;
const BULK_LIMIT = `expected a whole number from 1 to ${MAX_BULK}`;

const bulkFields = z.strictObject({
  filter: bulkFilter.optional().describe('acts on the newest sagas that match when the request arrives'),
  ids: z.array(z.uuid().toLowerCase()).min(1).max(MAX_BULK_IDS).optional().describe('acts on these sagas alone, such as the ids of a dry run; with a filter, only on those that match it'),
  dryRun: z.boolean().default(true).describe('dry run by default: only lists the sagas; pass false to act'),
  limit: z.int(BULK_LIMIT).min(1, BULK_LIMIT).max(MAX_BULK, BULK_LIMIT).default(100).describe('maximum number of sagas that the filter selects; does not apply to ids'),
  reason: text(1_000).optional().describe('reason, kept in the audit'),
});

const namesSagas = ({ filter, ids }: { filter?: unknown; ids?: unknown }) => filter !== undefined || ids !== undefined;
const NAMES_NONE = { error: 'expected a filter, or ids', path: ['filter'] };
// JSON Schema does not include refinements, so this states the condition again.
const ONE_OF_BOTH = { anyOf: [{ required: ['filter'] }, { required: ['ids'] }], examples: [{ filter: { status: ['stuck'] }, dryRun: true }] };

/** Body of a bulk request. A dry run unless it says otherwise. */
export const bulkBody = bulkFields.refine(namesSagas, NAMES_NONE).meta(ONE_OF_BOTH);

/** The same without a reason: for a retry, and for a rerun. */
export const bulkRetryBody = bulkFields.omit({ reason: true }).refine(namesSagas, NAMES_NONE).meta(ONE_OF_BOTH);

/** Answer of a bulk request. */
export const bulkAnswer = z.object({
  dryRun: z.boolean(),
  matched: z.int().describe('sagas that match the filter and can be cancelled, retried or run again; with ids, how many of those can be, or were'),
  ids: z.array(z.uuid()).describe('sagas that this request selected: pass them as ids to act on these alone'),
  sagas: z.array(
    z.object({
      sagaId: z.uuid(),
      result: z.enum(['would', 'accepted', 'already', 'refused', 'not_found']),
      status: status.optional().describe('status of the saga now'),
      why: z.string().optional(),
      rerunAs: z.uuid().optional().describe('bulk rerun: the new saga'),
    }),
  ),
  remaining: z.int().describe('sagas that match, but are beyond the limit of this request'),
});
