// Parses DATABASE_URL for both drivers: a connection URI as libpq defines it, plus our own parameter `pgbouncer`. A
// parameter that would be ignored, or that one of the drivers understands differently, is refused by name.
// Source: https://www.postgresql.org/docs/current/libpq-connect.html
import { userInfo } from 'node:os';
import { ConfigError } from './config-error.ts';

/** One server: a host name, an IP address without brackets, or the directory of a Unix socket. */
type DatabaseHost = Readonly<{ host: string; port: number }>;

/** The encryption of a connection. Files are named, not read. */
export type DatabaseTls = Readonly<{
  /** `require` verifies the server's certificate only if `rootCert` is set, and then like `verify-ca`. */
  mode: 'require' | 'verify-ca' | 'verify-full';
  /** A certificate file, or `system` for the operating system's certificates. */
  rootCert: string | null;
  cert: string | null;
  key: string | null;
  keyPassword: string | null;
  crl: string | null;
  minVersion: TlsVersion | null;
  maxVersion: TlsVersion | null;
  negotiation: 'postgres' | 'direct';
}>;

type TlsVersion = (typeof tlsVersions)[number];

export type DatabaseAddress = Readonly<{
  /** At least one. If there are several, they are TCP hosts, tried in order. */
  hosts: readonly DatabaseHost[];
  user: string;
  password: string | null;
  database: string;
  /** Null: not encrypted. */
  tls: DatabaseTls | null;
  /** Each transaction may run in another server session; null: the URL does not say. */
  isPooled: boolean | null;
  /** Only a writable server is acceptable. */
  isPrimaryOnly: boolean;
  applicationName: string | null;
  /** Command-line options for the server's process, such as `-c geqo=off`. */
  options: string | null;
  /** Seconds; null: our default. */
  connectTimeoutS: number | null;
  /** Seconds of silence before TCP sends a keepalive; 0: never; null: our default. */
  keepAliveS: number | null;
  /** The URL requests channel binding, which not every driver supports. */
  wantsChannelBinding: boolean;
}>;

const tlsVersions = ['TLSv1', 'TLSv1.1', 'TLSv1.2', 'TLSv1.3'] as const;

const SYNTAX = 'expected postgres://user:password@host:port/database';

/** The environment variables of libpq that both drivers have always used for missing parts of the URL. */
type Defaults = Readonly<Partial<Record<'PGHOST' | 'PGPORT' | 'PGUSER' | 'PGPASSWORD' | 'PGDATABASE', string>>>;

/**
 * Parses a connection URI.
 *
 * @throws {ConfigError} naming DATABASE_URL and each invalid parameter, never a value
 */
export function readDatabaseUrl(databaseUrl: string, defaults: Defaults = process.env): DatabaseAddress {
  const given = split(databaseUrl);
  const problems = problemsOf(given.parameters);
  if (problems.length > 0) throw new ConfigError(problems.map((problem) => `DATABASE_URL: ${problem}`).join('\n'));
  const get = (name: string): string | null => given.parameters.get(name) ?? null;

  const hosts = hostsOf(get('host') ?? given.host ?? defaults.PGHOST ?? 'localhost', get('port') ?? given.port ?? defaults.PGPORT ?? '5432');
  const user = get('user') ?? given.user ?? defaults.PGUSER ?? userInfo().username;
  const isSocket = hosts.some(({ host }) => host.startsWith('/'));
  return {
    hosts,
    user,
    password: get('password') ?? given.password ?? defaults.PGPASSWORD ?? null,
    database: get('dbname') ?? given.database ?? defaults.PGDATABASE ?? user,
    // As in libpq: a local socket is never encrypted, whatever the URL requests.
    tls: isSocket ? null : tlsOf(get),
    isPooled: get('pgbouncer') === null ? null : get('pgbouncer') === 'true',
    isPrimaryOnly: ['read-write', 'primary'].includes(get('target_session_attrs') ?? 'any'),
    applicationName: get('application_name'),
    options: get('options'),
    connectTimeoutS: Number(get('connect_timeout') ?? 0) || null,
    keepAliveS: get('keepalives') === '0' ? 0 : Number(get('keepalives_idle') ?? 0) || null,
    wantsChannelBinding: get('channel_binding') === 'require',
  };
}

type Given = Readonly<{
  user: string | null;
  password: string | null;
  /** Hosts and ports, separated by commas. */
  host: string | null;
  port: string | null;
  database: string | null;
  parameters: ReadonlyMap<string, string>;
}>;

/** `URL` supports neither several hosts nor a socket directory as the host. */
function split(databaseUrl: string): Given {
  const [, authority, path = '', query = ''] = /^postgres(?:ql)?:\/\/([^/?]*)(?:\/([^?]*))?(?:\?(.*))?$/s.exec(databaseUrl) ?? [];
  if (authority === undefined) throw new ConfigError(`DATABASE_URL: ${SYNTAX}`);
  const at = authority.lastIndexOf('@');
  const [user = '', ...password] = at === -1 ? [] : authority.slice(0, at).split(':');
  const places = authority.slice(at + 1).split(',').map(placeOf);
  const listOf = (part: 'host' | 'port') => (places.every((place) => place[part] === '') ? null : places.map((place) => place[part]).join(','));
  const parameters = query.split('&').filter((parameter) => parameter !== '').map((parameter): [string, string] => {
    const [name = '', ...value] = parameter.split('=');
    return [decoded(name), decoded(value.join('='))];
  });
  return {
    user: decoded(user) || null,
    password: password.length === 0 ? null : decoded(password.join(':')),
    host: listOf('host'),
    port: listOf('port'),
    database: decoded(path) || null,
    // JDBC's spelling, which libpq understands.
    parameters: new Map(parameters.map(([name, value]) => (name === 'ssl' && value === 'true' ? ['sslmode', 'require'] : [name, value]))),
  };
}

function placeOf(place: string): { host: string; port: string } {
  const [, bracketed, bare, port = ''] = /^(?:\[([^\]]+)\]|([^:[\]]*))(?::(\d*))?$/.exec(place) ?? [];
  const host = bracketed ?? bare;
  if (host === undefined) throw new ConfigError(`DATABASE_URL: ${SYNTAX}, with an IPv6 address in brackets`);
  return { host: decoded(host), port };
}

function decoded(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    throw new ConfigError('DATABASE_URL: expected %25 where a % is meant');
  }
}

/** One port for all hosts, or one per host. */
function hostsOf(hostList: string, portList: string): DatabaseHost[] {
  const hosts = hostList.split(',');
  const ports = portList.split(',');
  if (ports.length !== 1 && ports.length !== hosts.length) throw new ConfigError('DATABASE_URL: port: expected one port, or one for each host');
  const all = hosts.map((host, index) => {
    const port = Number((ports.length === 1 ? ports[0] : ports[index]) || '5432');
    if (!Number.isInteger(port) || port < 1 || port > 65_535) throw new ConfigError('DATABASE_URL: port: expected a whole number from 1 to 65535');
    return { host: host || 'localhost', port };
  });
  if (all.some(({ host }) => host.startsWith('@'))) throw new ConfigError('DATABASE_URL: host: abstract Unix sockets are not supported');
  if (all.length > 1 && all.some(({ host }) => host.startsWith('/'))) throw new ConfigError('DATABASE_URL: host: a Unix socket cannot be one of several hosts');
  return all;
}

/** Returns the problem with a parameter's value; null: none. */
type Check = (value: string) => string | null;

const anything: Check = () => null;
const oneOf = (...values: readonly string[]): Check => (value) => (values.includes(value) ? null : `expected ${listed(values)}`);
const wholeNumber: Check = (value) => (/^\d{1,9}$/.test(value) ? null : 'expected a whole number');
const filled: Check = (value) => (value === '' ? 'expected a value' : null);

/** Supported parameters. */
const known: Readonly<Record<string, Check>> = {
  pgbouncer: oneOf('true', 'false'),
  host: anything,
  port: anything,
  user: filled,
  password: anything,
  dbname: filled,
  application_name: anything,
  // Names connections that have no name. Ours have one, so this has no effect.
  fallback_application_name: anything,
  options: anything,
  connect_timeout: wholeNumber,
  client_encoding: (value) => (['utf8', 'utf-8', 'unicode', 'auto'].includes(value.toLowerCase()) ? null : 'expected UTF8'),
  keepalives: oneOf('0', '1'),
  keepalives_idle: wholeNumber,
  // Node.js cannot set these. Our own deadlines detect a silent connection.
  keepalives_interval: wholeNumber,
  keepalives_count: wholeNumber,
  tcp_user_timeout: wholeNumber,
  target_session_attrs: (value) => (['any', 'read-write', 'primary'].includes(value) ? null : 'expected any, read-write or primary: sagas are written where they are read'),
  load_balance_hosts: oneOf('disable'),
  gssencmode: oneOf('disable', 'prefer'),
  channel_binding: oneOf('disable', 'prefer', 'require'),
  sslmode: (value) => {
    if (['disable', 'require', 'verify-ca', 'verify-full'].includes(value)) return null;
    if (value === 'allow' || value === 'prefer') return 'allow and prefer may send everything unencrypted; expected require, verify-ca or verify-full, or disable';
    if (value === 'no-verify') return 'expected require, which is the same: encrypted, without a look at the certificate';
    return 'expected disable, require, verify-ca or verify-full';
  },
  sslnegotiation: oneOf('postgres', 'direct'),
  sslrootcert: filled,
  sslcert: filled,
  sslkey: filled,
  sslpassword: anything,
  sslcrl: filled,
  sslsni: oneOf('1'),
  sslcompression: oneOf('0'),
  ssl_min_protocol_version: oneOf(...tlsVersions),
  ssl_max_protocol_version: oneOf(...tlsVersions),
};

/** Parameters of libpq that neither of our drivers can honor. */
const unsupported = new Set([
  'hostaddr', 'passfile', 'require_auth', 'requirepeer', 'requiressl', 'replication', 'service', 'servicefile', 'krbsrvname', 'gsslib', 'gssdelegation',
  'sslcertmode', 'sslcrldir', 'sslkeylogfile', 'min_protocol_version', 'max_protocol_version', 'scram_client_key', 'scram_server_key',
]);

/** Prisma's parameters, which many URLs contain. */
const ofPrisma = new Set(['schema', 'connection_limit', 'pool_timeout', 'socket_timeout', 'statement_cache_size', 'sslaccept', 'sslidentity']);

function problemsOf(parameters: ReadonlyMap<string, string>): string[] {
  const problems = [...parameters].flatMap(([name, value]): string[] => {
    const check = Object.hasOwn(known, name) ? known[name] : undefined;
    if (check === undefined) return [`${nameOf(name)}: ${whyUnknown(name)}`];
    const problem = check(value);
    return problem === null ? [] : [`${name}: ${problem}`];
  });
  if (problems.length > 0) return problems;
  const has = (name: string): boolean => parameters.has(name);
  const mode = parameters.get('sslmode');
  if (has('sslcert') !== has('sslkey')) problems.push(`${has('sslcert') ? 'sslkey' : 'sslcert'}: not set, though ${has('sslcert') ? 'sslcert' : 'sslkey'} is; set both or neither`);
  const rootCert = parameters.get('sslrootcert');
  if (rootCert === 'system' && mode !== undefined && mode !== 'verify-full') problems.push('sslmode: expected verify-full, as sslrootcert=system trusts every public authority');
  if (mode === 'verify-ca' && rootCert === undefined) problems.push('sslrootcert: not set; sslmode=verify-ca needs the certificate of your authority, or verify-full instead');
  if (mode === undefined && rootCert !== 'system') {
    const [one] = ['sslrootcert', 'sslcert', 'sslcrl'].filter(has);
    if (one !== undefined) problems.push(`sslmode: not set, though ${one} is; expected verify-full, verify-ca or require`);
    if (parameters.get('sslnegotiation') === 'direct') problems.push('sslmode: not set, though sslnegotiation=direct needs it; expected verify-full, verify-ca or require');
  }
  if ((mode === undefined || mode === 'disable') && rootCert !== 'system' && parameters.get('channel_binding') === 'require') {
    problems.push('channel_binding: require needs an encrypted connection; set sslmode');
  }
  return problems;
}

function whyUnknown(name: string): string {
  if (unsupported.has(name)) return 'not supported';
  if (ofPrisma.has(name)) return 'a parameter of Prisma, unknown here; remove it';
  return 'unknown parameter; remove it, or set it as options=-c%20name%3Dvalue where it is a setting of the server';
}

/** Shows a name only if it looks like one: an unencoded `&` in a password turns the rest of the password into a "name". */
function nameOf(name: string): string {
  return /^[a-z_]{1,63}$/i.test(name) ? name : 'a parameter';
}

function tlsOf(get: (name: string) => string | null): DatabaseTls | null {
  const rootCert = get('sslrootcert');
  const mode = get('sslmode') ?? (rootCert === 'system' ? 'verify-full' : 'disable');
  if (mode !== 'require' && mode !== 'verify-ca' && mode !== 'verify-full') return null;
  return {
    mode,
    rootCert,
    cert: get('sslcert'),
    key: get('sslkey'),
    keyPassword: get('sslpassword'),
    crl: get('sslcrl'),
    minVersion: versionOf(get('ssl_min_protocol_version')),
    maxVersion: versionOf(get('ssl_max_protocol_version')),
    negotiation: get('sslnegotiation') === 'direct' ? 'direct' : 'postgres',
  };
}

function versionOf(value: string | null): TlsVersion | null {
  return tlsVersions.find((version) => version === value) ?? null;
}

function listed(values: readonly string[]): string {
  return values.length === 1 ? String(values[0]) : `${values.slice(0, -1).join(', ')} or ${values.at(-1)}`;
}
