// Syncs on the stage: a database, the sandbox, and a sync whenever the test says so, without queues.

import { pino } from 'pino';
import { onTestFinished } from 'vitest';
import type { Database } from '../../src/platform/db.ts';
import { createDigitalOceanClient } from '../../src/do/client.ts';
import type { Sandbox, SandboxOptions } from '../../src/sandbox/server.ts';
import { startSandbox } from '../../src/sandbox/server.ts';
import type { Io } from '../../src/platform/io.ts';
import { directIo } from '../../src/platform/io.ts';
import type { JsonObject } from '../../src/platform/json.ts';
import type { RequestBudget } from '../../src/do/budget.ts';
import { unlimitedBudget } from '../../src/do/budget.ts';
import type { FurtherPasses } from '../../src/inventory/sync/delete-tags.ts';
import type { SyncReport } from '../../src/inventory/sync/sync-inventory.ts';
import { syncInventory } from '../../src/inventory/sync/sync-inventory.ts';
import { useSharedDatabase } from '../support/shared-database.ts';
import { emptyTables } from '../support/empty-tables.ts';

export const LAG_MS = 500;

export type SyncOptions = { readonly io?: Io; readonly db?: Database; readonly worker?: string; readonly signal?: AbortSignal; readonly intervalMs?: number; readonly budget?: RequestBudget; readonly orphanGraceMs?: number; readonly isPaused?: boolean | Error; readonly onTagsRefused?: (why: string) => void; readonly furtherTags?: FurtherPasses };

export type Row = { readonly providerId: string; readonly name: string; readonly status: string; readonly sizeSlug: string; readonly region: string; readonly tags: string[]; readonly absences: number; readonly deletedAt: Date | null; readonly lastSeenAt: Date };

export type Scene = {
  readonly db: Database;
  readonly sandbox: Sandbox;
  readonly log: readonly Record<string, unknown>[];
  /** One sync, now unless `intervalMs` is given. */
  readonly sync: (options?: SyncOptions) => Promise<SyncReport>;
  readonly trySync: (options?: SyncOptions) => Promise<SyncReport | null>;
  /** Adds droplets of somebody's to the account. */
  readonly add: (count: number, more?: { tags?: string[]; name?: string; size_slug?: string; region?: string; created_at?: string }) => number[];
  /** The inventory's row of a droplet. */
  readonly row: (id: number) => Promise<Row | undefined>;
  readonly present: () => Promise<number>;
  /** Puts a saga into the database, as it stands at rest or on its way. */
  readonly saga: (saga: { id?: string; name?: string; status: string; steps?: string[]; context?: JsonObject; input?: JsonObject; endedAgoMs?: number }) => Promise<string>;
  /** Puts a droplet on record as provisioned by a saga; its row must be in the inventory. */
  readonly provision: (dropletId: number, sagaId: string, spec?: JsonObject) => Promise<void>;
};

/** Gives each test of the file a scene of its own on one database. */
export function useInventoryStage(): (options?: SandboxOptions) => Promise<Scene> {
  const database = useSharedDatabase(10);
  return async (options = {}) => {
    await emptyTables(database().sql, ['arcadia.sagas', 'arcadia.saga_events', 'arcadia.cloud_resources', 'arcadia.inventory_syncs', 'arcadia.saga_tombstones', 'arcadia.spent_tags', 'arcadia.audit']);
    return setScene(database(), options);
  };
}

async function setScene(db: Database, options: SandboxOptions): Promise<Scene> {
  const sandbox = await startSandbox({ activateAfterMs: 0, ratePerMinute: null, ratePerHour: null, ...options });
  onTestFinished(() => sandbox.close());
  const log: Record<string, unknown>[] = [];
  // oxlint-disable-next-line typescript/no-unsafe-type-assertion -- our own logger's line
  const logger = pino({ level: 'debug' }, { write: (line) => void log.push(JSON.parse(line) as Record<string, unknown>) });
  const trySync = ({ io = directIo, worker = 'test:1', signal = new AbortController().signal, intervalMs, budget = unlimitedBudget, orphanGraceMs = 1, db: ownDb = db, isPaused = false, onTagsRefused = () => undefined, furtherTags }: SyncOptions = {}) => {
    const digitalOcean = createDigitalOceanClient({ apiUrl: sandbox.url, token: 'test', timeoutMs: 3_000, io, budget }).at('sync');
    const settings = { adoptionGraceMs: LAG_MS, orphanGraceMs, retryMs: 10 };
    return syncInventory({ db: ownDb, digitalOcean, worker, settings, isPaused: async () => (isPaused instanceof Error ? Promise.reject(isPaused) : Promise.resolve(isPaused)), onTagsRefused, ...(furtherTags === undefined ? {} : { furtherTags }), signal, log: logger }, { intervalMs: intervalMs ?? null, requestedBy: intervalMs === undefined ? 'test' : null });
  };
  return {
    db,
    sandbox,
    log,
    trySync,
    sync: async (how) => {
      const report = await trySync(how);
      if (report === null) throw new Error('somebody else is at it');
      return report;
    },
    add: (count, more = {}) => Array.from({ length: count }, (_, index) => sandbox.addForeignDroplet({ name: `web-${index}`, ...more }).id),
    row: async (id) => (await db.sql<Row[]>`select * from arcadia.cloud_resources where provider_id = ${String(id)}`)[0],
    present: async () => (await db.sql<{ count: number }[]>`select count(*)::int as count from arcadia.cloud_resources where deleted_at is null`)[0]?.count ?? 0,
    saga: async ({ id = crypto.randomUUID(), name = 'provision_droplet', status, steps = ['create_droplet', 'register_droplet'], context = {}, input = {}, endedAgoMs = 60_000 }) => {
      const isOver = status === 'completed' || status === 'compensated';
      await db.sql`
        insert into arcadia.sagas (id, saga8, name, status, steps, input, context, created_at, finished_at, wake_at)
        values (${id}, ${id.slice(0, 8)}, ${name}, ${status}, ${steps}, ${JSON.stringify({ name: 'web-0', ...input })}::text::jsonb,
                ${JSON.stringify(context)}::text::jsonb, now() - interval '1 hour',
                case when ${isOver} then clock_timestamp() - ${endedAgoMs}::int * interval '1 millisecond' end, null)`;
      return id;
    },
    provision: async (dropletId, sagaId, spec = { size_slug: 's-1vcpu-1gb', region: 'nyc3', image: 'debian-12-x64' }) => {
      await db.sql`
        insert into arcadia.cloud_provisioned (resource_id, spec, provisioned_by, saga_id)
        select id, ${JSON.stringify(spec)}::text::jsonb, ${`saga:${sagaId}`}, ${sagaId} from arcadia.cloud_resources where provider_id = ${String(dropletId)}`;
    },
  };
}

/** The tags of a saga's droplet. */
export function tagsOf(sagaId: string): string[] {
  return [`arcadia-saga-${sagaId.slice(0, 8)}`, 'managed-by-arcadia-cloud', `arcadia-saga-id-${sagaId}`];
}
