// What goes over the HTTP API: the schemas of queries and bodies, which are enforced, and those of answers, which the
// OpenAPI document shows and the tests hold the answers to.
import { z } from 'zod';
import type { DriftField } from '../../inventory/drift.ts';
import { sagaStatuses } from '../../saga/saga.ts';
import { STORABLE_TIMES, isStorableTime, storableText } from '../storable.ts';

const status = z.enum(sagaStatuses, `expected one of ${sagaStatuses.join(', ')}`);
const text = (max = 255) => storableText(max).min(1, 'expected at least 1 character');
const time = z.iso.datetime({ offset: true, error: 'expected a time, such as 2026-01-31T12:00:00Z' }).refine((given) => isStorableTime(new Date(given)), STORABLE_TIMES);
const limit = (most: number, fallback: number) =>
  z
    .string()
    .regex(/^\d{1,6}$/, `expected a whole number from 1 to ${most}`)
    .refine((value) => Number(value) >= 1 && Number(value) <= most, `expected a whole number from 1 to ${most}`)
    .optional()
    .describe(`so many at most: 1 to ${most}, ${fallback} when left out`);

const dropletId = z
  .string()
  .regex(/^[1-9]\d{0,14}$/, 'expected the id of a droplet: a positive whole number')
  .describe("DigitalOcean's id of the droplet");

/** Path of one saga. */
export const sagaParams = z.object({ id: z.uuid('expected the id of a saga: a UUID').toLowerCase() });

const filterFields = {
  name: text().optional().describe('name of the saga'),
  tag: text().optional().describe('one of the tags that the caller gave'),
  from: time.optional().describe('created at this time or later'),
  before: time.optional().describe('created before this time'),
  text: text().optional().describe('part of the name of what the saga is about'),
  requested_by: text().optional().describe('who asked for it, such as http:billing'),
};

/** Query of `GET /v1/sagas`. */
export const sagasQuery = z.strictObject({
  // `?status=a&status=b` arrives as a list, `?status=a,b` as one text.
  status: z
    .preprocess((value) => [value].flat().flatMap((entry) => (typeof entry === 'string' ? entry.split(',') : [entry])), z.array(status))
    .optional()
    .describe(`${sagaStatuses.join(', ')}; several separated by commas`),
  ...filterFields,
  droplet_id: dropletId.optional(),
  cursor: z.string().max(500).optional().describe('the nextCursor of the page before'),
  limit: limit(200, 50),
});

/** Which sagas a bulk request means. */
const bulkFilter = z
  .strictObject({ status: z.array(status).min(1).optional(), ...filterFields, droplet_id: z.int().positive().optional() })
  .refine((filter) => Object.values(filter).some((value) => value !== undefined), 'expected at least one condition');

/** So many sagas can be named in one bulk request. */
const MAX_BULK_IDS = 1_000;

const bulkFields = z.strictObject({
  filter: bulkFilter.optional().describe('acts on the newest sagas that match when the request arrives'),
  ids: z.array(z.uuid().toLowerCase()).min(1).max(MAX_BULK_IDS).optional().describe('acts on these sagas alone, such as the ids of a dry run; with a filter, only on those that match it'),
  dryRun: z.boolean().default(true).describe('dry run by default: only lists the sagas; pass false to act'),
  limit: z.int().min(1).max(1_000).default(100).describe('maximum number of sagas that the filter selects; does not apply to ids'),
  reason: text(1_000).optional().describe('reason, for the record'),
});

const namesSagas = ({ filter, ids }: { filter?: unknown; ids?: unknown }) => filter !== undefined || ids !== undefined;
const NAMES_NONE = { error: 'expected a filter, or ids', path: ['filter'] };
// For the JSON Schema, which knows no refinements.
const ONE_OF_BOTH = { anyOf: [{ required: ['filter'] }, { required: ['ids'] }] };

/** Body of a bulk request. A dry run unless it says otherwise. */
export const bulkBody = bulkFields.refine(namesSagas, NAMES_NONE).meta(ONE_OF_BOTH);

/** The same without a reason. */
export const bulkRetryBody = bulkFields.omit({ reason: true }).refine(namesSagas, NAMES_NONE).meta(ONE_OF_BOTH);

/** Body of a cancel; may be left out. */
export const cancelBody = z.strictObject({ reason: text(1_000).optional().describe('why, for the record') }).nullish();

/** Headers of a start. */
export const startHeaders = z.object({
  'idempotency-key': z.string().optional().describe('the same key always gives the same saga; with another input it is refused'),
});

/** Headers of a stream of events. */
export const streamHeaders = z.object({
  'last-event-id': z
    .string()
    .regex(/^\d{0,9}$/, 'expected the id of an event of this stream')
    .optional()
    .describe('the last event that was received: the stream goes on after it'),
});

/** Query of `GET /v1/resources`. */
export const resourcesQuery = z.strictObject({
  status: text().optional(),
  region: text().optional(),
  tag: text().optional(),
  droplet_id: dropletId.optional(),
  deleted: z.enum(['true', 'false'], 'expected true or false').optional().describe('true: those that are gone too'),
  cursor: z.string().max(1_000).optional().describe('the nextCursor of the page before'),
  limit: limit(500, 100),
});

const rowsLimit = limit(1_000, 200);

/** Query of `GET /v1/drift`. */
export const driftQuery = z.strictObject({
  resolved: z.enum(['true', 'false'], 'expected true or false').optional().describe('true: those that are resolved too, newest first'),
  limit: rowsLimit,
});

/** Path of one finding. */
export const driftParams = z.object({ id: z.string().regex(/^[1-9]\d{0,14}$/, 'expected the id of a drift: a positive whole number') });

/** Query of `GET /v1/orphans`. */
export const orphansQuery = z.strictObject({ limit: rowsLimit });

const answerTime = z.iso.datetime();
const json = z.record(z.string(), z.json());

const sagaAnswer = z
  .object({
    id: z.uuid(),
    saga8: z.string(),
    name: z.string(),
    status,
    steps: z.array(z.string()),
    cursor: z.int().describe('index of the current step'),
    revision: z.int().describe('number of transitions so far'),
    attempt: z.int().describe('failed attempts of the current step'),
    input: json.describe('as it was given; secrets, such as user_data, are never shown'),
    context: json.describe('outputs of the steps'),
    error: z
      .object({
        code: z.string(),
        message: z.string(),
        step: z.string(),
        retryable: z.boolean(),
        direction: z.literal('forward').optional().meta({ description: 'present where a stuck saga is to go on with its step, and is not being rolled back' }),
      })
      .nullable(),
    idempotencyKey: z.string().nullable(),
    requestedBy: z.string().nullable().describe('whom the caller names'),
    startedBy: z.string().nullable().describe('who started it, as far as it is proven: http:<name of the credentials>, sql:<database role>, or queue (whoever may write to the queue store)'),
    traceparent: z.string().nullable().describe('the trace that it belongs to, as W3C Trace Context writes it'),
    resource: z.string().nullable().describe('what it works on, and holds while it is at work, such as a kind and an id'),
    waitsFor: z.uuid().nullable().describe('the saga that it waits for, because that one is at work on the same resource'),
    cancelRequestedAt: answerTime.nullable(),
    stepStartedAt: answerTime,
    createdAt: answerTime,
    updatedAt: answerTime,
    finishedAt: answerTime.nullable(),
  })
  .describe('A saga');

const eventAnswer = z.object({
  seq: z.int(),
  at: answerTime,
  kind: z.string(),
  step: z.string().nullable(),
  attempt: z.int().nullable(),
  detail: json,
  worker: z.string().nullable(),
});

export const sagaWithTimeline = sagaAnswer.extend({ events: z.array(eventAnswer) });
export const sagasAnswer = z.object({ sagas: z.array(sagaAnswer), nextCursor: z.string().nullable() });
export const startedAnswer = z.object({
  sagaId: z.uuid(),
  replayed: z.boolean().describe('the idempotency key was used before with the same input: this is the saga that was started then'),
});
export const actionAnswer = z.object({
  result: z.enum(['accepted', 'already']).describe('already: what was asked for has happened, or is happening, already'),
  saga: sagaAnswer,
});
export const bulkAnswer = z.object({
  dryRun: z.boolean(),
  matched: z.int().describe('sagas that match the filter and can be cancelled, or retried; with ids, how many of those can be, or were'),
  ids: z.array(z.uuid()).describe('sagas that this request selected: pass them as ids to act on these alone'),
  sagas: z.array(
    z.object({
      sagaId: z.uuid(),
      result: z.enum(['would', 'accepted', 'already', 'refused', 'not_found']),
      status: status.optional().describe('status of the saga now'),
      why: z.string().optional(),
    }),
  ),
  remaining: z.int().describe('sagas that match, but are beyond the limit of this request'),
});
export const resourcesAnswer = z.object({
  resources: z.array(
    z.object({
      id: z.uuid(),
      provider: z.string(),
      kind: z.string(),
      providerId: z.string(),
      name: z.string(),
      region: z.string().nullable(),
      status: z.string(),
      sizeSlug: z.string().nullable(),
      tags: z.array(z.string()),
      attrs: json,
      firstSeenAt: answerTime,
      lastSeenAt: answerTime,
      deletedAt: answerTime.nullable(),
      provisionedBy: z.string().nullable().describe('saga:<id>, where arcadia-cloud provisioned it'),
      spec: json.nullable().describe('what was asked for'),
    }),
  ),
  nextCursor: z.string().nullable(),
});

// Not imported as a value: an app without an inventory loads nothing of it.
const driftFields = ['existence', 'size_slug', 'region', 'image', 'power_state'] as const satisfies readonly DriftField[];

const driftAnswer = z
  .object({
    id: z.int(),
    resourceId: z.uuid(),
    providerId: z.string(),
    name: z.string(),
    sagaId: z.uuid(),
    field: z.enum(driftFields),
    desired: z.string(),
    actual: z.string(),
    firstSeenAt: answerTime,
    lastSeenAt: answerTime,
    resolvedAt: answerTime.nullable(),
    resolution: z.enum(['put_back', 'accepted', 'released']).nullable(),
  })
  .describe('Where a droplet is not what was asked for');

export const driftsAnswer = z.object({ drift: z.array(driftAnswer) });
export const acceptedAnswer = z.object({ drift: driftAnswer });
export const orphansAnswer = z.object({
  orphans: z.array(
    z.object({
      id: z.int(),
      category: z.enum(['surplus', 'unknown']).describe('surplus: ours, and too many, destroyed in the end; unknown: reported, never touched'),
      reason: z.string(),
      sagaId: z.uuid().nullable(),
      providerId: z.string(),
      name: z.string(),
      region: z.string().nullable(),
      sizeSlug: z.string().nullable(),
      tags: z.array(z.string()),
      priceUsdPerHour: z.number().nullable(),
      createdAt: answerTime,
      firstSeenAt: answerTime,
      lastSeenAt: answerTime,
      approvedAt: answerTime.nullable(),
      approvedBy: z.string().nullable(),
    }),
  ),
});
