// Writes thousands of sagas with a few statements, as a database has them after months.
import type { Database } from '../../src/platform/db.ts';

export type ManySagas = {
  readonly count: number;
  readonly status: 'completed' | 'compensated' | 'stuck' | 'running';
  /** Of the ends of those that ended; else, of their beginnings. */
  readonly daysAgo: number;
  /** Default 1. */
  readonly eventsEach?: number;
};

// On a slow machine, a statement for all of them takes longer than a statement may.
const AT_ONCE = 2_000;

/** Writes sagas that all began within an hour and, if they ended, did so an hour later. */
export async function writeSagas(db: Database, sagas: ManySagas): Promise<void> {
  for (let from = 1; from <= sagas.count; from += AT_ONCE) await writeSome(db, sagas, from, Math.min(sagas.count, from + AT_ONCE - 1));
}

async function writeSome(db: Database, { status, daysAgo, eventsEach = 1 }: ManySagas, from: number, to: number): Promise<void> {
  const isFinished = status === 'completed' || status === 'compensated';
  await db.sql`
    with inserted as (
      insert into arcadia.sagas (id, saga8, name, status, steps, cursor, revision, input, context, error, wake_at, created_at, updated_at, finished_at)
      select id, left(id::text, 8), 'provision_droplet', ${status}, '{create_droplet,wait_droplet_active,register_droplet}', 2, ${eventsEach - 1},
             jsonb_build_object('name', 'old-' || number, 'region', 'fra1', 'size', 's-1vcpu-1gb', 'image', 'debian-12-x64'),
             jsonb_build_object('droplet_id', 1000000 + number, 'public_ipv4', '192.0.2.1'),
             case when ${status === 'compensated'} then '{"code": "cancelled", "message": "cancelled", "step": "create_droplet", "retryable": false}'::jsonb end,
             case when ${status === 'running'} then began_at + interval '1 hour' end, began_at, began_at + interval '1 hour', case when ${isFinished} then began_at + interval '1 hour' end
      from (
        select gen_random_uuid() as id, number,
               clock_timestamp() - ${daysAgo}::int * interval '1 day' - interval '2 hours' + (number % 3600) * interval '1 second' as began_at
        from generate_series(${from}::int, ${to}::int) as number
      ) as made
      on conflict do nothing
      returning id, created_at
    )
    insert into arcadia.saga_events (saga_id, seq, at, kind, step, attempt, detail, worker)
    select id, seq, created_at + seq * interval '1 second', 'step_completed', 'create_droplet', 1, '{"status": "running"}', 'host:1'
    from inserted cross join generate_series(0, ${eventsEach - 1}::int) as seq`;
}
