// What there is to judge by once the run is over: the rows of Postgres, the droplets and the ledger of the sandbox, and
// what the load and the monkeys know.
import type { Database } from '../../src/platform/db.ts';
import type { DropletLine, LedgerEntry } from '../../src/sandbox/server.ts';
import type { Saga } from '../../src/saga/saga.ts';
import type { Death } from './fleet.ts';
import type { Load } from './load.ts';
import type { Diary } from './monkeys.ts';
import type { Stage } from './stage.ts';

export type SagaRow = Pick<Saga, 'id' | 'saga8' | 'name' | 'status' | 'revision' | 'input' | 'context' | 'error' | 'idempotencyKey' | 'createdAt' | 'finishedAt'>;

/** `note`: what a step recorded, in its words; null for other events. */
export type EventRow = Readonly<{ sagaId: string; seq: number; at: Date; kind: string; worker: string | null; note: string | null }>;

/** A droplet in the inventory. `provisionedBy`: the saga in `cloud_provisioned`; null where nothing is asked for. */
export type ResourceRow = Readonly<{ providerId: string; deletedAt: Date | null; provisionedBy: string | null; releasedAt: Date | null }>;

export type Evidence = Readonly<{
  sagas: readonly SagaRow[];
  /** By saga, in order. */
  events: ReadonlyMap<string, readonly EventRow[]>;
  resources: readonly ResourceRow[];
  /** All droplets there ever were. */
  droplets: readonly DropletLine[];
  /** Requests to DigitalOcean; the last 200,000. */
  ledger: readonly LedgerEntry[];
  load: Load;
  diary: Diary;
  deaths: readonly Death[];
  leaks: readonly string[];
  jobs: Readonly<{ live: number; failed: number }>;
  /** Sagas that were stuck, and got one retry. */
  retried: readonly string[];
}>;

/** Gathers the evidence. Everything must be at rest, and Postgres and the queues there. */
export async function gatherEvidence(stage: Stage, from: { load: Load; diary: Diary; retried: readonly string[]; jobs: { live: number; failed: number } }): Promise<Evidence> {
  return {
    sagas: await readSagas(stage.db),
    events: await readEvents(stage.db),
    resources: await readResources(stage.db),
    droplets: stage.sandbox.state(),
    ledger: stage.sandbox.ledger(),
    deaths: stage.fleet.deaths,
    leaks: [...stage.fleet.leaks],
    ...from,
  };
}

/** The tag that proves whose droplet it is; spelled here again, so that the run does not believe what it checks. */
export function sagaIdOf(droplet: Pick<DropletLine, 'tags'>): string | null {
  const tag = droplet.tags.find((candidate) => candidate.startsWith('arcadia-saga-id-'));
  return tag === undefined ? null : tag.slice('arcadia-saga-id-'.length);
}

/** Droplets of sagas, by saga. */
export function dropletsBySaga(evidence: Pick<Evidence, 'droplets' | 'load'>): Map<string, DropletLine[]> {
  const foreign = new Set(evidence.load.foreign.map(({ id }) => id));
  return Map.groupBy(evidence.droplets.filter((droplet) => !foreign.has(droplet.id)), (droplet) => sagaIdOf(droplet) ?? 'none');
}

async function readSagas(db: Database): Promise<SagaRow[]> {
  return db.run(
    'chaos.sagas',
    (sql) => sql<SagaRow[]>`
      select id, saga8, name, status, revision, input, context, error, idempotency_key, created_at, finished_at
      from arcadia.sagas order by created_at, id`,
  );
}

async function readEvents(db: Database): Promise<Map<string, EventRow[]>> {
  const rows = await db.run(
    'chaos.events',
    (sql) => sql<EventRow[]>`select saga_id, seq, at, kind, worker, detail->>'note' as note from arcadia.saga_events order by saga_id, seq`,
  );
  return Map.groupBy(rows, (row) => row.sagaId);
}

async function readResources(db: Database): Promise<ResourceRow[]> {
  return db.run(
    'chaos.resources',
    (sql) => sql<ResourceRow[]>`
      select resource.provider_id, resource.deleted_at, provisioned.provisioned_by, provisioned.released_at
      from arcadia.cloud_resources resource left join arcadia.cloud_provisioned provisioned on provisioned.resource_id = resource.id`,
  );
}
