// Callbacks: a droplet reports that its user data ran. The URL contains a token that is valid for one report. Postgres stores only
// the token's hash. The token itself is derived from a key of the key ring, so that a create that is prepared again carries it again.
import { createHash, timingSafeEqual } from 'node:crypto';
import type { Database, Sql, SqlFragment } from '../platform/db.ts';
import type { KeyRing } from '../platform/key-ring.ts';
import { makeToken } from '../platform/key-ring.ts';
import { withoutUnstorable } from '../platform/text.ts';
import { isUuid } from '../platform/uuid.ts';
import type { Saga } from '../saga/saga.ts';
import { currentStep } from '../saga/saga.ts';
import { loadSaga } from '../saga/store.ts';

/** A droplet's report. `log`: the end of its log; empty: none. */
export type Report = Readonly<{ answer: 'ok' | 'failed'; log: string }>;

/** What the steps need of callbacks. */
export type ReadyCallbacks = Readonly<{
  /**
   * Derives the token of a create's callback and stores its hash. Returns the same token each time.
   *
   * @param number how many creates of the saga before this one may have made a droplet; so no two droplets of a saga share a token
   * @throws {MissingKeyError} if its key was removed from the ring; {RangeError} if the ring is empty
   */
  issue(sagaId: string, number: number): Promise<string>;
  /** Reads the report of the droplet that this create made; null: none yet. */
  read(sagaId: string, number: number): Promise<Report | null>;
  /** Replaces the log of a report, once what must not stay in it is hidden. */
  keepLog(sagaId: string, number: number, log: string): Promise<void>;
}>;

/** The result of a report. `unknown`: no such callback. `used`: it was reported before. `late`: the saga no longer waits for it. */
export type ReportResult = Readonly<{ kind: 'accepted'; saga: Saga } | { kind: 'unknown' | 'used' | 'late' }>;

// Only the end of the log is stored.
const MAX_LOG_LENGTH = 4_000;

// The step that waits for the report, and the steps before it.
const STEPS = ['create_droplet', 'wait_droplet_active', 'wait_droplet_ready'];

const tokenPattern = /^([0-9a-f-]{36})\.([\w-]{43})$/;

export function createReadyCallbacks(db: Pick<Database, 'run'>, keyRing: KeyRing): ReadyCallbacks {
  return {
    issue: async (sagaId, number) => {
      const fresh = makeToken(keyRing, owner(sagaId, number), null);
      const keyId = await store(db, sagaId, number, fresh);
      // Prepared earlier, before the key was rotated.
      const { token } = keyId === fresh.keyId ? fresh : makeToken(keyRing, owner(sagaId, number), keyId);
      return `${sagaId}.${token}`;
    },
    read: async (sagaId, number) => {
      const [row] = await db.run('ready_callbacks.read', (sql) => sql<Report[]>`
        select answer, coalesce(log, '') as log from ${tableOf(sql, number)} where ${isCallback(sql, sagaId, number)} and answered_at is not null`);
      return row ?? null;
    },
    keepLog: async (sagaId, number, log) => {
      await db.run('ready_callbacks.keep_log', (sql) => sql`update ${tableOf(sql, number)} set log = ${log} where ${isCallback(sql, sagaId, number)} and answered_at is not null`);
    },
  };
}

/** Stores the hash of a token unless its callback has one. Returns the id of the key of the stored one. */
async function store(db: Pick<Database, 'run'>, sagaId: string, number: number, { keyId, token }: { keyId: string; token: string }): Promise<string> {
  const hash = hashOf(token);
  const [row] = await db.run('ready_callbacks.issue', (sql) =>
    // Changes nothing: only so is the row that stands returned.
    number === 0
      ? sql<{ keyId: string }[]>`
          insert into arcadia.ready_callbacks as callback (saga_id, key_id, token_hash) values (${sagaId}, ${keyId}, ${hash})
          on conflict (saga_id) do update set key_id = callback.key_id returning key_id`
      : sql<{ keyId: string }[]>`
          insert into arcadia.resent_callbacks as callback (saga_id, number, key_id, token_hash) values (${sagaId}, ${number}, ${keyId}, ${hash})
          on conflict (saga_id, number) do update set key_id = callback.key_id returning key_id`,
  );
  return row?.keyId ?? keyId;
}

/** Accepts a droplet's report, once. Compares the token in constant time. */
export async function takeReport(db: Database, given: string, { answer, log }: Report): Promise<ReportResult> {
  const [, sagaId = '', token = ''] = tokenPattern.exec(given) ?? [];
  if (!isUuid(sagaId)) return { kind: 'unknown' };
  const rows = await db.run('ready_callbacks.find', (sql) => sql<{ number: number; tokenHash: Uint8Array; isUsed: boolean }[]>`
    select 0 as number, token_hash, answered_at is not null as is_used from arcadia.ready_callbacks where saga_id = ${sagaId}
    union all select number, token_hash, answered_at is not null from arcadia.resent_callbacks where saga_id = ${sagaId}`);
  const hash = hashOf(token);
  const [row] = rows.filter(({ tokenHash }) => timingSafeEqual(tokenHash, hash));
  if (row === undefined) return { kind: 'unknown' };
  if (row.isUsed) return { kind: 'used' };
  // The log may repeat the URL, which is secret, or a part of it. The end is kept, because a log ends with the failure.
  const tail = withoutUnstorable(log.replaceAll(given, '[callback]').replaceAll(token, '[callback]')).slice(-MAX_LOG_LENGTH).trim();
  const written = await db.run(
    'ready_callbacks.answer',
    (sql) => sql`
      update ${tableOf(sql, row.number)} set answered_at = clock_timestamp(), answer = ${answer}, log = ${tail}
      where ${isCallback(sql, sagaId, row.number)} and answered_at is null
        and exists (select from arcadia.sagas where id = ${sagaId} and status = 'running' and steps[cursor + 1] = any(${STEPS}::text[]))
      returning saga_id`,
  );
  const saga = (await loadSaga(db, sagaId))?.saga ?? null;
  if (written.length === 1 && saga !== null) return { kind: 'accepted', saga };
  // Another report came first, or the saga has moved on.
  return { kind: saga !== null && saga.status === 'running' && STEPS.includes(currentStep(saga)) ? 'used' : 'late' };
}

/** Older versions know the first table only: while they run, most callbacks are theirs too. */
function tableOf(sql: Sql, number: number): SqlFragment {
  return number === 0 ? sql`arcadia.ready_callbacks` : sql`arcadia.resent_callbacks`;
}

function isCallback(sql: Sql, sagaId: string, number: number): SqlFragment {
  return number === 0 ? sql`saga_id = ${sagaId}` : sql`saga_id = ${sagaId} and number = ${number}`;
}

function owner(sagaId: string, number: number): string {
  return number === 0 ? `ready ${sagaId}` : `ready ${sagaId} ${number}`;
}

function hashOf(token: string): Buffer {
  return createHash('sha256').update(token).digest();
}
