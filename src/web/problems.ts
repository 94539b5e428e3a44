// Errors as RFC 9457 problem documents: what was wrong, with which field, and what to do. Never a stack, never a value
// that may be a secret.
import type { FastifyReply, FastifyRequest, FastifySchemaValidationError } from 'fastify';
import { hasZodFastifySchemaValidationErrors } from 'fastify-type-provider-zod';
import { z } from 'zod';
import { isDatabaseOutage, isRefusedValue } from '../platform/db.ts';
import { errorCodeOf } from '../platform/error-code.ts';
import { LockHeldError } from '../platform/lock-wait.ts';
import type { FieldProblem } from '../platform/request-problems.ts';
import { problemsOf, sentenceOf } from '../platform/request-problems.ts';
import { CursorError } from '../platform/cursor.ts';
import { IdempotencyConflictError, IdempotencyKeyTakenError, InvalidRequestError, KeyInProgressError, StartRefusedError } from '../saga/start-errors.ts';
import type { App } from './app.ts';
import { expectationOf } from './expected-body.ts';

const codes = {
  invalid_request: [400, 'The request is malformed'],
  unauthorized: [401, 'Credentials are needed'],
  forbidden: [403, 'These credentials do not allow this'],
  cross_site: [403, 'The request comes from another site'],
  not_found: [404, 'Not found'],
  saga_not_found: [404, 'There is no such saga'],
  unknown_saga: [404, 'No saga has this name'],
  secrets_missing: [422, 'Secrets of the saga must be given again'],
  leftovers_unchecked: [409, 'The rollback may have left something that a person must check'],
  saga_refused: [409, 'The saga does not allow this in its current state'],
  drift_refused: [409, 'The drift is not open any more'],
  start_refused: [409, 'The saga cannot be started at the moment'],
  droplet_protected: [409, 'The droplet is protected'],
  droplet_being_destroyed: [409, 'The droplet is being destroyed'],
  lease_expired: [409, 'The lease has expired'],
  lease_absent: [409, 'The droplet has no lease'],
  lease_too_long: [422, 'The lease is longer than allowed'],
  lease_limit: [409, 'The lease has reached its limit'],
  callback_unknown: [404, 'There is no such callback'],
  callback_spent: [410, 'The callback is used, or too late'],
  droplet_unknown: [404, 'No such droplet is on record'],
  idempotency_conflict: [409, 'The idempotency key was used for another request'],
  request_timeout: [408, 'The request took too long'],
  body_too_large: [413, 'The body is too large'],
  unsupported_media_type: [415, 'The body is not JSON'],
  misdirected: [421, 'The request names another host'],
  invalid_input: [422, 'The input is not what the saga takes'],
  headers_too_large: [431, 'The headers are too large'],
  too_many_streams: [429, 'Too many streams'],
  too_many_failures: [429, 'Too many failed attempts'],
  internal: [500, 'Something went wrong'],
  // Not 409, which says that a repeated request is refused again.
  key_in_progress: [503, 'A request with this idempotency key is not committed yet'],
  droplet_busy: [503, 'The droplet is being changed by a transaction that is not committed yet'],
  unavailable: [503, 'The service cannot answer at the moment'],
} as const satisfies Record<string, readonly [number, string]>;

export type ProblemCode = keyof typeof codes;

const KEY_HEADER = 'Idempotency-Key';

// When to repeat a request that another transaction kept from being answered.
const BUSY_S = 1;

// Only callers hold transactions open for so long. The line says why, but nothing failed here.
const causedByCallers: readonly ProblemCode[] = ['key_in_progress', 'droplet_busy'];

/** The shape of every error that the web process answers with. */
export const problemSchema = z
  .object({
    type: z.string().describe('urn:arcadia-cloud:problem: and the code'),
    title: z.string(),
    status: z.int(),
    code: z.string(),
    detail: z.string(),
    instance: z.string().optional(),
    errors: z.array(z.object({ field: z.string(), message: z.string() })).optional().describe('each field that is wrong'),
    sagaId: z.string().optional(),
  })
  .describe('A problem document (RFC 9457)');

type Details = Readonly<{
  errors?: readonly { field: string; message: string }[];
  sagaId?: string;
  retryAfterSeconds?: number;
  /** Overrides the status that belongs to the code. */
  status?: number;
}>;

/** Thrown by a route: becomes a problem document. `detail` is for the caller's eyes. */
export class Problem extends Error {
  override readonly name = 'Problem';
  readonly code: ProblemCode;
  readonly details: Details;

  constructor(code: ProblemCode, detail: string, details: Details = {}) {
    super(detail);
    this.code = code;
    this.details = details;
  }
}

/**
 * Makes every error of the application, and every unknown path, a problem document.
 *
 * @param forPeople answers for unknown paths outside of the API: a person may have typed one
 */
export function answerWithProblems(app: App, forPeople: (...answer: Parameters<typeof sendError>) => FastifyReply | Promise<FastifyReply>): void {
  app.setErrorHandler(sendError);
  app.setNotFoundHandler((request, reply) => {
    const path = pathOf(request);
    return (path.startsWith('/v1/') ? sendError : forPeople)(new Problem('not_found', `nothing is at ${request.method} ${path}`), request, reply);
  });
}

/** Answers with the problem document of an error. */
export function sendError(error: unknown, request: FastifyRequest, reply: FastifyReply): FastifyReply {
  const problem = problemOf(error, request);
  logIfOurs(error, problem, request);
  return send(request, reply, problem);
}

/** An error in words for people, on a page. */
export function describeProblem(error: unknown, request: FastifyRequest): { status: number; title: string; detail: string } {
  const problem = problemOf(error, request);
  logIfOurs(error, problem, request);
  return { status: statusOf(problem), title: codes[problem.code][1], detail: problem.message };
}

function logIfOurs(error: unknown, problem: Problem, request: FastifyRequest): void {
  // A value that got as far as Postgres should have been refused by a schema, with the name of its field.
  const level = causedByCallers.includes(problem.code) ? 'warn' : 'error';
  if (statusOf(problem) >= 500 || isRefusedValue(error)) request.log[level]({ err: error, method: request.method, path: pathOf(request) }, 'request failed');
}

function problemOf(error: unknown, request: FastifyRequest): Problem {
  if (hasNoBody(error, request)) return invalid([{ field: 'body', message: expectationOf(request.routeOptions.schema?.body) }]);
  return isBrokenOff(request) ? new Problem('invalid_request', 'the request broke off before its body was whole') : toProblem(error, request.routeOptions.bodyLimit);
}

/** The schema of a route refused that there is none. */
function hasNoBody(error: unknown, { body }: FastifyRequest): boolean {
  return (body ?? null) === null && hasZodFastifySchemaValidationErrors(error) && error.validationContext === 'body';
}

/** The caller gave up, or its connection did: nobody hears an answer, and it is no fault of ours. */
function isBrokenOff({ raw }: FastifyRequest): boolean {
  return raw.destroyed && !raw.complete;
}

function statusOf(problem: Problem): number {
  return problem.details.status ?? codes[problem.code][0];
}

function send(request: FastifyRequest, reply: FastifyReply, problem: Problem): FastifyReply {
  setProblemHeaders(problem, reply);
  const document = documentOf(problem, pathOf(request));
  return reply.code(document.status).type('application/problem+json').serializer(JSON.stringify).send(document);
}

/** @param instance the path of the request, if it is known */
export function documentOf(problem: Problem, instance?: string): z.infer<typeof problemSchema> {
  const { errors, sagaId } = problem.details;
  return {
    type: `urn:arcadia-cloud:problem:${problem.code}`,
    title: codes[problem.code][1],
    status: statusOf(problem),
    code: problem.code,
    detail: problem.message,
    ...(instance === undefined ? {} : { instance }),
    ...(errors === undefined ? {} : { errors: [...errors] }),
    ...(sagaId === undefined ? {} : { sagaId }),
  };
}

/** Sets what an error says in headers: when to come back, and that credentials are asked for. */
export function setProblemHeaders(error: unknown, reply: FastifyReply): void {
  const { code, details } = toProblem(error);
  if (details.retryAfterSeconds !== undefined) reply.header('retry-after', String(details.retryAfterSeconds));
  if (code === 'unauthorized') reply.header('www-authenticate', 'Basic realm="arcadia-cloud", charset="UTF-8"');
}

/** The path without the query: what stands there may be anything. Nor with the token of a callback, which is a secret. */
function pathOf(request: FastifyRequest): string {
  return (request.originalUrl.split('?', 1)[0] ?? '/').replace(/(\/v1\/ready\/).+$/, '$1…');
}

/** @param bodyLimit of the route, in bytes */
function toProblem(error: unknown, bodyLimit?: number): Problem {
  if (error instanceof Problem) return error;
  if (error instanceof InvalidRequestError) {
    const errors = error.problems.map(({ field, message }) => ({ field: field === 'idempotencyKey' ? KEY_HEADER : field, message }));
    return new Problem('invalid_input', sentenceOf(errors), { errors });
  }
  if (error instanceof IdempotencyConflictError) {
    return new Problem('idempotency_conflict', error.message, { sagaId: error.sagaId, errors: [{ field: KEY_HEADER, message: 'was used before for another request' }] });
  }
  if (error instanceof IdempotencyKeyTakenError) {
    return new Problem('idempotency_conflict', error.message, { errors: [{ field: KEY_HEADER, message: 'is taken' }] });
  }
  if (error instanceof KeyInProgressError) return new Problem('key_in_progress', error.message.replace('idempotencyKey', KEY_HEADER), { errors: [{ field: KEY_HEADER, message: 'is not committed yet' }], retryAfterSeconds: BUSY_S });
  if (error instanceof LockHeldError) return new Problem('droplet_busy', 'a transaction that is not committed yet is changing the same droplet; repeat the request in a moment', { retryAfterSeconds: BUSY_S });
  if (error instanceof StartRefusedError) {
    const { field, message } = error;
    return new Problem(isCode(error.code) ? error.code : 'start_refused', message, field === null ? {} : { errors: [{ field, message: message.replace(`${field}: `, '') }] });
  }
  // By name: an app without droplets loads nothing of them.
  if (error instanceof Error && (error.name === 'ProtectionError' || error.name === 'LeaseError')) return ofDroplet(error);
  if (error instanceof CursorError) return invalid([{ field: 'cursor', message: error.message }]);
  const refused = problemsOfSchema(error);
  if (refused !== null) return invalid(refused);
  if (isRefusedValue(error)) return new Problem('invalid_request', 'one of the values can be neither stored nor looked for: expected text without NUL characters and broken surrogates, and numbers and times in range');
  return isDatabaseOutage(error)
    ? new Problem('unavailable', 'the database cannot be reached; try again', { retryAfterSeconds: 2 })
    : fromFastify(error, bodyLimit);
}

/** What the schema of a route refused; null: the error is another one. */
export function problemsOfSchema(error: unknown): FieldProblem[] | null {
  return hasZodFastifySchemaValidationErrors(error) ? problemsOf(error.validation.map(issueOf), error.validationContext ?? 'request') : null;
}

function isCode(code: string): code is ProblemCode {
  return Object.hasOwn(codes, code);
}

function ofDroplet(error: Error): Problem {
  const code = codeOf(error);
  return new Problem(code, error.message, code === 'droplet_busy' ? { retryAfterSeconds: BUSY_S } : {});
}

function codeOf(error: Error): ProblemCode {
  const code = errorCodeOf(error);
  return code !== null && isCode(code) ? code : 'internal';
}

function invalid(errors: readonly FieldProblem[]): Problem {
  return new Problem('invalid_request', sentenceOf(errors), { errors });
}

/** The schema's issue, out of what Fastify made of it. */
function issueOf({ instancePath, params, message = 'is wrong' }: FastifySchemaValidationError): Parameters<typeof problemsOf>[0][number] {
  const { keys } = params;
  const path = instancePath.split('/').filter((part) => part !== '');
  return Array.isArray(keys) ? { path, message, code: 'unrecognized_keys', keys: keys.map(String) } : { path, message };
}

/** Fastify's own errors say what the caller did wrong, and nothing of the inside; all else is ours to keep. */
function fromFastify(error: unknown, bodyLimit: number | undefined): Problem {
  const status = error instanceof Error && 'statusCode' in error && typeof error.statusCode === 'number' ? error.statusCode : 500;
  const message = error instanceof Error ? error.message : '';
  if (status === 413) return new Problem('body_too_large', bodyLimit === undefined ? 'expected a smaller body' : `expected a body of at most ${bodyLimit / 1024} KiB`);
  if (status === 415) return new Problem('unsupported_media_type', 'expected content-type: application/json');
  if (status === 404) return new Problem('not_found', 'there is no such file');
  const code = errorCodeOf(error);
  if (code === 'FST_ERR_BAD_URL' || code === 'FST_ERR_MAX_PARAM_LENGTH') {
    const expected = code === 'FST_ERR_BAD_URL' ? 'expected UTF-8 that is percent-encoded' : 'expected at most 100 characters between two slashes';
    return new Problem('invalid_request', `path: ${expected}`, { errors: [{ field: 'path', message: expected }] });
  }
  if (status >= 400 && status < 500) {
    // A parser of JSON quotes what it could not read.
    const detail = code === 'FST_ERR_CTP_INVALID_JSON_BODY' || error instanceof SyntaxError ? 'expected JSON' : message;
    return new Problem('invalid_request', `body: ${detail}`, { status, errors: [{ field: 'body', message: detail }] });
  }
  return new Problem('internal', 'the error is in the log of the web process');
}
