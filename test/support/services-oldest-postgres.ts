// The oldest supported Postgres on this machine: the one that the system's package manager installed (script/setup does that).
// The other tests run on the newest.

import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import type { EmbeddedPostgres } from '../../src/dev/embedded-postgres/start-embedded-postgres.ts';
import { findProgram } from './services-guarded.ts';
import { startPrivatePostgres } from './services-postgres.ts';

const OLDEST_MAJOR = 14;
// Debian and its like, and the Red Hat family.
const parents = ['/usr/lib/postgresql', '/usr'];

/** Starts it, as a server of the test's own. Throws where there is none: nothing else tests the promise. */
export async function startOldestPostgres(): Promise<EmbeddedPostgres> {
  const [oldest] = parents.flatMap(foldersIn).toSorted((one, other) => one.major - other.major);
  if (oldest === undefined) throw new Error(`the tests need a Postgres of the system's, ${OLDEST_MAJOR} or newer, beside the embedded one: run script/setup`);
  return startPrivatePostgres({ nativeDir: oldest.folder });
}

function foldersIn(parent: string): { folder: string; major: number }[] {
  return namesIn(parent).flatMap((name) => {
    const major = Number(/^(?:pgsql-)?(\d{2})$/.exec(name)?.[1] ?? 0);
    const folder = join(parent, name);
    return major >= OLDEST_MAJOR && findProgram(['initdb'], [join(folder, 'bin')]) !== undefined ? [{ folder, major }] : [];
  });
}

function namesIn(folder: string): string[] {
  try {
    return readdirSync(folder);
  } catch {
    return [];
  }
}
