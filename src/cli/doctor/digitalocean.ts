// Checks DigitalOcean: reachability, the token, its account, its scopes (as far as reads show them), the remaining requests, and the
// clock.
import { z } from 'zod';
import { createDigitalOceanClient } from '../../do/client.ts';
import type { Account } from '../../do/schemas.ts';
import type { DigitalOceanClient } from '../../do/client.ts';
import { DigitalOceanError } from '../../do/errors.ts';
import type { ObservedAnswer } from '../../do/observed-answer.ts';
import { describeOtherAccount, readAccountOnRecord } from '../../droplets/account.ts';
import type { Config } from '../../platform/config.ts';
import { openDatabase } from '../../platform/db.ts';
import { endsWithin } from '../../platform/deadline.ts';
import type { Finding } from './finding.ts';
import { describeSkew, fail, ok, warn } from './finding.ts';

// Two rounds of requests must fit into a check's deadline.
const ANSWER_WITHIN_MS = 2_500;
const CLOSE_WITHIN_MS = 500;

const SCOPES = 'token scopes';

/** `onlyFor`: the one field of a provision that needs the read; null: every droplet does. */
type Read = Readonly<{ path: string; key: string; onlyFor: string | null }>;
type Tried = Readonly<{ read: Read; outcome: unknown }>;

// The reads that reveal scopes. The first page of each is enough.
const reads: readonly Read[] = [
  { path: '/v2/droplets', key: 'droplets', onlyFor: null },
  { path: '/v2/tags', key: 'tags', onlyFor: null },
  { path: '/v2/sizes', key: 'sizes', onlyFor: null },
  { path: '/v2/regions', key: 'regions', onlyFor: null },
  { path: '/v2/images', key: 'images', onlyFor: null },
  { path: '/v2/actions', key: 'actions', onlyFor: null },
  { path: '/v2/account/keys', key: 'ssh_keys', onlyFor: 'ssh_keys' },
  { path: '/v2/vpcs', key: 'vpcs', onlyFor: 'vpc_uuid' },
  { path: '/v2/volumes', key: 'volumes', onlyFor: 'volumes' },
  { path: '/v2/projects', key: 'projects', onlyFor: 'project' },
];

/** Checks the API with a token: one read of each kind. Changes nothing. */
export async function checkDigitalOcean({ databaseUrl, digitalOcean: { apiUrl, timeoutMs } }: Config, token: string): Promise<Finding[]> {
  const answers: ObservedAnswer[] = [];
  const client = createDigitalOceanClient({ apiUrl, token, timeoutMs: Math.min(timeoutMs, ANSWER_WITHIN_MS), budget: null, onAnswer: (answer) => answers.push(answer), userAgent: 'arcadia-doctor' });
  const [account, onRecord] = await Promise.all([outcomeOf(() => client.getAccount()), databaseUrl === null ? null : accountOnRecord(databaseUrl)]);
  const host = new URL(apiUrl).host;
  const answered = answers[0];
  const measured = answered?.serverTimeMs === undefined || answered.serverTimeMs === null ? [] : [describeSkew('clock of digitalocean', `DigitalOcean's`, Date.now() - answered.serverTimeMs)];
  if (account instanceof DigitalOceanError && account.status !== 403) return [...refused(account, host), ...measured];
  return [...accepted(account, host, onRecord), ...measured, ...(await scopes(client)), ...requestsLeft(answers)];
}

/** Null if it cannot be read, because another line reports that. */
async function accountOnRecord(databaseUrl: string): Promise<string | null> {
  const db = openDatabase(databaseUrl, { max: 1, timeoutMs: ANSWER_WITHIN_MS, applicationName: 'arcadia-doctor' });
  try {
    return await readAccountOnRecord(db);
  } catch {
    return null;
  } finally {
    await endsWithin(CLOSE_WITHIN_MS, db.close());
  }
}

/**
 * @param account a `DigitalOceanError` if the token may not read the account
 */
function accepted(account: Account | DigitalOceanError, host: string, onRecord: string | null): Finding[] {
  if (account instanceof DigitalOceanError) {
    return [warn('digitalocean', `${host} accepts the token, but account:read is missing: nothing checks that the droplets on record are in the token's account`, 'Add the scope to the token.')];
  }
  if (onRecord !== null && onRecord !== account.id) {
    const { problem, remedy } = describeOtherAccount(account.id, onRecord);
    return [fail('digitalocean', problem, remedy)];
  }
  const { status, statusMessage } = account;
  const words = statusMessage === '' ? '' : `: ${statusMessage}`;
  if (status === 'locked') return [fail('digitalocean', `${host} accepts the token, but the account is locked${words}`, 'No droplet can be created. Ask the support of DigitalOcean.')];
  if (status === 'warning') return [warn('digitalocean', `${host} accepts the token; the account has a warning${words}`, 'Look at the account at DigitalOcean, before it is locked.')];
  return [ok('digitalocean', `${host} accepts the token`)];
}

function refused(error: DigitalOceanError, host: string): Finding[] {
  if (error.status === 401) return [fail('digitalocean', `${host} refuses the token: ${error.message}`, 'Set a valid DIGITALOCEAN_TOKEN.')];
  if (error.status === 429) return [warn('digitalocean', `${host} answers that too many requests were made`, 'Wait, or find out who else uses the token.')];
  return [fail('digitalocean', error.message, 'Check DIGITALOCEAN_API_URL, the network and status.digitalocean.com.')];
}

async function scopes(client: DigitalOceanClient): Promise<Finding[]> {
  const tried = await Promise.all(reads.map(async (read) => ({ read, outcome: await outcomeOf(async () => client.pages(read.path, read.key, { itemSchema: z.unknown() }).next()) })));
  const lacking = [...new Set(tried.filter(({ read }) => read.onlyFor === null).flatMap(lackingScopes))];
  const partly = tried.flatMap((one) => (one.read.onlyFor === null ? [] : lackingScopes(one).map((scope) => `${scope} (only for ${one.read.onlyFor})`)));
  const failed = tried.flatMap(({ read, outcome }) => (outcome instanceof DigitalOceanError && outcome.status !== 403 ? [`${read.path} (${outcome.status ?? outcome.code})`] : []));
  const findings = [
    ...(lacking.length === 0 ? [] : [fail(SCOPES, `the token probably lacks ${lacking.join(', ')}`, 'Add the scopes to the token.')]),
    ...(partly.length === 0 ? [] : [warn(SCOPES, `the token probably lacks ${partly.join(', ')}`, 'Add the scopes if droplets use these fields.')]),
    ...(failed.length === 0 ? [] : [warn(SCOPES, `could not be seen: ${failed.join(', ')} failed`, 'Run `arcadia doctor` again.')]),
  ];
  if (findings.length > 0) return findings;
  return [ok(SCOPES, `the token may read ${reads.map(({ key }) => key).join(', ')}; whether it may create and delete shows only when it does (\`arcadia smoke\`)`)];
}

/** The scopes that a refused read points to. A refusal always points to something. */
function lackingScopes({ read, outcome }: Tried): readonly string[] {
  if (!(outcome instanceof DigitalOceanError) || outcome.status !== 403) return [];
  const scopes = outcome.hold?.scopes ?? [];
  return scopes.length === 0 ? [`the scope to read ${read.path}`] : scopes;
}

function requestsLeft(answers: readonly ObservedAnswer[]): Finding[] {
  const last = answers.findLast(({ rateLimit }) => rateLimit !== null)?.rateLimit;
  if (last === undefined || last === null) return [];
  const text = `${last.remaining} of ${last.limit} requests are left to the token`;
  if (last.remaining < last.limit / 10) return [warn('request limit', text, 'Find out who else uses the token, or wait.')];
  return [ok('request limit', text)];
}

async function outcomeOf<T>(ask: () => Promise<T>): Promise<T | DigitalOceanError> {
  try {
    return await ask();
  } catch (error) {
    if (error instanceof DigitalOceanError) return error;
    throw error;
  }
}
