// A database that was restored from another cluster: its rows have numbers of transactions that this cluster has yet to reach.
import { randomUUID } from 'node:crypto';
import { expect, test } from 'vitest';
import { driftOutcomes, leaseOutcomes, orphanOutcomes } from '../../src/inventory/outcomes.ts';
import { forgetRestored, takeLease } from '../../src/outcomes/lease.ts';
import { advance, readBatch } from '../../src/outcomes/log.ts';
import { ensureSubscription, resumeSubscription } from '../../src/outcomes/subscriptions.ts';
import { sagaOutcomes } from '../../src/saga/saga-outcomes.ts';
import { useSharedDatabase } from '../support/shared-database.ts';

const AHEAD = 60;
const database = useSharedDatabase(4);
const sources = [sagaOutcomes({}), driftOutcomes, orphanOutcomes, leaseOutcomes];

test('what ended in the other cluster is not told when this one comes to its numbers; what ends here is', async () => {
  const db = database();
  await ensureSubscription(db, { name: 'trial', target: 'a test' });
  const reader = { subscription: 'trial', holder: randomUUID() };
  const later = db.sql`((pg_current_xact_id()::text::bigint + ${AHEAD})::text)::xid8`;
  await db.sql`insert into arcadia.saga_events (saga_id, seq, kind, detail, xid) values (${randomUUID()}, 1, 'step_completed', '{"status":"completed"}', ${later})`;
  await db.sql`insert into arcadia.lease_events (saga_id, generation, type, lease_until, xid) values (${randomUUID()}, 1, 'lease.expired', now(), ${later})`;
  await db.sql`update arcadia.outcome_subscriptions set seen = format('%s:%s:', x, x)::pg_snapshot from (select pg_current_xact_id()::text::bigint + ${2 * AHEAD} as x) as ahead`;
  await takeLease(db, reader, 600_000);
  await forgetRestored(db, sources);
  await resumeSubscription(db, 'trial', 'alice');
  const told: string[] = [];
  const own = randomUUID();
  for (let transaction = 0; transaction < 2 * AHEAD; transaction += 1) {
    if (transaction === AHEAD) await db.sql`insert into arcadia.saga_events (saga_id, seq, kind, detail) values (${own}, 1, 'step_completed', '{"status":"completed"}')`;
    else await db.sql`select pg_current_xact_id()`;
    const batch = await readBatch(db, reader, sources, 100);
    if (batch === null) continue;
    told.push(...batch.entries.map(({ id }) => id));
    await advance(db, reader, batch);
  }
  expect(told).toEqual([`${own}/1`]);
});
