// Response schemas of the routes, for the OpenAPI document. Handlers do not validate against them: a response is
// serialized unchanged, and the tests check it against its schema.
import { z } from 'zod';
import { problemSchema } from '../problems.ts';

const problems = { description: 'A problem document (RFC 9457)', content: { 'application/problem+json': { schema: problemSchema } } };

/** The `response` part of a route's schema: its success response, and problem documents for everything else. */
export function answers(status: 200 | 202, schema: z.ZodType): unknown {
  return { [status]: schema, '4xx': problems, '5xx': problems };
}

/** The same for a route that responds with a stream of server-sent events, or with nothing. */
export function streams(stream: string, nothing: string): unknown {
  const events = { description: stream, content: { 'text/event-stream': { schema: z.string() } } };
  return { 200: events, 204: { description: nothing, type: 'null' }, '4xx': problems, '5xx': problems };
}
