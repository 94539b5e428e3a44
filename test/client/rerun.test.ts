// A rerun by a client that knows only the names of the steps of a saga of one's own.
import { randomUUID } from 'node:crypto';
import { expect, onTestFinished, test } from 'vitest';
import { z } from 'zod';
import { openClient } from '../../src/client/open-client.ts';
import { openDatabase } from '../../src/platform/db.ts';
import { createEngineDatabase } from '../support/engine.ts';

test('a droplet that the rollback left is found although the definition only names the steps', async () => {
  const database = await createEngineDatabase();
  onTestFinished(database.drop);
  const db = openDatabase(database.url, { max: 1 });
  onTestFinished(() => db.close());
  const client = openClient({ databaseUrl: database.url });
  onTestFinished(() => client.close());
  const id = randomUUID();
  await db.sql`
    insert into arcadia.sagas (id, saga8, name, status, steps, input, context, finished_at, wake_at)
    values (${id}, ${id.slice(0, 8)}, 'onboard', 'compensated', '{create_droplet,bill}', '{"name": "web-1"}', '{"unproven_droplets": [512]}', now(), null)`;
  const onboard = { name: 'onboard', input: z.strictObject({ name: z.string() }), steps: [{ name: 'create_droplet' }, { name: 'bill' }] };
  expect(await client.rerun(id, 'me', { sagas: { onboard } })).toMatchObject({ kind: 'refused', leftovers: expect.stringContaining('droplet 512') });
  expect(await client.rerun(id, 'me', { sagas: { onboard }, despiteLeftovers: true })).toMatchObject({ kind: 'accepted' });
});
