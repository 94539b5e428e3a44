// Reads saga events from Postgres. The statements that write transitions also write the events (store.ts, commit.ts).
import type { Database } from '../platform/db.ts';
import type { JsonObject } from '../platform/json.ts';
import { jsonText } from '../platform/json.ts';
import type { SagaEventKind, SagaStatus } from './saga.ts';

/** A stored event, with its time and its writer. */
export type StoredEvent = Readonly<{
  seq: number;
  at: Date;
  kind: SagaEventKind;
  step: string | null;
  attempt: number | null;
  detail: JsonObject;
  worker: string | null;
}>;

/** Reads a saga's events after `afterSeq`, oldest first. */
export async function listEvents(db: Database, sagaId: string, afterSeq = -1): Promise<StoredEvent[]> {
  return db.run(
    'store.list_events',
    (sql) => sql<StoredEvent[]>`
      select seq, at, kind, step, attempt, detail, worker from arcadia.saga_events
      where saga_id = ${sagaId} and seq > ${afterSeq} order by seq`,
  );
}

/** A saga's progress: its status, and its events after a given one. */
export type SagaProgress = Readonly<{ status: SagaStatus; events: readonly StoredEvent[] }>;

/**
 * Reads the progress of many sagas in one statement: for each, the events after `afterSeq`, oldest first. Omits missing
 * sagas.
 */
export async function readProgress(db: Pick<Database, 'run'>, wanted: readonly { sagaId: string; afterSeq: number }[]): Promise<ReadonlyMap<string, SagaProgress>> {
  const rows = await db.run(
    'store.progress',
    (sql) => sql<{ id: string; status: SagaStatus; events: readonly (Omit<StoredEvent, 'at'> & { at: string })[] | null }[]>`
      with wanted as (select "sagaId" as id, "afterSeq" as after_seq from jsonb_to_recordset(${jsonText(wanted)}::text::jsonb) as wanted ("sagaId" uuid, "afterSeq" int))
      select saga.id, saga.status,
             case when saga.revision > wanted.after_seq then (
               select jsonb_agg(jsonb_build_object('seq', seq, 'at', at, 'kind', kind, 'step', step, 'attempt', attempt, 'detail', detail, 'worker', worker) order by seq)
               from arcadia.saga_events where saga_id = wanted.id and seq > wanted.after_seq
             ) end as events
      from wanted join arcadia.sagas saga on saga.id = wanted.id`,
  );
  return new Map(rows.map(({ id, status, events }) => [id, { status, events: (events ?? []).map((event) => ({ ...event, at: new Date(event.at) })) }]));
}
