// Explains why a store is unusable, for the person who reads the last line of a process that failed to start: the
// variable, the problem and the remedy. Pure. Contains no secrets, because neither the drivers nor the servers repeat
// them.
import { errorCodeOf } from './error-code.ts';

/** A store as messages name it. */
export type StoreName = Readonly<{ store: 'Postgres' | 'Redis'; variable: 'DATABASE_URL' | 'REDIS_URL' }>;

/**
 * Explains a failed connection if the network, DNS or TLS is the cause.
 *
 * @returns the cause and the remedy; null for any other cause
 */
export function describeConnectionFailure(error: unknown, { store, variable }: StoreName): string | null {
  const [first] = causesOf(error);
  const code = errorCodeOf(error) ?? errorCodeOf(first) ?? '';
  const where = placeOf(first);
  const tell = (cause: string, remedy: string) => `${cause} (${code}). ${remedy}`;
  const hasTls = store === 'Redis' ? 'rediss://' : 'sslmode=require';
  if (code === 'ECONNREFUSED') return tell(`nothing listens ${where === '' ? 'there' : `at ${where}`}`, `Start ${store}, or correct host and port in ${variable}.`);
  if (code === 'ENOTFOUND') return tell(`the host name${nameOf(first)} is not known`, `Correct the host in ${variable}, or the name service.`);
  if (code === 'EAI_AGAIN') return tell(`the name service does not answer for the host name${nameOf(first)}`, `Check the name service of this machine, and the host in ${variable}.`);
  if (/^(?:ETIMEDOUT|CONNECT_TIMEOUT|EHOSTUNREACH|ENETUNREACH|EHOSTDOWN)$/.test(code)) {
    return tell(`no connection came about${where === '' ? '' : ` to ${where}`}`, `Check host and port in ${variable}, and the network and firewalls in between.`);
  }
  if (code === 'ENOENT' && isOf(first, 'connect')) return tell(`there is no socket${where === '' ? '' : ` ${where}`}`, `Correct the path in ${variable}, or start ${store}.`);
  if (/^(?:EMFILE|ENFILE)$/.test(code)) return tell('this process is out of file descriptors', 'Raise the limit of open files (ulimit -n, LimitNOFILE).');
  if (code === 'ERR_TLS_CERT_ALTNAME_INVALID') return tell('its certificate is for another host name', `Use in ${variable} the name that the certificate is for.`);
  if (/^CERT_(?:HAS_EXPIRED|NOT_YET_VALID)$/.test(code)) return tell(code === 'CERT_HAS_EXPIRED' ? 'its certificate has expired' : 'its certificate is not valid yet', 'Renew the certificate, or correct the clock of this machine.');
  if (/SELF_SIGNED|UNABLE_TO_(?:VERIFY|GET_ISSUER)|^CERT_|_CERT_/.test(code)) {
    return tell('its certificate is not trusted by this machine', 'Name the file of its certificate authority in NODE_EXTRA_CA_CERTS.');
  }
  if (/^(?:EPROTO|ERR_SSL_|ERR_TLS_)/.test(code)) {
    return tell('the server does not speak TLS there', `Correct the port, or leave ${hasTls} out of ${variable}.`);
  }
  if (/^(?:ECONNRESET|EPIPE|CONNECTION_CLOSED|CONNECTION_DESTROYED|CONNECTION_ENDED)$/.test(code)) {
    return tell('the server closed the connection before it answered', `Check that ${store} itself listens there, and whether it expects TLS (${hasTls} in ${variable}).`);
  }
  return null;
}

/** Returns the error, or, if several addresses of one name were tried, the errors of each. */
function causesOf(error: unknown): readonly unknown[] {
  return error instanceof AggregateError ? [...(error.errors as readonly unknown[]), error] : [error];
}

/** The address or path that was tried. */
function placeOf(error: unknown): string {
  if (!(error instanceof Error)) return '';
  if ('address' in error && typeof error.address === 'string') return 'port' in error ? `${error.address}:${String(error.port)}` : error.address;
  return '';
}

function isOf(error: unknown, call: string): boolean {
  return error instanceof Error && 'syscall' in error && error.syscall === call;
}

function nameOf(error: unknown): string {
  return error instanceof Error && 'hostname' in error && typeof error.hostname === 'string' ? ` ${error.hostname}` : '';
}

/**
 * Replies of a server that cannot serve, while another one may. Redis 6 puts a script's name before an error that a
 * command inside it returned; Redis 7 starts with the error.
 *
 * READONLY: a replica. MASTERDOWN: a replica without its master. LOADING: it was restarted. UNBLOCKED: it became a
 * replica while a command waited. NOREPLICAS: a master cut off from its replicas. CLUSTERDOWN: a node without a majority.
 */
export const turnedAway = /(?:^|[\s-])(?:READONLY|MASTERDOWN|LOADING|UNBLOCKED|NOREPLICAS|CLUSTERDOWN) /;

// Redis cannot save its data. It is still the master, so connections stay on it.
const cannotSave = /(?:^|[\s-])MISCONF /;

/** Whether an error, or its cause, comes from a store that answers but accepts no writes. */
export function refusesWrites(error: unknown): boolean {
  if (!(error instanceof Error)) return false;
  return turnedAway.test(error.message) || cannotSave.test(error.message) || /takes no writes/.test(error.message) || refusesWrites(error.cause);
}
