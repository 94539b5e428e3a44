// The schemas of the routes of sagas: what they take, and what they answer.
import { z } from 'zod';
import { holdCauses } from '../../saga/holds.ts';
import { sagaPriorities, sagaStatuses } from '../../saga/saga.ts';
import { answerTime, dropletId, json, limit, status, text, time } from './fields.ts';

/** Path of one saga. */
export const sagaParams = z.object({ id: z.uuid('expected a saga id, a UUID').toLowerCase() });

/** Filters of a list of sagas and of a bulk request. */
export const filterFields = {
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
