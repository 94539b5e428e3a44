// Builds the bodies of outcomes, each from its own source.
import type { Database } from '../platform/db.ts';
import type { Outcome, OutcomeSource } from '../saga/outcome-source.ts';
import type { Entry } from './log.ts';

/** Returns the bodies by id; outcomes that no longer exist are omitted. */
export async function readOutcomes(db: Pick<Database, 'run'>, sources: readonly OutcomeSource[], entries: readonly Pick<Entry, 'id' | 'source'>[]): Promise<ReadonlyMap<string, Outcome>> {
  const bySource = Map.groupBy(entries, ({ source }) => source);
  const read = sources.flatMap((source) => {
    const mine = bySource.get(source.name);
    return mine === undefined ? [] : [source.read(db, mine.map(({ id }) => id))];
  });
  return new Map((await Promise.all(read)).flatMap((outcomes) => [...outcomes]));
}
