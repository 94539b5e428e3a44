// Who is asking, and whether they may. People log in with basic auth and may do everything; programs carry bearer tokens
// with scopes. Every path is behind this, static files and paths that lead nowhere too, unless its route says that
// anybody may.
import type { FastifyReply, FastifyRequest } from 'fastify';
import type { Config, Scope } from '../platform/config.ts';
import { isLoopback, scopes } from '../platform/config.ts';
import { digestOf, knownSecrets } from '../platform/known-secrets.ts';
import type { Log } from '../platform/log.ts';
import type { Starter } from '../saga/start.ts';
import type { App, Principal } from './app.ts';
import type { SagaPort } from './ports.ts';
import { Problem } from './problems.ts';

/** Which sort of credentials was shown. */
export type CredentialKind = 'bearer' | 'basic';

export type AuthOptions = Pick<Config['web'], 'person' | 'tokens' | 'allowedHosts'>;

// Wrong credentials a minute from one address, and for one user name from all addresses together. Beyond that they are
// answered 429. Right ones always pass: else whoever sends wrong ones, perhaps from behind the same proxy, would lock
// people out.
const MAX_FAILURES_OF_ADDRESS = 10;
const MAX_FAILURES_OF_USER = 100;
const FAILURE_WINDOW_MS = 60_000;

/** What stands as `by` and `requestedBy` for a principal. */
export function actorOf(principal: Principal | null): string {
  return `http:${principal?.name ?? 'anybody'}`;
}

/** Who starts a saga, as the store needs to know it. */
export function starterOf(principal: Principal | null): Starter {
  return { name: actorOf(principal), mayRead: may(principal, 'read') };
}

/** The scope that starting a saga needs. Of a saga that is not known, the worst is assumed. */
export function scopeToStart(definitions: SagaPort['definitions'], name: string): Scope {
  const definition = Object.hasOwn(definitions, name) ? definitions[name] : undefined;
  return definition === undefined || definition.isDestructive === true ? 'destroy' : 'start';
}

/** @throws {Problem} naming the scope that is missing */
export function requireScope(principal: Principal | null, scope: Scope): void {
  if (!may(principal, scope)) throw new Problem('forbidden', `the scope ${scope} is needed; ${principal?.name ?? 'anybody'} has ${principal?.scopes.join(', ') || 'none'}`);
}

/** Whether a principal has a scope. */
export function may(principal: Principal | null, scope: Scope): boolean {
  return principal?.scopes.includes(scope) ?? false;
}

/**
 * Puts the guard before every route of the application. Where neither a person nor a token is configured, everybody who
 * reaches it may do everything: the caller makes sure that only this machine does.
 */
export function guard(app: App, options: AuthOptions, told: Readonly<{ log: Log; countRefused: (kind: CredentialKind) => void }>): void {
  const { log, countRefused } = told;
  const isOpen = options.person === null && options.tokens.length === 0;
  const check = makeCheck(options);
  const countFailure = limitFailures(app, options, log, countRefused);
  const isKnownHost = (host: string) => isLoopback(nameOf(host)) || options.allowedHosts.some((allowed) => host === allowed || nameOf(host) === allowed);
  app.decorateRequest('principal', null);
  app.addHook('onRequest', async (request) => {
    // A page elsewhere may point a name of its own at this machine (DNS rebinding); its requests say that name.
    // What a trusted proxy says counts besides, not instead: the page may say that too.
    const unknown = isOpen ? [request.headers.host ?? '', request.host].map((host) => host.toLowerCase()).find((host) => !isKnownHost(host)) : undefined;
    if (unknown !== undefined) {
      throw new Problem(
        'misdirected',
        `without credentials configured, the web answers only to localhost, 127.0.0.1, [::1] and the hosts in WEB_ALLOWED_HOSTS; this request names the host ${quote(unknown)}. Behind nginx, set \`proxy_set_header Host $host;\` and list the host in WEB_ALLOWED_HOSTS`,
      );
    }
    const needs = request.routeOptions.config.needs ?? (isReading(request) ? 'read' : 'operate');
    const tellsMore = request.routeOptions.config.tellsMore === true && (isOpen || request.headers.authorization !== undefined);
    if (needs === 'nothing' && !tellsMore) return;
    request.principal = isOpen ? { name: 'anybody', scopes, kind: 'anybody' } : await identify(request, check, countFailure);
    if (!isReading(request) && request.principal.kind !== 'program') refuseOtherSites(request, options.allowedHosts);
    if (needs !== 'nothing') requireScope(request.principal, needs);
  });
}

async function identify(request: FastifyRequest, check: Check, countFailure: CountFailure): Promise<Principal> {
  const { authorization } = request.headers;
  if (authorization === undefined) throw new Problem('unauthorized', 'expected basic auth or a bearer token');
  const scheme = schemeOf(request);
  const principal = check(scheme, authorization.slice(scheme.length).trim());
  if (principal !== null) return principal;
  await countFailure(request);
  throw new Problem('unauthorized', 'these credentials are not known');
}

function schemeOf(request: FastifyRequest): string {
  return request.headers.authorization?.split(' ', 1)[0]?.toLowerCase() ?? '';
}

type Check = (scheme: string, credentials: string) => Principal | null;

function makeCheck({ person, tokens }: AuthOptions): Check {
  const findPerson = knownSecrets(person === null ? [] : [{ name: person.user, secret: `${person.user}:${person.password}` }]);
  const findToken = knownSecrets(tokens);
  return (scheme, credentials) => {
    if (scheme === 'bearer') {
      const token = findToken(credentials);
      return token === null ? null : { name: token.name, scopes: token.scopes, kind: 'program' };
    }
    if (scheme !== 'basic') return null;
    const found = findPerson(Buffer.from(credentials, 'base64').toString());
    return found === null ? null : { name: found.name, scopes, kind: 'person' };
  };
}

/** @throws {Problem} when there were too many before */
type CountFailure = (request: FastifyRequest) => Promise<void>;

function limitFailures(app: App, { person }: AuthOptions, log: Log, countRefused: (kind: CredentialKind) => void): CountFailure {
  const byAddress = app.createRateLimit({ max: MAX_FAILURES_OF_ADDRESS, timeWindow: FAILURE_WINDOW_MS, keyGenerator: (request) => `${kindOf(request)} ${request.ip}` });
  // Any name, whether it is known or not: the answer must not tell.
  const byUser = app.createRateLimit({ max: MAX_FAILURES_OF_USER, timeWindow: FAILURE_WINDOW_MS, keyGenerator: (request) => digestOf(userOf(request)).toString('base64') });
  return async (request) => {
    countRefused(kindOf(request));
    const ofAddress = await byAddress(request);
    const counts = [{ what: 'from this address', count: ofAddress }];
    // Beyond the limit one more line says so: the log of whoever is guessed at must not be filled by it.
    if (ofAddress.isAllowed || !ofAddress.isExceeded) log.warn({ address: request.ip, kind: kindOf(request), path: request.routeOptions.url ?? null }, 'wrong credentials were refused');
    if (kindOf(request) === 'basic') counts.push({ what: 'for this user', count: await byUser(request) });
    for (const { what, count } of counts) {
      if (count.isAllowed || count.remaining > 0) continue;
      // A name that is none may be a password, typed into the wrong field.
      const user = kindOf(request) === 'basic' && userOf(request) === person?.user ? person.user : null;
      if (!count.isExceeded) log.warn({ address: request.ip, user }, `too many wrong credentials ${what}: more of them are answered 429 for a while`);
      else throw new Problem('too_many_failures', `too many wrong credentials ${what}; right ones pass`, { retryAfterSeconds: count.ttlInSeconds });
    }
  };
}

/** Counted apart, so that whoever guesses passwords from an address does not slow down the programs there. */
function kindOf(request: FastifyRequest): CredentialKind {
  return schemeOf(request) === 'bearer' ? 'bearer' : 'basic';
}

/** The user name that basic auth claims. */
function userOf(request: FastifyRequest): string {
  const credentials = request.headers.authorization?.slice('basic'.length).trim() ?? '';
  return Buffer.from(credentials, 'base64').toString().split(':', 1)[0] ?? '';
}

function isReading(request: FastifyRequest): boolean {
  return request.method === 'GET' || request.method === 'HEAD' || request.method === 'OPTIONS';
}

/**
 * Browsers send a person's password along by themselves, also with what another site's page made them send; but they
 * say so. A program's token is only sent by whoever has it.
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

/** The name in a `Host`, without its port. */
function nameOf(host: string): string {
  const url = `http://${host}`;
  return URL.canParse(url) ? new URL(url).hostname.replace(/^\[|\]$/g, '') : '';
}

/** What a caller sent, as a short text of harmless characters. */
function quote(text: string): string {
  return JSON.stringify(text.slice(0, 200));
}

/** Nothing that is answered here may be kept by a cache, but for the files whose address tells their content. */
export async function forbidCaching(request: FastifyRequest, reply: FastifyReply): Promise<void> {
  const mayBeKept = request.routeOptions.config.isForGood === true && reply.statusCode === 200;
  reply.header('cache-control', mayBeKept ? 'private, max-age=31536000, immutable' : 'no-store');
  await Promise.resolve();
}
