// Checks what callers pass to the client: those in plain JavaScript may pass anything. Inputs of sagas are checked where sagas
// are started, and so are keys and requesters.
import { z } from 'zod';
import { isDropletId } from '../inventory/droplet-of-saga.ts';
import { MAX_LEASE_S } from '../platform/longest-lease.ts';
import { problemsOf } from '../platform/request-problems.ts';
import { withoutUnstorable } from '../platform/text.ts';
import { isUuid } from '../platform/uuid.ts';
import { sagaStatuses } from '../saga/saga.ts';
import { InvalidRequestError } from '../saga/start-errors.ts';

const MAX_ACTOR_LENGTH = 255;
const MAX_INT = 2_147_483_647;

const text = z.string('expected text').refine((given) => given === withoutUnstorable(given), 'expected text without NUL characters and broken surrogates');
const actor = text.max(MAX_ACTOR_LENGTH, `expected at most ${MAX_ACTOR_LENGTH} characters`);
const flag = z.boolean('expected true or false');
const sagaId = z.string('expected a saga id, a UUID').refine(isUuid, 'expected a saga id, a UUID');
const dropletId = z.custom<number>(isDropletId, 'expected the id of a droplet: a positive whole number');
const seq = z.int('expected the number of an event').min(-1, 'expected the number of an event').max(MAX_INT, 'expected the number of an event');
const LEASE_SECONDS = `expected whole seconds from 1 to ${MAX_LEASE_S}`;
const A_SAGA = 'expected the definition of a saga, or the name of a droplet saga';
const LIMIT = 'expected a whole number from 0';
const status = z.enum(sagaStatuses, `expected one of ${sagaStatuses.join(', ')}`);
// Postgres has no year 0, and reads no year of five digits.
const time = z.date('expected a Date').refine((given) => given.getUTCFullYear() >= 1 && given.getUTCFullYear() <= 9999, 'expected a time from the year 1 to 9999');

const sagaIds = z.array(sagaId, 'expected a list of saga ids');

const schemas = {
  saga: z.object({ sagaId }),
  sagas: z.object({ sagaIds }),
  events: z.object({ sagaId, afterSeq: seq.optional() }),
  afterSeq: z.object({ afterSeq: seq }),
  definition: z.object({ saga: z.looseObject({ name: z.string(A_SAGA), input: z.unknown(), steps: z.array(z.unknown(), A_SAGA) }, A_SAGA) }),
  action: z.object({ sagaId, by: text, reason: text.optional() }),
  rerun: z.object({ sagaId, by: text.nullish(), secrets: z.record(z.string(), text, 'expected an object with the secrets by field').optional(), despiteLeftovers: flag.optional() }),
  protection: z.object({ dropletId, protected: flag, by: actor.optional() }),
  lease: z.object({ dropletId, ttlS: z.int(LEASE_SECONDS).min(1, LEASE_SECONDS).max(MAX_LEASE_S, LEASE_SECONDS), by: actor.optional() }),
  list: z.object({
    ids: sagaIds.optional(),
    idPrefix: text.optional(),
    status: z.union([status, z.array(status).min(1)], `expected one of ${sagaStatuses.join(', ')}, or a list of them`).optional(),
    name: text.optional(),
    field: z.object({ name: text, value: text }, 'expected a name and a value').optional(),
    tag: text.optional(),
    createdFrom: time.optional(),
    createdBefore: time.optional(),
    text: text.optional(),
    cause: text.optional(),
    requestedBy: text.optional(),
    query: text.optional(),
    dropletId: dropletId.optional(),
    limit: z.int(LIMIT).min(0, LIMIT).max(MAX_INT - 1, LIMIT).optional(),
  }),
} as const;

/**
 * Checks the arguments of a call.
 *
 * @param call which arguments
 * @throws {InvalidRequestError} naming each that is wrong
 */
export function checkArguments(call: keyof typeof schemas, given: object): void {
  const { error } = schemas[call].safeParse(given);
  if (error !== undefined) throw new InvalidRequestError(problemsOf(error.issues));
}

/** The options without those that are null: they count as absent. */
export function optionsOf<Options extends object>(given: Options | null | undefined): Options {
  return Object.fromEntries(Object.entries(given ?? {}).filter(([, value]) => value !== null)) as Options; // oxlint-disable-line typescript/no-unsafe-type-assertion
}
