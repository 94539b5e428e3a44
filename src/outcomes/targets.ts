// Targets of outcomes: what each kind of subscription does with a batch. Each accepts it in order and advances the subscription.
import type { Database } from '../platform/db.ts';
import type { DeliveryQueue, OutcomeQueue } from '../queues/outcomes.ts';
import type { Outcome, OutcomeSource } from '../saga/outcome-source.ts';
import { shorten } from '../platform/text.ts';
import { countDeliveries, listLate, taking } from './deliveries.ts';
import type { Reader } from './lease.ts';
import type { Batch } from './log.ts';
import { advance } from './log.ts';
import { readOutcomes } from './read-outcomes.ts';

/** A kind of subscription. */
export type Target = Readonly<{
  name: string;
  /** Where outcomes go, in words for people; contains no secret. */
  describe: string;
  /** How many outcomes it can accept now. */
  room(): Promise<number>;
  /** What it means for people that it accepts none; null: its deliveries record why. */
  whenFull: string | null;
  /** Milliseconds that it leaves between two batches: what happens meanwhile comes together in the next. */
  restMs: number;
  /** Whether it takes bodies, and not only which outcomes there are. */
  needsBodies: boolean;
  /** Accepts a batch. Throws if the result is unknown; then the batch is read again. */
  take(reader: Reader, batch: Batch): Promise<void>;
  /** Looks after what it accepted earlier. */
  tend(): Promise<void>;
  /** Call this when its reader has taken the lease: another one may have accepted outcomes before. */
  begin(): void;
}>;

/** What all targets need. `db` is outside the I/O seam. */
export type TargetOf = Readonly<{ db: Pick<Database, 'run'>; sources: readonly OutcomeSource[] }>;

const BATCH = 200;

// Unless it is switched off, every end passes through NOTIFY. An end costs Postgres a third in a batch of 1,000 of what it costs in
// one of 100. The first after a quiet moment goes at once.
const NOTIFICATIONS = { most: 1_000, restMs: 1_000 };

// Maximum deliveries of a webhook at a time, in Postgres and in the queue. Further outcomes stay in the log.
const WINDOW = 500;

// It is filled up again by no fewer than this, so that a backlog is not moved one by one.
const REFILL = 100;

// A job that is this late may be lost.
const LATE_MS = 5_000;
const LATE_AT_ONCE = 100;

/** A webhook: each outcome becomes a delivery with its own job. */
export function webhookTarget({ db }: TargetOf, { name, describe, queue, lateMs = LATE_MS }: { name: string; describe: string; queue: DeliveryQueue; lateMs?: number | undefined }): Target {
  // Only the holder of the lease adds deliveries. Once there is none, none has to be counted or looked after.
  let isEmpty = false;
  return {
    name,
    describe,
    needsBodies: false,
    restMs: 0,
    whenFull: null,
    room: async () => {
      if (isEmpty) return BATCH;
      const count = await countDeliveries(db, name);
      isEmpty = count === 0;
      const room = WINDOW - count;
      return room < REFILL ? 0 : Math.min(BATCH, room);
    },
    take: async (reader, batch) => {
      isEmpty = false;
      if (!(await advance(db, reader, batch, taking(name, batch.entries)))) return;
      await queue.add(batch.entries.map(({ id }) => id));
    },
    tend: async () => {
      if (!isEmpty) await queue.ensure(await listLate(db, name, { lateMs, limit: LATE_AT_ONCE }));
    },
    begin: () => {
      isEmpty = false;
    },
  };
}

// If nobody consumes the queue, it holds no more than this: it must not fill the queue store.
const MOST_QUEUED = 10_000;

/** A queue from which a backend consumes outcomes. */
export function queueTarget({ db, sources }: TargetOf, { name, describe, queue }: { name: string; describe: string; queue: OutcomeQueue }): Target {
  return {
    name,
    describe,
    needsBodies: true,
    restMs: 0,
    whenFull: `${MOST_QUEUED.toLocaleString('en')} jobs are waiting in it and none are consumed: no more are added until its consumer works again`,
    room: async () => Math.min(BATCH, MOST_QUEUED - (await queue.count())),
    take: async (reader, batch) => {
      await queue.add(await bodiesOf(db, sources, batch));
      await advance(db, reader, batch);
    },
    tend: () => Promise.resolve(),
    begin: () => undefined,
  };
}

/** The Postgres channel of the outcomes. */
export const OUTCOMES_CHANNEL = 'arcadia_outcomes';

/** NOTIFY, in the same transaction that advances the subscription. */
export function notifyTarget({ db, sources }: TargetOf, name: string): Target {
  return {
    name,
    describe: `channel ${OUTCOMES_CHANNEL}`,
    needsBodies: true,
    restMs: NOTIFICATIONS.restMs,
    whenFull: 'Postgres takes no more notifications',
    room: () => Promise.resolve(NOTIFICATIONS.most),
    take: async (reader, batch) => {
      const payloads = (await bodiesOf(db, sources, batch)).map(payloadOf);
      // JSON has no line break of its own.
      await advance(db, reader, batch, (sql, moved) => sql`
        select pg_notify(${OUTCOMES_CHANNEL}, payload)
        from unnest(string_to_array(${payloads.join('\n')}::text, chr(10))) with ordinality as told (payload, place) where exists (${moved}) order by place`);
    },
    tend: () => Promise.resolve(),
    begin: () => undefined,
  };
}

async function bodiesOf(db: Pick<Database, 'run'>, sources: readonly OutcomeSource[], { entries }: Batch): Promise<Outcome[]> {
  const byName = new Map(sources.map((source) => [source.name, source.facts]));
  const others = await readOutcomes(db, sources, entries.filter(({ facts }) => facts === undefined));
  return entries.flatMap((entry) => {
    const { source, id, facts } = entry;
    if (facts === undefined) return others.get(id) ?? [];
    return facts === null ? [] : (byName.get(source)?.outcomeOf(entry, facts) ?? []);
  });
}

// Postgres accepts less than 8,000 bytes.
const MAX_PAYLOAD_BYTES = 7_900;
const SHORT = 300;

/** Returns the outcome as a payload. If it is too long, outputs are left out, and then texts are cut. */
export function payloadOf(outcome: Outcome): string {
  const whole = JSON.stringify(outcome);
  if (fits(whole)) return whole;
  const bare = { ...outcome, data: { ...outcome.data, outputs: {} }, truncated: true };
  const text = JSON.stringify(bare);
  if (fits(text)) return text;
  const { error, subject } = outcome.data;
  const cut = (value: string | null) => (value === null ? null : shorten(value, SHORT));
  return JSON.stringify({
    ...bare,
    data: {
      ...bare.data,
      subject: subject === null ? null : { kind: shorten(subject.kind, SHORT), name: cut(subject.name), id: cut(subject.id) },
      error: error === null ? null : { ...error, message: shorten(error.message, SHORT), code: shorten(error.code, SHORT), step: cut(error.step) },
    },
  });
}

function fits(text: string): boolean {
  return Buffer.byteLength(text) <= MAX_PAYLOAD_BYTES;
}
