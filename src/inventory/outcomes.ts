// Outcomes of the inventory: found drift and orphans, and leases that end. Each kind has its own table.
import type { Database, Sql } from '../platform/db.ts';
import type { JsonObject } from '../platform/json.ts';
import type { Outcome, OutcomeSource, OutcomeType } from '../saga/outcome-source.ts';
import { fromElsewhere } from '../saga/outcome-source.ts';

type Finding = Readonly<{ number: string; at: Date; sagaId: string | null; providerId: string; name: string; status: string; outputs: JsonObject; code: string; message: string }>;

/** A droplet differs from its spec, or is gone. */
export const driftOutcomes: OutcomeSource = findings(
  { name: 'drift', type: 'drift.found', table: 'cloud_drift' },
  (db, numbers) => db.run('outcomes.read_drift', (sql) => sql<Finding[]>`
    select drift.id as number, drift.first_seen_at as at, provisioned.saga_id, resource.provider_id, resource.name, 'found' as status,
           jsonb_build_object('field', field, 'desired', desired, 'actual', actual) as outputs,
           'drift_' || field as code, format('%s: desired %s, found %s', field, desired, actual) as message
    from arcadia.cloud_drift drift join arcadia.cloud_resources resource on resource.id = drift.resource_id
    left join arcadia.cloud_provisioned provisioned on provisioned.resource_id = drift.resource_id
    where drift.id = any(${numbers}::text[]::bigint[])`),
);

/** A droplet with our tags that no saga accounts for. */
export const orphanOutcomes: OutcomeSource = findings(
  { name: 'orphan', type: 'orphan.found', table: 'cloud_orphans' },
  (db, numbers) => db.run('outcomes.read_orphans', (sql) => sql<Finding[]>`
    select orphan.id as number, orphan.first_seen_at as at, orphan.saga_id, resource.provider_id, resource.name, category as status,
           jsonb_build_object('category', category, 'region', resource.region, 'size_slug', resource.size_slug, 'price_usd_per_hour', price_usd_per_hour) as outputs,
           'orphan_' || category as code, reason as message
    from arcadia.cloud_orphans orphan join arcadia.cloud_resources resource on resource.id = orphan.resource_id
    where orphan.id = any(${numbers}::text[]::bigint[])`),
);

type ReadFindings = (db: Pick<Database, 'run'>, numbers: string[]) => Promise<Finding[]>;

function findings({ name, type, table }: { name: string; type: OutcomeType; table: string }, readFindings: ReadFindings): OutcomeSource {
  const idOf = (number: string) => `${name}/${number}`;
  return {
    name,
    rows: (sql: Sql) => sql`
      select found.xid, ${type}::text as type, found.first_seen_at as at, ${`${name}/`}::text || found.id as line, found.id as place
      from arcadia.${sql(table)} as found where found.xid is not null`,
    idOf: ({ line }) => line,
    forget: (sql) => sql`update arcadia.${sql(table)} set xid = null where ${fromElsewhere(sql)}`,
    read: async (db, ids) => {
      const found = await readFindings(db, ids.map((id) => id.slice(name.length + 1)));
      return new Map(found.map((finding) => [idOf(finding.number), outcomeOf(idOf(finding.number), type, finding)]));
    },
  };
}

function outcomeOf(id: string, type: OutcomeType, { at, sagaId, providerId, name, status, outputs, code, message }: Finding): Outcome {
  return {
    type,
    timestamp: at.toISOString(),
    data: {
      id,
      saga_id: sagaId,
      name: null,
      status,
      subject: { kind: 'droplet', name, id: providerId },
      outputs,
      error: { code, message, step: null, retryable: false },
    },
  };
}

type LeaseEvent = Readonly<{ number: string; at: Date; sagaId: string; dropletId: string | null; name: string | null; type: 'lease.ending' | 'lease.expired'; generation: number; leaseUntil: Date }>;

/** A lease ends soon, or has ended. A renewal is not an outcome, because its caller gets the result. */
export const leaseOutcomes: OutcomeSource = {
  name: 'lease',
  rows: (sql) => sql`
    select event.xid, event.type, event.at, 'lease/' || event.saga_id as line, event.id as place
    from arcadia.lease_events event where event.xid is not null and event.type in ('lease.ending', 'lease.expired')`,
  idOf: ({ place }) => `lease/${place}`,
  forget: (sql) => sql`update arcadia.lease_events set xid = null where xid is not null and type in ('lease.ending', 'lease.expired') and ${fromElsewhere(sql)}`,
  read: async (db, ids) => {
    const numbers = ids.map((id) => id.slice('lease/'.length));
    const events = await db.run('outcomes.read_leases', (sql) => sql<LeaseEvent[]>`
      select event.id as number, event.at, event.saga_id, event.droplet_id::text, event.type, event.generation, event.lease_until, resource.name
      from arcadia.lease_events event
      left join arcadia.cloud_resources resource on resource.provider = 'digitalocean' and resource.kind = 'droplet' and resource.provider_id = event.droplet_id::text
      where event.id = any(${numbers}::text[]::bigint[])`);
    return new Map(events.map((event) => [`lease/${event.number}`, outcomeOfLease(event)]));
  },
};

function outcomeOfLease({ number, at, sagaId, dropletId, name, type, generation, leaseUntil }: LeaseEvent): Outcome {
  return {
    type,
    timestamp: at.toISOString(),
    data: {
      id: `lease/${number}`,
      saga_id: sagaId,
      name: null,
      status: type === 'lease.ending' ? 'ending' : 'expired',
      subject: { kind: 'droplet', name, id: dropletId },
      outputs: { lease_until: leaseUntil.toISOString(), lease_generation: generation },
      error: null,
    },
  };
}

/** All of the inventory. */
export const inventoryOutcomes: readonly OutcomeSource[] = [driftOutcomes, orphanOutcomes, leaseOutcomes];
