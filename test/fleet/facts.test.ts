// What Postgres knows of the fleet.
import { afterAll, beforeAll, expect, test } from 'vitest';
import { readFleetFacts } from '../../src/fleet/facts.ts';
import { openDatabase } from '../../src/platform/db.ts';
import type { Database } from '../../src/platform/db.ts';
import { createEngineDatabase } from '../support/engine.ts';
import type { TestDatabase } from '../support/services-postgres.ts';

let database: TestDatabase;
let db: Database;

beforeAll(async () => {
  database = await createEngineDatabase();
  db = openDatabase(database.url);
});
afterAll(async () => {
  await db.close();
  await database.drop();
});

// Random ids of 20,000 sagas may begin alike, which is refused.
let made = 0;

async function sagasAt(step: string, { count = 1, minutes = 5, status = 'running' } = {}): Promise<void> {
  await db.sql`
    insert into arcadia.sagas (id, saga8, name, steps, status, input, step_started_at, wake_at)
    select id, left(id::text, 8), 'provision_droplet', array[${step}::text], ${status}, '{}', clock_timestamp() - ${minutes}::int * interval '1 minute', case when ${status}::text <> 'stuck' then clock_timestamp() + interval '1 hour' end
    from (select (lpad(to_hex(number), 8, '0') || '-0000-4000-8000-000000000000')::uuid as id from generate_series(${made + 1}::int, ${made + count}::int) as number) as numbered`;
  made += count;
}

test('counts sagas at steps that no definition has, once they have been there for two minutes', async () => {
  await sagasAt('create_droplet');
  await sagasAt('removed', { minutes: 1 });
  await sagasAt('removed', { status: 'stuck' });
  expect((await readFleetFacts(db)).unknownSteps).toEqual({ sagas: 0, steps: [] });
  await sagasAt('removed', { count: 2 });
  await sagasAt('renamed', { status: 'compensating' });
  expect((await readFleetFacts(db)).unknownSteps).toEqual({ sagas: 3, steps: ['removed', 'renamed'] });
  await sagasAt('create_droplet', { count: 20_000 });
  expect((await readFleetFacts(db)).unknownSteps).toBeNull();
});
