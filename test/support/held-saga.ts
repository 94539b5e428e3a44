// A saga that a circuit holds, without a worker that was refused anything.
import type { Database } from '../../src/platform/db.ts';

/** Holds a saga: a request is refused, as long as its circuit is open. Returns what is told of it, and what closes the circuit. */
export async function holdSaga(db: Database, sagaId: string): Promise<{ held: { cause: string; message: string; since: string }; release: () => Promise<void> }> {
  const held = { cause: 'scope_missing', message: 'You are not authorized.', since: '2026-01-31T12:00:00.000Z' };
  const [circuit] = await db.sql<{ id: string }[]>`
    insert into arcadia.circuits (scope, cause, kind, delay_ms, next_probe_at, detail) values (${sagaId}, '403 POST /v2/droplets', 'request_refused', 1000, now(), ${db.sql.json({ message: held.message })}) returning id`;
  const id = circuit?.id ?? '';
  await db.sql`insert into arcadia.held_sagas (saga_id, revision, circuit, held_at) select id, revision, ${id}, ${new Date(held.since)} from arcadia.sagas where id = ${sagaId}`;
  return { held, release: async () => void (await db.sql`update arcadia.circuits set closed_at = now() where id = ${id}`) };
}
