// After the last test of a file: hands the databases that its tests used to the files that follow.
import { afterAll, inject } from 'vitest';
import { releaseDatabases } from './database-pool.ts';

afterAll(async () => {
  const { databaseUrl, runId } = inject('services');
  await releaseDatabases({ serverUrl: databaseUrl, runId });
});
