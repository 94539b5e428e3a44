// Callbacks: a droplet reports that its user data ran. The URL contains a token that is valid for one report. Postgres stores only
// the token's hash. The token itself is derived from a key of the key ring, so that all creates of a saga share one.
import { createHash, timingSafeEqual } from 'node:crypto';
import type { Database } from '../platform/db.ts';
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
   * Derives the token of a saga's callback and stores its hash. Returns the same token each time.
   *
   * @throws {MissingKeyError} if its key was removed from the ring; {RangeError} if the ring is empty
   */
  issue(sagaId: string): Promise<string>;
  /** Reads the droplet's report; null: none yet. */
  read(sagaId: string): Promise<Report | null>;
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
    issue: async (sagaId) => {
      const fresh = makeToken(keyRing, owner(sagaId), null);
      const [row] = await db.run(
        'ready_callbacks.issue',
        (sql) => sql<{ keyId: string }[]>`
          insert into arcadia.ready_callbacks as callback (saga_id, key_id, token_hash) values (${sagaId}, ${fresh.keyId}, ${hashOf(fresh.token)})
          -- Changes nothing: only so is the row that stands returned.
          on conflict (saga_id) do update set key_id = callback.key_id
          returning key_id`,
      );
      // From an earlier create, before the key was rotated.
      const { token } = row === undefined || row.keyId === fresh.keyId ? fresh : makeToken(keyRing, owner(sagaId), row.keyId);
      return `${sagaId}.${token}`;
    },
    read: async (sagaId) => {
      const [row] = await db.run('ready_callbacks.read', (sql) => sql<Report[]>`
        select answer, coalesce(log, '') as log from arcadia.ready_callbacks where saga_id = ${sagaId} and answered_at is not null`);
      return row ?? null;
    },
  };
}

/** Accepts a droplet's report, once. Compares the token in constant time. */
export async function takeReport(db: Database, given: string, { answer, log }: Report): Promise<ReportResult> {
  const [, sagaId = '', token = ''] = tokenPattern.exec(given) ?? [];
  if (!isUuid(sagaId)) return { kind: 'unknown' };
  const [row] = await db.run(
    'ready_callbacks.find',
    (sql) => sql<{ tokenHash: Uint8Array; isUsed: boolean }[]>`select token_hash, answered_at is not null as is_used from arcadia.ready_callbacks where saga_id = ${sagaId}`,
  );
  if (row === undefined || !timingSafeEqual(row.tokenHash, hashOf(token))) return { kind: 'unknown' };
  if (row.isUsed) return { kind: 'used' };
  // The log may repeat the URL, which is secret. The end is kept, because a log ends with the failure.
  const tail = withoutUnstorable(log.replaceAll(given, '[callback]')).slice(-MAX_LOG_LENGTH).trim();
  const written = await db.run(
    'ready_callbacks.answer',
    (sql) => sql`
      update arcadia.ready_callbacks set answered_at = clock_timestamp(), answer = ${answer}, log = ${tail}
      where saga_id = ${sagaId} and answered_at is null
        and exists (select from arcadia.sagas where id = ${sagaId} and status = 'running' and steps[cursor + 1] = any(${STEPS}::text[]))
      returning saga_id`,
  );
  const saga = (await loadSaga(db, sagaId))?.saga ?? null;
  if (written.length === 1 && saga !== null) return { kind: 'accepted', saga };
  // Another report came first, or the saga has moved on.
  return { kind: saga !== null && saga.status === 'running' && STEPS.includes(currentStep(saga)) ? 'used' : 'late' };
}

function owner(sagaId: string): string {
  return `ready ${sagaId}`;
}

function hashOf(token: string): Buffer {
  return createHash('sha256').update(token).digest();
}
