// Why Redis cannot be used, in words: ioredis itself often only says how many times it tried.
import { describeConnectionFailure } from '../store-failure.ts';

const redis = { store: 'Redis', variable: 'REDIS_URL' } as const;

/** What Redis answers to a login, or to a command that it does not carry out, and what to do. */
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

/**
 * Says why Redis could not be asked.
 *
 * @param error what the command failed with
 * @param reported what the connection reported last meanwhile, where it did
 */
export function describeRedisFailure(error: unknown, reported: unknown): string {
  const found = [error, reported].map(causeOf);
  for (const cause of found) {
    if (cause === null) continue;
    const remedy = answers.find(([pattern]) => pattern.test(cause.message))?.[1];
    if (remedy !== undefined) return `Redis cannot be used (REDIS_URL): ${lineOf(cause.message)}. ${remedy}`;
    const failure = describeConnectionFailure(cause, redis) ?? describeSentinels(cause.message);
    if (failure !== null) return `Redis cannot be reached (REDIS_URL): ${failure}`;
  }
  const [answered, last] = found.map((cause) => (cause === null ? '' : lineOf(cause.message)));
  // What ioredis says of itself when its connections end without a word, and without an answer.
  if (last === '' && /max retries per request|Connection is closed|closed/i.test(answered ?? '')) {
    return 'Redis cannot be reached (REDIS_URL): the server closes the connection without an answer. Check that Redis itself listens there, and whether it expects TLS (rediss://).';
  }
  return `Redis cannot be reached (REDIS_URL): ${[answered, last].filter((text) => text !== '').join(': ')}. Check host and port in REDIS_URL, and that Redis runs.`;
}

/** What stands behind an error: of a node of a cluster, or of one of several addresses. */
function causeOf(error: unknown): Error | null {
  if (!(error instanceof Error)) return null;
  return 'lastNodeError' in error && error.lastNodeError instanceof Error ? error.lastNodeError : error;
}

function describeSentinels(message: string): string | null {
  if (/got an invalid reply: null/.test(message)) return 'the Sentinels know no master of this name. Correct the name after the last host in REDIS_URL.';
  const [, reason] = /All sentinels are unreachable.*Last error: (.+)$/.exec(message) ?? [];
  return reason === undefined ? null : `no Sentinel answers (${lineOf(reason)}). Check their hosts and ports in REDIS_URL.`;
}

/** On one line, and without a full stop at its end. */
function lineOf(text: string): string {
  return text.replaceAll(/\s+/g, ' ').replace(/\.$/, '').trim().slice(0, 300);
}
