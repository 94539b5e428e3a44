// After the last test of a file: drops the databases that its tests used.
import { afterAll, inject } from 'vitest';
import { dropDatabases } from './database-pool.ts';

afterAll(async () => dropDatabases(inject('services').databaseUrl));
