// Explains why Redis is unusable. ioredis itself often reports only the number of its attempts.
import { describeConnectionFailure } from '../platform/store-failure.ts';

const redis = { store: 'Redis', variable: 'REDIS_URL' } as const;

/** Redis's replies to a failed login or a refused command, each with a remedy. */
const answers: readonly (readonly [RegExp, string])[] = [
  [/WRONGPASS|invalid password|invalid username-password/i, 'Correct the user and password in REDIS_URL.'],
  [/NOAUTH|Authentication required/i, 'Put the password into REDIS_URL: redis://:password@host:port, or redis://user:password@host:port.'],
  [/NOPERM/, 'Give the user of REDIS_URL the permission (ACL SETUSER).'],
  [/READONLY/, 'REDIS_URL leads to a replica: name the master, an address that follows it, or the Sentinels.'],
  [/MASTERDOWN|NOREPLICAS|CLUSTERDOWN/, 'Look at the replication of Redis.'],
  [/LOADING/, 'Redis reads its data from disk: try again when it is done.'],
  [/MISCONF/, 'Redis cannot save its data to disk: look at its log.'],
  [/DB index is out of range|invalid DB index/i, 'Correct the database number at the end of REDIS_URL.'],
  [/max number of clients/i, 'Raise maxclients of Redis, or close connections.'],
  [/DENIED Redis is running in protected mode/, 'Set a password for Redis, or have it listen for this machine only.'],
  [/OOM/, 'Redis is full: raise maxmemory, or remove data.'],
];

/** ioredis's own messages, which do not depend on the cause. */
const ofItself = /max retries per request|^Connection is closed|^Command timed out|^no answer within|Failed to refresh slots cache|^Cluster isn't ready/;

/**
 * Explains why a Redis command failed.
 *
 * @param error the error of the command
 * @param reported the errors that the connection reported meanwhile, oldest first
 */
export function describeRedisFailure(error: unknown, reported: readonly unknown[]): string {
  const causes = [error, ...reported.toReversed()].map(causeOf).filter((cause) => cause !== null);
  for (const cause of causes) {
    const sentinels = describeSentinels(cause.message);
    if (sentinels !== null) return `Redis cannot be reached (REDIS_URL): ${sentinels}`;
    const remedy = answers.find(([pattern]) => pattern.test(cause.message))?.[1];
    if (remedy !== undefined) return `Redis cannot be used (REDIS_URL): ${lineOf(cause.message)}. ${remedy}`;
    const failure = describeConnectionFailure(cause, redis);
    if (failure !== null) return `Redis cannot be reached (REDIS_URL): ${failure}`;
  }
  const telling = causes.find(({ message }) => !ofItself.test(message));
  if (telling !== undefined) return `Redis cannot be reached (REDIS_URL): ${lineOf(telling.message)}. Check host and port in REDIS_URL, and that Redis runs.`;
  if (isOfNodes(error) || reported.some(isOfNodes)) return 'Redis cannot be reached (REDIS_URL): no node of the cluster answers (the connections are refused or closed). Check hosts and ports in REDIS_URL, and that the nodes run.';
  const isSilent = causes.every(({ message }) => /^no answer within|^Command timed out/.test(message));
  const cause = isSilent ? lineOf(causes[0]?.message ?? 'no answer') : 'the server closes the connection without an answer';
  return `Redis cannot be reached (REDIS_URL): ${cause}. Check that Redis itself listens there, and that TLS is used by both ends or by none (rediss:// or redis://).`;
}

function isOfNodes(error: unknown): boolean {
  return error instanceof Error && 'lastNodeError' in error;
}

/** Returns the underlying error: of a cluster's node, or of one of several addresses. */
function causeOf(error: unknown): Error | null {
  if (!(error instanceof Error)) return null;
  return 'lastNodeError' in error && error.lastNodeError instanceof Error ? error.lastNodeError : error;
}

function describeSentinels(message: string): string | null {
  if (/got an invalid reply: null|No such master with that name/.test(message)) return 'the Sentinels know no master of this name. Correct the name after the last host in REDIS_URL.';
  const [, place, reason = ''] = /^failed to connect to sentinel (\S+) because (.+)$/.exec(message) ?? [];
  if (place === undefined) return null;
  const login = answers.find(([pattern]) => pattern.test(reason)) === undefined ? '' : ' If the Sentinels ask for a login, add sentinelUsername and sentinelPassword.';
  return `the Sentinel at ${place} does not answer (${ofItself.test(reason) ? 'the connection is refused or closed' : lineOf(reason)}). Check the Sentinels in REDIS_URL, and that they run.${login}`;
}

/** Puts text on one line, without a final full stop. */
function lineOf(text: string): string {
  return text.replaceAll(/\s+/g, ' ').replace(/\.$/, '').trim().slice(0, 300);
}
