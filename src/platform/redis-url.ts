// Parses REDIS_URL: one server, the nodes of a Redis Cluster, or Sentinels. Strict: a parameter that would be ignored is
// refused by name.

/** A host and its port. */
type RedisHost = Readonly<{ host: string; port: number }>;

/** The address of Redis and its credentials. */
export type RedisAddress = Readonly<{
  kind: 'server' | 'cluster' | 'sentinel';
  /** The server, the cluster's nodes, or the Sentinels. */
  hosts: readonly RedisHost[];
  isSecure: boolean;
  username: string | null;
  password: string | null;
  /** Number of the database; 0 on a cluster. */
  database: number;
  /** 4 or 6; 0: whatever the name resolves to. */
  family: number;
  /** The master's name and the credentials for the Sentinels. */
  sentinel: Readonly<{ master: string; username: string | null; password: string | null }> | null;
}>;

/** Thrown for an invalid URL. The message says what was found and what is expected, and contains no secret. */
export class RedisUrlError extends Error {
  override readonly name = 'RedisUrlError';
}

const REDIS_PORT = 6_379;
const SENTINEL_PORT = 26_379;

const SYNTAX =
  'expected redis://host:port or rediss://host:port (several nodes of one cluster separated by commas), ' +
  'or redis+sentinel://host:port,host:port/master-name (rediss+sentinel:// with TLS)';

/** Splits REDIS_URL into its URLs. Commas separate several nodes; a Sentinel URL contains commas itself. */
export function splitRedisUrl(value: string): string[] {
  return isOfSentinels(value.trim()) ? [value.trim()] : value.split(',').map((node) => node.trim());
}

/**
 * Parses the URLs of one Redis.
 *
 * @throws {RedisUrlError}
 */
export function readRedisNodes(nodes: readonly string[]): RedisAddress {
  const [first, ...others] = nodes;
  if (first === undefined) throw new RedisUrlError(SYNTAX);
  if (isOfSentinels(first)) {
    if (others.length > 0) throw new RedisUrlError('expected one URL of Sentinels, with its hosts separated by commas before the master\'s name');
    return readSentinels(first);
  }
  const read = nodes.map(readServer);
  const [server] = read;
  if (server === undefined || read.length === 1) return server ?? readServer(first);
  if (read.some(({ database }) => database !== 0)) throw new RedisUrlError('expected no database number: a Redis Cluster has database 0 only');
  if (read.some(({ isSecure }) => isSecure !== server.isSecure)) throw new RedisUrlError('expected redis:// or rediss:// for all nodes of the cluster, found both');
  const isStranger = ({ username, password }: RedisAddress) => (username ?? password) !== null && (username !== server.username || password !== server.password);
  if (read.some(isStranger)) throw new RedisUrlError('expected the same user and password for all nodes of the cluster, found different ones');
  return { ...server, kind: 'cluster', hosts: read.flatMap(({ hosts }) => hosts) };
}

function isOfSentinels(value: string): boolean {
  return /^rediss?\+sentinel:/i.test(value);
}

function readServer(value: string): RedisAddress {
  if (/^(?:redis\+|rediss\+)?(?:unix|socket)|^\//i.test(value)) throw new RedisUrlError(`Unix sockets are not supported; ${SYNTAX}`);
  if (!/^rediss?:\/\//i.test(value) || !URL.canParse(value)) throw new RedisUrlError(SYNTAX);
  const url = new URL(value);
  requireNoFragment(url.hash);
  const { family } = readParameters(url.searchParams, ['family']);
  return {
    kind: 'server',
    hosts: [hostOf(url, REDIS_PORT)],
    isSecure: url.protocol === 'rediss:',
    username: decode(url.username),
    password: decode(url.password),
    database: readDatabase(url.pathname.slice(1)),
    family: readFamily(family),
    sentinel: null,
  };
}

const sentinelUrl = /^(rediss?)\+sentinel:\/\/(?:([^/?#]*)@)?([^/?#@]+)(?:\/([^/?#]*))?(?:\/([^?#]*))?(?:\?([^#]*))?(#.*)?$/i;

function readSentinels(value: string): RedisAddress {
  const [, scheme = '', login = '', hosts = '', master = '', database = '', query = '', fragment = ''] = sentinelUrl.exec(value) ?? [];
  if (hosts === '') throw new RedisUrlError(SYNTAX);
  if (master === '') throw new RedisUrlError('expected the name of the master after the Sentinels, such as redis+sentinel://host:port,host:port/mymaster');
  requireNoFragment(fragment);
  const { family, sentinelUsername, sentinelPassword } = readParameters(new URLSearchParams(query), ['family', 'sentinelUsername', 'sentinelPassword']);
  const separator = login.indexOf(':');
  return {
    kind: 'sentinel',
    hosts: hosts.split(',').map((host) => {
      if (host === '' || !URL.canParse(`redis://${host}`)) throw new RedisUrlError(`expected the Sentinels as host:port, separated by commas; ${SYNTAX}`);
      return hostOf(new URL(`redis://${host}`), SENTINEL_PORT);
    }),
    isSecure: scheme.toLowerCase() === 'rediss',
    username: decode(separator === -1 ? login : login.slice(0, separator)),
    password: separator === -1 ? null : decode(login.slice(separator + 1)),
    database: readDatabase(database),
    family: readFamily(family),
    sentinel: { master: decode(master) ?? '', username: sentinelUsername ?? null, password: sentinelPassword ?? null },
  };
}

function hostOf({ hostname, port }: URL, fallbackPort: number): RedisHost {
  // Without the brackets that a URL puts around an IPv6 address.
  const host = hostname.replaceAll(/^\[|\]$/g, '');
  return { host: host === '' ? 'localhost' : host, port: port === '' ? fallbackPort : Number(port) };
}

function requireNoFragment(fragment: string): void {
  if (fragment !== '') throw new RedisUrlError('expected no # in it; write %23 where it belongs to the password');
}

function readParameters(found: URLSearchParams, known: readonly string[]): Readonly<Record<string, string | undefined>> {
  const names = [...found.keys()];
  const unknown = names.filter((name) => !known.includes(name));
  // Shows a name only if it looks like one. Anything else might be part of a password.
  const shown = unknown.map((name) => (/^[\w-]{1,40}$/.test(name) ? name : 'one of another form'));
  if (unknown.length > 0) throw new RedisUrlError(`the parameter ${shown.join(', ')} is not supported; supported: ${known.join(', ')}`);
  return Object.fromEntries(found);
}

function readDatabase(text: string): number {
  if (text === '') return 0;
  if (!/^\d{1,5}$/.test(text)) throw new RedisUrlError('expected a database number after the last slash, such as /0');
  return Number(text);
}

function readFamily(text: string | undefined): number {
  if (text === undefined) return 0;
  if (!['0', '4', '6'].includes(text)) throw new RedisUrlError('family: expected 0, 4 or 6');
  return Number(text);
}

function decode(text: string): string | null {
  if (text === '') return null;
  try {
    return decodeURIComponent(text);
  } catch {
    throw new RedisUrlError('a % in user, password or name begins no code of two hexadecimal digits; write %25 for a % itself');
  }
}
