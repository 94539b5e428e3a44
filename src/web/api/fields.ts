// The fields that several routes of the HTTP API share. Those of queries and bodies are enforced; those of answers are
// shown in the OpenAPI document, and the tests check the answers against them.
import { z } from 'zod';
import type { Json } from '../../platform/json.ts';
import { sagaStatuses } from '../../saga/saga.ts';
import { STORABLE_TIMES, isStorableTime, storableText } from '../storable.ts';

/** Status of a saga. */
export const status = z.enum(sagaStatuses, `expected one of ${sagaStatuses.join(', ')}`);

/** A text that Postgres can store, of at least one character. */
export const text = (max = 255) => storableText(max).min(1, 'expected at least 1 character');

/** A time that Postgres can store. */
export const time = z.iso.datetime({ offset: true, error: 'expected a time, such as 2026-01-31T12:00:00Z' }).refine((given) => isStorableTime(new Date(given)), STORABLE_TIMES);

/** Limit of a list, as a query gives it. */
export const limit = (most: number, fallback: number) =>
  z
    .string()
    .regex(/^\d{1,6}$/, `expected a whole number from 1 to ${most}`)
    .refine((value) => Number(value) >= 1 && Number(value) <= most, `expected a whole number from 1 to ${most}`)
    .optional()
    .describe(`maximum number of results: 1 to ${most}, default ${fallback}`);

/** Id of a droplet, as a query or a path gives it. */
export const dropletId = z
  .string()
  .regex(/^[1-9]\d{0,14}$/, 'expected the id of a droplet: a positive whole number')
  .describe("DigitalOcean's id of the droplet")
  .meta({ examples: ['4711'] });

/** Limit of the lists of the inventory. */
export const rowsLimit = limit(1_000, 200);

/** Whether a list was cut at its limit. */
export const more = z.boolean().describe('whether there are more than the limit');

/** A time in an answer. */
export const answerTime = z.iso.datetime();

// Any JSON. `z.json()` would add a schema that refers to itself to the document, and allow nothing less.
export const json = z.record(z.string(), z.custom<Json>());
