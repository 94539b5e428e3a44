// Who is asking, and whether they may. People log in with basic auth and may do everything; programs carry bearer tokens
// with scopes. Every path is behind this, static files and paths that lead nowhere too, unless its route says that
// anybody may.
import { createHash, timingSafeEqual } from 'node:crypto';
import type { FastifyReply, FastifyRequest } from 'fastify';
import type { ApiToken, Config, Scope } from '../config.ts';
import { isLoopback, scopes } from '../config.ts';
import type { App } from './app.ts';
import { Problem } from './problems.ts';

/** Who is asking. The name goes into the audit. */
export type Principal = Readonly<{ name: string; scopes: readonly Scope[]; kind: 'person' | 'program' | 'anybody' }>;

export type AuthOptions = Pick<Config['web'], 'person' | 'tokens'>;

// So many wrong credentials a minute from one address; then it is not listened to for the rest of the minute.
const MAX_FAILURES = 10;
const FAILURE_WINDOW_MS = 60_000;

/** What stands as `by` and `requestedBy` for a principal. */
export function actorOf(principal: Principal | null): string {
  return `http:${principal?.name ?? 'anybody'}`;
}

/** Whether a principal has a scope. */
export function may(principal: Principal | null, scope: Scope): boolean {
  return principal?.scopes.includes(scope) ?? false;
}

/**
 * Puts the guard before every route of the application. Where neither a person nor a token is configured, everybody who
 * reaches it may do everything: the caller makes sure that only this machine does.
 */
export function guard(app: App, options: AuthOptions): void {
  const isOpen = options.person === null && options.tokens.length === 0;
  const check = makeCheck(options);
  const failures = limitFailures(app);
  app.decorateRequest('principal', null);
  app.addHook('onRequest', async (request) => {
    // A page elsewhere may point a name of its own at this machine (DNS rebinding); its requests say that name.
    if (isOpen && !isLoopback(hostNameOf(request))) {
      throw new Problem('misdirected', 'without credentials configured, the web answers only to localhost, 127.0.0.1 and [::1]');
    }
    const needs = request.routeOptions.config.needs ?? (isReading(request) ? 'read' : 'operate');
    const tellsMore = request.routeOptions.config.tellsMore === true && (isOpen || request.headers.authorization !== undefined);
    if (needs === 'nothing' && !tellsMore) return;
    request.principal = isOpen ? { name: 'anybody', scopes, kind: 'anybody' } : await identify(request, check, failures);
    if (!isReading(request) && request.principal.kind !== 'program') refuseOtherSites(request);
    if (needs !== 'nothing' && !may(request.principal, needs)) {
      throw new Problem('forbidden', `the scope ${needs} is needed; ${request.principal.name} has ${request.principal.scopes.join(', ') || 'none'}`);
    }
  });
}

async function identify(request: FastifyRequest, check: Check, failures: FailureLimit): Promise<Principal> {
  const { authorization } = request.headers;
  if (authorization === undefined) throw new Problem('unauthorized', 'expected basic auth or a bearer token');
  await failures.refuseBlocked(request);
  const scheme = schemeOf(request);
  const principal = check(scheme, authorization.slice(scheme.length).trim());
  if (principal !== null) return principal;
  await failures.count(request);
  throw new Problem('unauthorized', 'these credentials are not known');
}

function schemeOf(request: FastifyRequest): string {
  return request.headers.authorization?.split(' ', 1)[0]?.toLowerCase() ?? '';
}

type Check = (scheme: string, credentials: string) => Principal | null;

/** Compares digests, so that neither the time nor the length of a comparison tells anything. */
function makeCheck({ person, tokens }: AuthOptions): Check {
  const login = person === null ? null : digest(`${person.user}:${person.password}`);
  const known = tokens.map((token) => ({ token, digest: digest(token.secret) }));
  return (scheme, credentials) => {
    if (scheme === 'bearer') {
      const given = digest(credentials);
      let found: ApiToken | null = null;
      // All of them, always: the first match must not come back sooner than the last.
      for (const candidate of known) found = timingSafeEqual(given, candidate.digest) ? candidate.token : found;
      return found === null ? null : { name: found.name, scopes: found.scopes, kind: 'program' };
    }
    if (scheme !== 'basic' || login === null || person === null) return null;
    const given = digest(Buffer.from(credentials, 'base64').toString());
    return timingSafeEqual(given, login) ? { name: person.user, scopes, kind: 'person' } : null;
  };
}

function digest(text: string): Buffer {
  return createHash('sha256').update(text).digest();
}

type FailureLimit = Readonly<{ refuseBlocked(request: FastifyRequest): Promise<void>; count(request: FastifyRequest): Promise<void> }>;

function limitFailures(app: App): FailureLimit {
  const limit = app.createRateLimit({
    max: MAX_FAILURES,
    timeWindow: FAILURE_WINDOW_MS,
    // Counted apart, so that whoever guesses passwords behind a proxy does not lock out the programs behind it.
    keyGenerator: (request) => `${schemeOf(request) === 'bearer' ? 'bearer' : 'basic'} ${request.ip}`,
  });
  return {
    refuseBlocked: async (request) => {
      const failed = await limit(request, { increment: false });
      if (failed.isAllowed || failed.remaining > 0) return;
      throw new Problem('too_many_failures', 'too many wrong credentials from this address', { retryAfterSeconds: failed.ttlInSeconds });
    },
    count: async (request) => {
      await limit(request);
    },
  };
}

function isReading(request: FastifyRequest): boolean {
  return request.method === 'GET' || request.method === 'HEAD' || request.method === 'OPTIONS';
}

/**
 * Browsers send a person's password along by themselves, also with what another site's page made them send; but they
 * say so. A program's token is only sent by whoever has it.
 */
function refuseOtherSites(request: FastifyRequest): void {
  const site = request.headers['sec-fetch-site'];
  const { origin } = request.headers;
  if (site === 'same-origin' || site === 'none') return;
  if (site === undefined && (origin === undefined || originHost(origin) === request.headers.host)) return;
  throw new Problem('cross_site', 'changes are only taken from pages of this site (Sec-Fetch-Site, Origin)');
}

function originHost(origin: string): string | null {
  return URL.canParse(origin) ? new URL(origin).host : null;
}

function hostNameOf(request: FastifyRequest): string {
  const host = `http://${request.headers.host ?? ''}`;
  return URL.canParse(host) ? new URL(host).hostname.replace(/^\[|\]$/g, '') : '';
}

/** Nothing that is answered here may be kept by a cache, but for the files whose address tells their content. */
export async function forbidCaching(request: FastifyRequest, reply: FastifyReply): Promise<void> {
  const mayBeKept = request.routeOptions.config.isForGood === true && reply.statusCode === 200;
  reply.header('cache-control', mayBeKept ? 'private, max-age=31536000, immutable' : 'no-store');
  await Promise.resolve();
}
