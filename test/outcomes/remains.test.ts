// What a caller is told of a saga that was rolled back: what the rollback left, and nothing else.
import { randomUUID } from 'node:crypto';
import { expect, test } from 'vitest';
import { sagaOutcomes } from '../../src/saga/saga-outcomes.ts';
import { catalog } from '../../src/steps/catalog.ts';
import type { JsonObject } from '../../src/platform/json.ts';
import { useSharedDatabase } from '../support/shared-database.ts';

const database = useSharedDatabase(2);

test('a rollback that came too late, or left something to check, says so; any other has no outputs', async () => {
  const db = database();
  const billed = [{ kind: 'volume', id: 'v1', name: 'data', usd_per_month: 10 }];
  const told = async (name: string, steps: string[], context: JsonObject) => {
    const id = randomUUID();
    await db.sql`insert into arcadia.sagas (id, saga8, name, status, steps, input, context, finished_at, wake_at) values (${id}, ${id.slice(0, 8)}, ${name}, 'compensated', ${steps}, '{}', ${JSON.stringify(context)}::text::jsonb, now(), null)`;
    await db.sql`insert into arcadia.saga_events (saga_id, seq, kind, detail) values (${id}, 1, 'compensation_completed', '{"status":"compensated"}')`;
    return (await sagaOutcomes(catalog).read(db, [`${id}/1`])).get(`${id}/1`)?.data.outputs;
  };
  expect(await told('destroy_droplet', ['destroy_droplet'], { droplet_id: 7, destroy_result: 'destroyed', still_billed: billed })).toEqual({ destroy_result: 'destroyed', still_billed: billed });
  expect(await told('provision_droplet', ['create_droplet'], { droplet_id: 7, public_ipv4: '192.0.2.1', unproven_droplets: [8, 9] })).toEqual({ unproven_droplets: [8, 9] });
  expect(await told('provision_droplet', ['create_droplet'], { droplet_id: 7, public_ipv4: '192.0.2.1' })).toEqual({});
  expect(await told('of_another_version', ['some_step'], { anything: 1 })).toEqual({});
});
