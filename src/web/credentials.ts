// Whom credentials belong to: tokens, people with passwords, and people whom a proxy has logged in.
import type { FastifyRequest } from 'fastify';
import { scopes } from '../platform/api-tokens.ts';
import { rangesOf } from '../platform/address-ranges.ts';
import type { Config } from '../platform/config.ts';
import { digestOf, knownSecrets } from '../platform/known-secrets.ts';
import { hashOfNobody, isPassword } from '../platform/passwords.ts';
import type { Principal } from './app.ts';
import { LaneFullError, fairLanes } from './fair-lanes.ts';
import { headerText } from './header-text.ts';
import { Problem } from './problems.ts';
import type { User } from './users.ts';
import { isUserName, scopesOf } from './users.ts';

export type CredentialOptions = Pick<Config['web'], 'person' | 'tokens' | 'impliedDestroy' | 'proxyLogin' | 'trustedProxies'> & Readonly<{
    /** The people of DASHBOARD_USERS_FILE. It is another array after each change. */
    users: () => readonly User[];
  }>;

/**
 * Finds the owner of credentials; null: nobody.
 *
 * @throws {Problem} when too many passwords from this address wait for their check
 */
export type Check = (scheme: string, credentials: string, address: string) => Promise<Principal | null>;

// Browsers send the password with each request. Checking it against its hash each time would take a core.
const LOGIN_KEPT_MS = 600_000;
const MOST_LOGINS = 1_000;

// A check takes some tenths of a second, and one runs at a time, so that guessing takes no more than one core. Checks take turns
// over user names and addresses: who floods one keeps nobody waiting who logs in from elsewhere, or as somebody else.
const LANES = { most: 5, mostLanes: 200 } as const;

/** Makes the check of passwords and tokens. */
export function makeCheck({ person, tokens, impliedDestroy, users }: CredentialOptions): Check {
  const findPerson = knownSecrets(person === null ? [] : [{ name: person.user, secret: `${person.user}:${person.password}` }]);
  const findToken = knownSecrets(tokens);
  const findUser = makeUserCheck(users);
  return async (scheme, credentials, address) => {
    if (scheme === 'bearer') {
      const token = findToken(credentials);
      return token === null ? null : { name: token.name, scopes: token.scopes, kind: 'program', impliesDestroy: impliedDestroy.includes(token.name) };
    }
    if (scheme !== 'basic') return null;
    const given = Buffer.from(credentials, 'base64').toString();
    const found = findPerson(given);
    return found === null ? findUser(given, address) : { name: found.name, scopes, kind: 'person' };
  };
}

/** Remembers logins by a digest, so that the memory of the process holds no password. Those of changed people end. */
function makeUserCheck(people: () => readonly User[]): (given: string, address: string) => Promise<Principal | null> {
  let known = people();
  const logins = new Map<string, { name: string; result: Promise<Principal | null>; until: number }>();
  const inTurn = fairLanes(LANES);
  const check = async (given: string, address: string): Promise<Principal | null> => {
    const separator = given.indexOf(':');
    const name = given.slice(0, Math.max(0, separator));
    // All names that nobody has share a lane.
    const lane = `${known.some((one) => one.name === name) ? name : ''} ${address}`;
    return inTurn(lane, async () => {
      const user = people().find((one) => one.name === name && one.hash !== null);
      const isRight = await isPassword(given.slice(separator + 1), user?.hash ?? hashOfNobody);
      return isRight && user !== undefined ? principalOf(user.name, user) : null;
    }).catch((error: unknown) => {
      if (!(error instanceof LaneFullError)) throw error;
      throw new Problem('too_many_failures', 'too many logins at once; try again in a few seconds', { retryAfterSeconds: 5 });
    });
  };
  return async (given, address) => {
    if (people() !== known) {
      const before = known;
      known = people();
      for (const [key, { name }] of logins) if (!isSame(name, before, known)) logins.delete(key);
    }
    if (known.every(({ hash }) => hash === null)) return null;
    const key = digestOf(given).toString('base64');
    const login = logins.get(key);
    if (login !== undefined && login.until > Date.now()) return login.result;
    const result = check(given, address);
    logins.delete(key);
    logins.set(key, { name: given.slice(0, Math.max(0, given.indexOf(':'))), result, until: Date.now() + LOGIN_KEPT_MS });
    const [oldest] = logins.keys();
    if (logins.size > MOST_LOGINS && oldest !== undefined) logins.delete(oldest);
    // What was wrong is forgotten at once: only the requests that came meanwhile share it.
    const forget = () => logins.get(key)?.result === result && logins.delete(key);
    void result.then((found) => found === null && forget(), forget);
    return result;
  };
}

/** Whether a person has the password and the role of before. */
function isSame(name: string, before: readonly User[], after: readonly User[]): boolean {
  const [one, other] = [before, after].map((people) => people.find((user) => user.name === name));
  return one !== undefined && one.hash === other?.hash && one.role === other?.role;
}

/**
 * Reads whom the proxy has logged in; null: the request names nobody, or comes from elsewhere than from a proxy.
 *
 * @throws {Problem} for a name that cannot be one
 */
export function makeProxyCheck({ proxyLogin, trustedProxies, users, tokens }: CredentialOptions): (request: FastifyRequest) => Principal | null {
  if (proxyLogin === null) return () => null;
  const proxies = rangesOf(trustedProxies);
  return (request) => {
    const name = namedBy(request, proxyLogin.header);
    if (name === null || !proxies.contains(request.socket.remoteAddress ?? '')) return null;
    if (!isUserName(name)) throw new Problem('unauthorized', `${proxyLogin.header}: expected the name of one user in UTF-8, of at most 100 characters, without colons and commas`);
    // The audit would take one for the other.
    if (tokens.some((token) => token.name === name)) throw new Problem('forbidden', `a token of API_TOKENS has the name ${name}: no user may have it`);
    return principalOf(name, users().find((user) => user.name === name) ?? proxyLogin);
  };
}

/** Whether a request names a user in the header of the proxy, wherever it comes from. */
export function namesUser(request: FastifyRequest, { proxyLogin }: CredentialOptions): boolean {
  return proxyLogin !== null && namedBy(request, proxyLogin.header) !== null;
}

function namedBy(request: FastifyRequest, header: string): string | null {
  const value = request.headers[header];
  const name = Array.isArray(value) ? value.join(', ') : (value ?? '');
  // Bytes that are not UTF-8 are the name of no user. Replaced by a character, they would be one name for several people.
  return name === '' ? null : (headerText(name) ?? '');
}

function principalOf(name: string, { role }: Pick<User, 'role'>): Principal {
  return { name, scopes: scopesOf(role), kind: 'person' };
}
