// What a route answers with, for the OpenAPI document. The types stay out of the handlers: an answer is written as JSON
// as it is, and the tests hold it to its schema.
import type { z } from 'zod';
import { problemSchema } from '../problems.ts';

const problems = { description: 'A problem document (RFC 9457)', content: { 'application/problem+json': { schema: problemSchema } } };

/** The `response` of a route's schema: its answer, and problem documents for all else. */
export function answers(status: 200 | 202, schema: z.ZodType): unknown {
  return { [status]: schema, '4xx': problems, '5xx': problems };
}

/** The same for a route that answers with a stream. */
export function streams(): unknown {
  return { '4xx': problems, '5xx': problems };
}
