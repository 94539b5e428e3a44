// Authentication and authorization. People log in with basic auth, or at a proxy, and have a role. Programs use bearer
// tokens with scopes. This guards every path, including static files and unknown paths, unless the route is public.
import type { FastifyReply, FastifyRequest } from 'fastify';
import type { Config } from '../platform/config.ts';
import { scopes } from '../platform/api-tokens.ts';
import { isLoopback } from '../platform/loopback.ts';
import { digestOf } from '../platform/known-secrets.ts';
import type { Log } from '../platform/log.ts';
import type { Starter } from '../saga/start.ts';
import type { App, Principal, Right } from './app.ts';
import type { CredentialOptions } from './credentials.ts';
import { makeCheck, makeProxyCheck, namesUser } from './credentials.ts';
import type { SagaPort } from './ports.ts';
import { Problem } from './problems.ts';

/** The kind of credentials that the caller sent. */
export type CredentialKind = 'bearer' | 'basic';

export type AuthOptions = CredentialOptions &
  Pick<Config['web'], 'allowedHosts'> &
  Readonly<{
    /** Host of PUBLIC_URL, by which droplets reach the web; null: not set. */
    publicHost: string | null;
  }>;

// Wrong credentials per minute from one address, and for one user name from all addresses. Beyond that, the answer is
// 429. Correct credentials always pass: otherwise an attacker, perhaps behind the same proxy, could lock people out.
const MAX_FAILURES_OF_ADDRESS = 10;
const MAX_FAILURES_OF_USER = 100;
const FAILURE_WINDOW_MS = 60_000;

/** A principal's name in `by` and `requestedBy`. */
export function actorOf(principal: Principal | null): string {
  return `http:${principal?.name ?? 'anybody'}`;
}

/** Converts a principal to the starter of a saga. */
export function starterOf(principal: Principal | null): Starter {
  return { name: actorOf(principal), mayRead: may(principal, 'read') };
}

/** The right required to start a saga. An unknown saga requires the highest. */
export function rightToStart(definitions: SagaPort['definitions'], name: string): Right {
  const definition = Object.hasOwn(definitions, name) ? definitions[name] : undefined;
  if (definition === undefined) return 'destroy';
  if (definition.isDestructive !== true) return 'start';
  return definition.startSufficed === true ? 'destroy_by_start' : 'destroy';
}

/**
 * @throws {Problem} naming the missing scope
 */
export function requireRight(principal: Principal | null, right: Right): void {
  if (may(principal, right)) return;
  const scope = right === 'destroy_by_start' ? 'destroy' : right;
  throw new Problem('forbidden', `this needs the scope ${scope}; ${principal?.name ?? 'anybody'} has ${principal?.scopes.join(', ') || 'none'}`);
}

/** Whether a principal has a right. */
export function may(principal: Principal | null, right: Right): boolean {
  if (principal === null) return false;
  if (right !== 'destroy_by_start') return principal.scopes.includes(right);
  return principal.scopes.includes('destroy') || principal.impliesDestroy === true;
}

/**
 * Adds the guard to every route. If no credentials are configured, everyone may do everything: the caller
 * makes sure that only this machine can connect.
 */
export function guard(app: App, options: AuthOptions, told: Readonly<{ log: Log; countRefused: (kind: CredentialKind) => void }>): void {
  const { log, countRefused } = told;
  const isOpen = options.person === null && options.tokens.length === 0 && options.users().length === 0 && options.proxyLogin === null;
  const identify = makeIdentify(options, limitFailures(app, options, log, countRefused));
  const ofDroplets = options.publicHost === null ? [] : [options.publicHost];
  // Where nobody has to log in, it must not open more than the one route of droplets.
  const allowedHosts = isOpen ? options.allowedHosts : [...options.allowedHosts, ...ofDroplets];
  app.decorateRequest('principal', null);
  app.addHook('onRequest', async (request) => {
    // Another site may point its own host name at this machine (DNS rebinding). Its requests contain that name. Check the
    // headers of a trusted proxy in addition, not instead: the page could send those too.
    const known = request.routeOptions.config.isForDroplets === true ? [...allowedHosts, ...ofDroplets] : allowedHosts;
    const unknown = isOpen ? [request.headers.host ?? '', request.host].map((host) => host.toLowerCase()).find((host) => !isKnownHost(host, known)) : undefined;
    if (unknown !== undefined) {
      throw new Problem(
        'misdirected',
        `without credentials configured, the web answers only to localhost, 127.0.0.1, [::1] and the hosts in WEB_ALLOWED_HOSTS; this request names the host ${quote(unknown)}. Behind nginx, set \`proxy_set_header Host $host;\` and list the host in WEB_ALLOWED_HOSTS`,
      );
    }
    const needs = request.routeOptions.config.needs ?? (isReading(request) ? 'read' : 'operate');
    const tellsMore = request.routeOptions.config.tellsMore === true && (isOpen || request.headers.authorization !== undefined || namesUser(request, options));
    if (needs === 'nothing' && !tellsMore) return;
    request.principal = isOpen ? { name: 'anybody', scopes, kind: 'anybody' } : await identify(request);
    if (!isReading(request) && request.principal.kind !== 'program') refuseOtherSites(request, allowedHosts);
    for (const right of needs === 'nothing' ? [] : [needs].flat()) requireRight(request.principal, right);
  });
}

function makeIdentify(options: AuthOptions, countFailure: CountFailure): (request: FastifyRequest) => Promise<Principal> {
  const check = makeCheck(options);
  const namedByProxy = makeProxyCheck(options);
  return async (request) => {
    const { authorization } = request.headers;
    const scheme = schemeOf(request);
    // Programs come through the proxy too, with tokens of their own.
    const proxied = scheme === 'bearer' ? null : namedByProxy(request);
    if (proxied !== null) return proxied;
    if (authorization === undefined) {
      const stray = namesUser(request, options) ? `; the user in the header ${options.proxyLogin?.header} does not count, because the request does not come from one of TRUSTED_PROXIES` : '';
      throw new Problem('unauthorized', `expected basic auth or a bearer token${stray}`);
    }
    const principal = await check(scheme, authorization.slice(scheme.length).trim(), request.ip);
    if (principal !== null) return principal;
    await countFailure(request);
    throw new Problem('unauthorized', 'unknown credentials');
  };
}

function schemeOf(request: FastifyRequest): string {
  return request.headers.authorization?.split(' ', 1)[0]?.toLowerCase() ?? '';
}

/**
 * @throws {Problem} after too many failures
 */
type CountFailure = (request: FastifyRequest) => Promise<void>;

function limitFailures(app: App, { person, users }: AuthOptions, log: Log, countRefused: (kind: CredentialKind) => void): CountFailure {
  const isKnown = (name: string) => name === person?.user || users().some((user) => user.name === name);
  const byAddress = app.createRateLimit({ max: MAX_FAILURES_OF_ADDRESS, timeWindow: FAILURE_WINDOW_MS, keyGenerator: (request) => `${kindOf(request)} ${request.ip}` });
  // Counts any name, known or not: the response must not reveal which exist.
  const byUser = app.createRateLimit({ max: MAX_FAILURES_OF_USER, timeWindow: FAILURE_WINDOW_MS, keyGenerator: (request) => digestOf(userOf(request)).toString('base64') });
  return async (request) => {
    countRefused(kindOf(request));
    const ofAddress = await byAddress(request);
    const counts = [{ what: 'from this address', count: ofAddress }];
    // Beyond the limit, logs one more line and then nothing: guessing must not fill the log.
    if (ofAddress.isAllowed || !ofAddress.isExceeded) log.warn({ address: request.ip, kind: kindOf(request), path: request.routeOptions.url ?? null }, 'wrong credentials were refused');
    if (kindOf(request) === 'basic') counts.push({ what: 'for this user', count: await byUser(request) });
    for (const { what, count } of counts) {
      if (count.isAllowed || count.remaining > 0) continue;
      // Logs only a known user name: an unknown one may be a password typed into the wrong field.
      const user = kindOf(request) === 'basic' && isKnown(userOf(request)) ? userOf(request) : null;
      if (!count.isExceeded) log.warn({ address: request.ip, user }, `too many wrong credentials ${what}: more of them are answered 429 for a while`);
      else throw new Problem('too_many_failures', `too many wrong credentials ${what}; correct ones still pass`, { retryAfterSeconds: count.ttlInSeconds });
    }
  };
}

/** Counted separately, so that guessing passwords from an address does not block programs there. */
function kindOf(request: FastifyRequest): CredentialKind {
  return schemeOf(request) === 'bearer' ? 'bearer' : 'basic';
}

/** The user name in the basic auth header. */
function userOf(request: FastifyRequest): string {
  const credentials = request.headers.authorization?.slice('basic'.length).trim() ?? '';
  return Buffer.from(credentials, 'base64').toString().split(':', 1)[0] ?? '';
}

function isReading(request: FastifyRequest): boolean {
  return request.method === 'GET' || request.method === 'HEAD' || request.method === 'OPTIONS';
}

/**
 * Browsers attach a person's password to every request, even one that another site's page caused, but they mark such
 * requests. A program's token is only sent by its owner.
 */
function refuseOtherSites(request: FastifyRequest, allowedHosts: readonly string[]): void {
  const site = request.headers['sec-fetch-site'];
  const { origin } = request.headers;
  if (site === 'same-origin' || site === 'none') return;
  const page = origin === undefined ? null : originHost(origin);
  const isOurs = origin === undefined || (page !== null && [request.host.toLowerCase(), request.headers.host?.toLowerCase(), ...allowedHosts].includes(page));
  if (site === undefined && isOurs) return;
  const where = site === undefined
    ? `: the page is at ${quote(origin ?? '')}, the request names the host ${quote(request.host)}. Behind nginx, set \`proxy_set_header Host $host;\` ($http_host where the port is not the usual one), or list the page's host in WEB_ALLOWED_HOSTS`
    : ' (Sec-Fetch-Site, Origin)';
  throw new Problem('cross_site', `changes are only taken from pages of this site${where}`);
}

function originHost(origin: string): string | null {
  return URL.canParse(origin) ? new URL(origin).host : null;
}

function isKnownHost(host: string, known: readonly string[]): boolean {
  return isLoopback(nameOf(host)) || known.some((allowed) => host === allowed || nameOf(host) === allowed);
}

/** The host name in a `Host` header, without the port. */
function nameOf(host: string): string {
  const url = `http://${host}`;
  return URL.canParse(url) ? new URL(url).hostname.replace(/^\[|\]$/g, '') : '';
}

/** Formats text from a caller: short and without control characters. */
function quote(text: string): string {
  return JSON.stringify(text.slice(0, 200));
}

/** Forbids caching of every response, except files whose URL identifies their content. */
export async function forbidCaching(request: FastifyRequest, reply: FastifyReply): Promise<void> {
  const mayBeKept = request.routeOptions.config.isForGood === true && reply.statusCode === 200;
  reply.header('cache-control', mayBeKept ? 'private, max-age=31536000, immutable' : 'no-store');
  await Promise.resolve();
}
