// The schemas of the HTTP API. Those of queries and bodies are enforced. Those of answers are shown in the OpenAPI
// document, and the tests check the answers against them.
import { z } from 'zod';
import type { PlanCheck } from '../../droplets/plans/checks.ts';
import type { DriftField } from '../../inventory/drift.ts';
import type { LeaseRow } from '../../inventory/lease-listing.ts';
import type { Json } from '../../platform/json.ts';
import { holdCauses } from '../../saga/holds.ts';
import { sagaPriorities, sagaStatuses } from '../../saga/saga.ts';
import { STORABLE_TIMES, isStorableTime, storableText } from '../storable.ts';
import { MAX_LEASE_S } from '../../platform/longest-lease.ts';

const status = z.enum(sagaStatuses, `expected one of ${sagaStatuses.join(', ')}`);
const text = (max = 255) => storableText(max).min(1, 'expected at least 1 character');
const time = z.iso.datetime({ offset: true, error: 'expected a time, such as 2026-01-31T12:00:00Z' }).refine((given) => isStorableTime(new Date(given)), STORABLE_TIMES);
const limit = (most: number, fallback: number) =>
  z
    .string()
    .regex(/^\d{1,6}$/, `expected a whole number from 1 to ${most}`)
    .refine((value) => Number(value) >= 1 && Number(value) <= most, `expected a whole number from 1 to ${most}`)
    .optional()
    .describe(`maximum number of results: 1 to ${most}, default ${fallback}`);

const dropletId = z
  .string()
  .regex(/^[1-9]\d{0,14}$/, 'expected the id of a droplet: a positive whole number')
  .describe("DigitalOcean's id of the droplet")
  .meta({ examples: ['4711'] });

/** Path of one saga. */
export const sagaParams = z.object({ id: z.uuid('expected a saga id, a UUID').toLowerCase() });

const filterFields = {
  name: text().optional().describe('name of the saga'),
  tag: text().optional().describe('one of the tags in the input'),
  from: time.optional().describe('created at this time or later'),
  before: time.optional().describe('created before this time'),
  text: text().optional().describe('part of the name of the subject of the saga'),
  requested_by: text().optional().describe('the actor that requested it, such as http:billing'),
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

/** Body of a cancel; may be left out. */
export const cancelBody = z.strictObject({ reason: text(1_000).optional().describe('reason, kept in the audit').meta({ examples: ['ordered by mistake'] }) }).nullish();

/** Body of a rerun; may be left out. */
export const rerunBody = z
  .strictObject({
    secrets: z.record(z.string().max(255), z.string()).optional().describe('the secrets that the saga had, such as user_data, by field: they were erased when it was rolled back'),
    despiteLeftovers: z.boolean().optional().describe('true: run it again although its rollback may have left something, because a person has checked'),
  })
  .nullish();

/** Headers of a start. */
export const startHeaders = z.object({
  'idempotency-key': z.string().optional().describe('the same key returns the same saga, as long as that saga is kept; with another input it is refused. 1 to 255 characters in UTF-8; one header with one key').meta({ examples: ['order-4711'] }),
});

/** Query of a start. */
export const startQuery = z.strictObject({
  priority: z.enum(sagaPriorities, `expected ${sagaPriorities.join(', ')}`).optional().describe('among the sagas of the same requester that wait for the request budget, a higher one goes first; default normal'),
});

/** Headers of a stream of events. */
export const streamHeaders = z.object({
  'last-event-id': z
    .string()
    .regex(/^\d{0,9}$/, 'expected the id of an event of this stream')
    .optional()
    .describe('the last event received: the stream resumes after it'),
});

/** Query of `GET /v1/resources`. */
export const resourcesQuery = z.strictObject({
  status: text().optional(),
  region: text().optional(),
  tag: text().optional(),
  droplet_id: dropletId.optional(),
  deleted: z.enum(['true', 'false'], 'expected true or false').optional().describe('true: include resources that no longer exist'),
  cursor: z.string().max(1_000).optional().describe('the nextCursor of the page before'),
  limit: limit(500, 100),
});

const answerTime = z.iso.datetime();

const rowsLimit = limit(1_000, 200);

/** Whether a list was cut at its limit. */
const more = z.boolean().describe('whether there are more than the limit');

const LEASE_SECONDS = `expected whole seconds from 1 to ${MAX_LEASE_S}`;
const leaseSeconds = z.int(LEASE_SECONDS).min(1, LEASE_SECONDS).max(MAX_LEASE_S, LEASE_SECONDS);

/** Query of `GET /v1/drift`. */
export const driftQuery = z.strictObject({
  resolved: z.enum(['true', 'false'], 'expected true or false').optional().describe('true: include resolved drift, newest first'),
  limit: rowsLimit,
});

/** Path of one finding. */
export const driftParams = z.object({ id: z.string().regex(/^[1-9]\d{0,14}$/, 'expected the id of a drift: a positive whole number').meta({ examples: ['12'] }) });

/** Path of one droplet. */
export const dropletParams = z.object({ id: dropletId });

/** Body of `PUT /v1/droplets/:id/protection`. */
export const protectionBody = z.strictObject({ protected: z.boolean('expected true or false').describe('false lifts the protection') });

export const protectionAnswer = z.object({ dropletId: z.int(), protected: z.boolean(), changed: z.boolean().describe('false: it was so already') });

/** Body of `POST /v1/droplets/:id/lease`. */
export const leaseBody = z.strictObject({ ttl_s: leaseSeconds.describe('how long from now the lease lasts at least, in seconds').meta({ examples: [7_200] }) });

export const leaseAnswer = z.object({ dropletId: z.int(), leaseUntil: answerTime.describe('when the lease ends now') });

/** Query of `GET /v1/leases`. */
export const leasesQuery = z.strictObject({
  ended: z.enum(['true', 'false'], 'expected true or false').optional().describe('true: only leases that have ended, but whose droplets are not being destroyed yet'),
  without: z.enum(['true', 'false'], 'expected true or false').optional().describe('true: droplets without a lease instead'),
  limit: rowsLimit,
});

const leaseRow = z
  .object({
    sagaId: z.uuid().describe('the saga that provisioned or adopted the droplet'),
    dropletId: z.int().nullable(),
    name: z.string(),
    requestedBy: z.string().nullable(),
    state: z.enum(['leased', 'ended', 'protected', 'expired', 'none'] as const satisfies readonly LeaseRow['state'][]),
    leaseUntil: answerTime.nullable(),
    leaseLimit: answerTime.nullable(),
    generation: z.int(),
    isWarned: z.boolean().describe('a worker has warned that the lease ends soon'),
    expiredAt: answerTime.nullable(),
    destroyedBy: z.uuid().nullable(),
    approvedAt: answerTime.nullable(),
    approvedBy: z.string().nullable(),
  })
  .describe('A droplet with its lease, or without one');

export const leasesAnswer = z.object({ leases: z.array(leaseRow), more });

/** Body of `POST /v1/leases/approve`. */
export const approveLeasesBody = z
  .strictObject({
    leases: z
      .array(
        z.strictObject({
          saga_id: z.uuid('expected the UUID of a saga').describe('the saga that provisioned or adopted the droplet'),
          generation: z.int().min(0).max(2_147_483_647).describe('the generation that the list showed: a lease that was renewed since has a higher one'),
        }),
      )
      .min(1)
      .max(1_000)
      .optional()
      .describe('the leases, as GET /v1/leases?ended=true lists them. One that was renewed since is left alone, even if it has ended again'),
    saga_ids: z
      .array(z.uuid('expected the UUID of a saga'))
      .min(1)
      .max(1_000)
      .optional()
      .describe('use leases instead. The sagas that provisioned or adopted the droplets: approves each of their leases that has ended when the request arrives, even one that was renewed since the list was read')
      .meta({ deprecated: true }),
  })
  .refine(({ leases, saga_ids: sagaIds }) => (leases === undefined) !== (sagaIds === undefined), { error: 'expected either leases or saga_ids', path: ['leases'] })
  .meta({ oneOf: [{ required: ['leases'] }, { required: ['saga_ids'] }], examples: [{ leases: [{ saga_id: '7f9c24e8-3b12-4fef-91e0-56a2d5a1c1b7', generation: 1 }] }] });

export const approvedLeasesAnswer = z.object({ approved: z.array(z.uuid()).describe('those for whose leases this holds') });

/** Query of `GET /v1/orphans`. */
export const orphansQuery = z.strictObject({ limit: rowsLimit });

// Any JSON. `z.json()` would add a schema that refers to itself to the document, and allow nothing less.
const json = z.record(z.string(), z.custom<Json>());

export const sagaAnswer = z
  .object({
    id: z.uuid(),
    saga8: z.string().meta({ examples: ['7f9c24e8'] }),
    name: z.string(),
    status,
    steps: z.array(z.string()),
    cursor: z.int().describe('index of the current step'),
    revision: z.int().describe('number of transitions so far'),
    attempt: z.int().describe('failed attempts of the current step'),
    input: json.describe('the input; secrets, such as user_data, are never shown'),
    context: json.describe('outputs of the steps'),
    error: z
      .object({
        code: z.string(),
        message: z.string(),
        step: z.string(),
        retryable: z.boolean(),
        direction: z.literal('forward').optional().meta({ description: 'present if a stuck saga stopped at a forward step, not in its rollback' }),
      })
      .nullable(),
    idempotencyKey: z.string().nullable(),
    requestedBy: z.string().nullable().describe('the actor that the caller names'),
    startedBy: z.string().nullable().describe('the proven identity that started it: http:<name of the credentials>, sql:<database role>, or queue (anyone with write access to the queue store)'),
    priority: z.enum(sagaPriorities).describe('among the sagas of the same requester'),
    traceparent: z.string().nullable().describe('its trace, in W3C Trace Context format'),
    resource: z.string().nullable().describe('the resource that it holds while it runs, such as a kind and an id'),
    waitsFor: z.uuid().nullable().describe('the saga that it waits for, because both use the same resource'),
    rerunOf: z.uuid().nullable().describe('the rolled-back saga that it repeats'),
    rerunAs: z.uuid().nullable().describe('the saga that repeats it, after it was rolled back'),
    cancelRequestedAt: answerTime.nullable(),
    stepStartedAt: answerTime,
    createdAt: answerTime,
    updatedAt: answerTime,
    finishedAt: answerTime.nullable(),
  })
  .describe('A saga');

export const eventAnswer = z.object({
  seq: z.int(),
  at: answerTime,
  kind: z.string(),
  step: z.string().nullable(),
  attempt: z.int().nullable(),
  detail: json,
  worker: z.string().nullable(),
});

const held = z
  .object({ cause: z.enum(holdCauses), message: z.string().describe('what was answered'), since: answerTime })
  .nullable()
  .describe('why it waits until somebody acts, although its status is that of a saga under way; null: it does not');

export const sagaWithTimeline = sagaAnswer.extend({ held, events: z.array(eventAnswer) });
export const sagasAnswer = z.object({
  sagas: z.array(sagaAnswer.extend({ held })),
  nextCursor: z.string().nullable().describe('pass it as cursor to read the next page; null: the list ends here. With the filters text and requested_by, a page may have fewer sagas than the limit, or none, and still be followed by others'),
});
export const startedAnswer = z.object({
  sagaId: z.uuid(),
  replayed: z.boolean().describe('the idempotency key was used before with the same input: this is the saga that was started then'),
});
export const rerunAnswer = z.object({
  sagaId: z.uuid().describe('the new saga'),
  rerunOf: z.uuid(),
  replayed: z.boolean().describe('the saga was run again before: this is the saga that was started then'),
});
export const actionAnswer = z.object({
  result: z.enum(['accepted', 'already']).describe('already: this has already happened, or is happening now'),
  saga: sagaAnswer,
});
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
export const resourceAnswer = z.object({
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
  provisionedBy: z.string().nullable().describe('saga:<id> if arcadia-cloud provisioned or adopted it'),
  spec: json.nullable().describe('what was asked for'),
  protected: z.boolean().describe('it is not destroyed until its protection is lifted'),
  leaseUntil: answerTime.nullable().describe('when its lease ends; null: it has none'),
});
export const resourcesAnswer = z.object({ resources: z.array(resourceAnswer), nextCursor: z.string().nullable().describe('pass it as cursor to read the next page; null: the list ends here') });

// Not imported as a value: an app without an inventory loads nothing of it.
const driftFields = ['existence', 'size_slug', 'region', 'image', 'power_state'] as const satisfies readonly DriftField[];

export const driftAnswer = z
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
    resolution: z.enum(['put_back', 'accepted', 'released', 'changed']).nullable().describe('changed: another difference of the same field took its place, with an id of its own'),
  })
  .describe('A difference between a droplet and its spec');

export const driftsAnswer = z.object({ drift: z.array(driftAnswer), more });
export const acceptedAnswer = z.object({ drift: driftAnswer });
export const orphanAnswer = z.object({
  id: z.int(),
  category: z.enum(['surplus', 'unknown']).describe('surplus: ours and not needed, will be destroyed; unknown: reported, never touched'),
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
});
export const orphansAnswer = z.object({ orphans: z.array(orphanAnswer), more });

const checkNames = ['account', 'room', 'region', 'size', 'image', 'ssh_keys', 'project', 'vpc_uuid', 'volumes', 'user_data', 'ready', 'lease'] as const satisfies readonly PlanCheck['name'][];

/** Answer of `POST /v1/plans`. */
export const planAnswer = z.object({
  possible: z.enum(['yes', 'no', 'unknown']).describe('no: a check found a problem; unknown: none did, but one could not be made'),
  checks: z.array(
    z.object({
      name: z.enum(checkNames).describe('the field of the input; account; or room: for one more droplet in the account'),
      result: z.enum(['ok', 'problem', 'unknown']),
      message: z.string().describe('the finding in a sentence, for people'),
    }),
  ),
  price: z.object({
    usdPerHour: z.number().nullable().describe('by the price list of DigitalOcean; null: not known'),
    usdPerMonth: z.number().nullable().describe('the most that a month costs; null: not known'),
    message: z.string(),
  }),
  start: z.object({
    inSeconds: z.int().nullable().describe('when the create would be sent, by the request budget; 0: now; null: not known, and the message says why'),
    message: z.string(),
  }),
  listsAgeSeconds: z.int().nullable().describe('age of the oldest list of regions, sizes and images that was used; null: none was read'),
});

/** Path of one subscription of outcomes. */
export const subscriptionParams = z.object({ subscription: z.string().regex(/^[a-z]{1,50}$/, 'expected the name of a subscription, such as webhook').meta({ examples: ['webhook'] }) });

const subscriptionAnswer = z.object({
  name: z.string(),
  target: z.string().describe('where outcomes go'),
  waiting: z.int().describe('outcomes that are not delivered yet'),
  waitingIsExact: z.boolean().describe('false: at least that many wait'),
  failingSince: z.iso.datetime().nullable(),
  lastError: z.string().nullable(),
  pausedAt: z.iso.datetime().nullable(),
  pausedReason: z.string().nullable(),
});

export const subscriptionsAnswer = z.object({ subscriptions: z.array(subscriptionAnswer) });
export const resumedAnswer = z.object({ subscription: z.string(), wasPaused: z.boolean() });
