// A client that is newer than its database.
import { expect, onTestFinished, test } from 'vitest';
import { openClient } from '../../src/client/open-client.ts';
import { openDatabase } from '../../src/platform/db.ts';
import { migrateTo } from '../support/migrate-to.ts';
import { createTestDatabase } from '../support/services-postgres.ts';
import { web as droplet } from '../support/fleet.ts';

test.each([0, 44])('says what to do, on a database with %i migrations', async (version) => {
  const database = await createTestDatabase();
  onTestFinished(database.drop);
  const db = openDatabase(database.directUrl, { max: 1 });
  if (version > 0) await migrateTo((statement) => db.sql.unsafe(statement), version);
  await db.close();
  const client = openClient({ databaseUrl: database.url });
  onTestFinished(() => client.close());
  await client.provisionDroplet(droplet, { idempotencyKey: 'first' }).catch(() => undefined);
  await expect(client.provisionDroplet(droplet, { idempotencyKey: 'first' })).rejects.toMatchObject({ name: 'NotMigratedError', code: 'not_migrated', message: expect.stringContaining('arcadia migrate') });
});
