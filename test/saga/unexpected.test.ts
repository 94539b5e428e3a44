import { expect, test } from 'vitest';
import { openDatabase } from '../../src/platform/db.ts';
import { outcomeOfUnexpected } from '../../src/saga/unexpected.ts';

test.each(['ECONNREFUSED', 'ECONNRESET', 'ETIMEDOUT', 'ENOTFOUND', '40001'])('an error %s of a request that a step makes by itself uses an attempt', (code) => {
  const error = Object.assign(new Error('no answer'), { code, ...(code === '40001' ? { name: 'PostgresError' } : {}) });
  expect(outcomeOfUnexpected(error)).toMatchObject({ kind: 'failed', error: { code: 'unexpected', retryable: true } });
});

test('an outage of our own database decides nothing', async () => {
  const db = openDatabase('postgres://postgres@127.0.0.1:1/nothing', { timeoutMs: 500 });
  const error: unknown = await db.run('test', (sql) => sql`select 1`).catch((caught: unknown) => caught);
  await db.close();
  expect(error).toBeInstanceOf(Error);
  expect(outcomeOfUnexpected(error)).toBeNull();
});
