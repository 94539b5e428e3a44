// The definitions that `arcadia migrate` wrote into the database: those of the version that was deployed last. During a deploy,
// a worker of the version before compares its own with them before it decides over a request that may be meant for the next one.
import { createHash } from 'node:crypto';
import { isDeepStrictEqual } from 'node:util';
import { z } from 'zod';
import type { Database, Sql } from '../platform/db.ts';
import { secretsOf } from './secrets.ts';

type Definition = Readonly<{ input: z.ZodType; steps: readonly Readonly<{ name: string; onlyWith?: string }>[]; secrets?: readonly string[] }>;

/** What is written of a definition. `optionalSteps`: by step, the field without which a saga does not have it. `inputDigest` null: unknown. */
type Described = Readonly<{ steps: readonly string[]; secrets: readonly string[]; optionalSteps: Readonly<Record<string, string>>; inputDigest: string | null }>;

/** A definition as written. `isRecent`: it was changed a while ago at most, so that a deploy may be under way. */
export type WrittenDefinition = Described & Readonly<{ isRecent: boolean }>;

// After that, no deploy is under way: workers whose definition differs were not migrated, and must not wait for others.
const RECENT = '1 hour';

/** SQL for a {@link WrittenDefinition} of a row `written` of saga_definitions. */
const asWritten = (sql: Sql) => sql`
  jsonb_build_object('steps', written.steps, 'secrets', written.secrets, 'optionalSteps', written.optional_steps, 'inputDigest', written.input_digest,
    'isRecent', coalesce(written.changed_at > clock_timestamp() - ${RECENT}::interval, false))`;

/** SQL for the definition of a saga that is not admitted yet, as a column of arcadia.sagas; null: there is none, or it is admitted. */
export const writtenColumn = (sql: Sql) => sql`case when not input_checked then (select ${asWritten(sql)} from arcadia.saga_definitions as written where written.name = sagas.name) end`;

/** Describes a definition, so that two versions of it can be compared. */
export function describeDefinition({ input, steps, secrets = [] }: Definition): Described {
  return {
    steps: steps.map(({ name }) => name),
    secrets,
    optionalSteps: Object.fromEntries(steps.flatMap(({ name, onlyWith }) => (onlyWith === undefined ? [] : [[name, onlyWith]]))),
    inputDigest: digestOf(input),
  };
}

/**
 * Whether a request for this saga may be meant for another version, which is being deployed.
 *
 * @param own this version's definition; undefined: it knows none
 * @param written null: none is written
 */
export function mayBeForOthers(own: Definition | undefined, written: WrittenDefinition | null): boolean {
  return written?.isRecent === true && (own === undefined || differs(own, written));
}

/** The definition with the secrets that the written one names besides its own. */
export function withWrittenSecrets<D extends Readonly<{ secrets?: readonly string[] }>>(own: D, written: Pick<Described, 'secrets'> | null): D {
  const known = secretsOf(own);
  const others = written?.secrets.filter((field) => !known.includes(field)) ?? [];
  return others.length === 0 ? own : { ...own, secrets: [...(own.secrets ?? []), ...others] };
}

function differs(own: Definition, written: Described): boolean {
  const { steps, secrets, optionalSteps, inputDigest } = describeDefinition(own);
  if (!isDeepStrictEqual([steps, secrets.toSorted(), optionalSteps], [written.steps, written.secrets.toSorted(), written.optionalSteps])) return true;
  return inputDigest !== null && written.inputDigest !== null && inputDigest !== written.inputDigest;
}

// A schema is a constant of its program, and describing it takes a millisecond.
const digests = new WeakMap<z.ZodType, { digest: string | null }>();

function digestOf(input: z.ZodType): string | null {
  const known = digests.get(input) ?? { digest: computeDigest(input) };
  digests.set(input, known);
  return known.digest;
}

/** Digests what the schema takes, as far as JSON Schema can say it: no refinements, transforms, and values of defaults. */
function computeDigest(input: z.ZodType): string | null {
  try {
    const schema = z.toJSONSchema(input, { io: 'input', unrepresentable: 'any', override: ({ jsonSchema }) => { if ('default' in jsonSchema) jsonSchema.default = null; } });
    return createHash('sha256').update(JSON.stringify(schema)).digest('hex');
  } catch {
    // Not of this zod, or it refers to itself in a way that it cannot show.
    return null;
  }
}

/** Reads the definition of a saga; null: none is written. */
export type ReadWritten = (name: string, how?: { fresh: true }) => Promise<WrittenDefinition | null>;

// How long what was read counts: a read for each request would cost a round trip.
const KEPT_MS = 1_000;

/** Creates a reader of the written definitions that reads all of them at most once a second, or afresh. */
export function createWrittenDefinitions(db: Pick<Database, 'run'>, keptMs = KEPT_MS): ReadWritten {
  let last: { at: number; read: Promise<ReadonlyMap<string, WrittenDefinition>> } | null = null;
  return async (name, how) => {
    if (last === null || how?.fresh === true || performance.now() - last.at >= keptMs) {
      const mine = { at: performance.now(), read: readAll(db) };
      last = mine;
      // A failed read counts for those who wait for it, and for nobody later.
      mine.read.catch(() => {
        if (last === mine) last = null;
      });
    }
    return (await last.read).get(name) ?? null;
  };
}

async function readAll(db: Pick<Database, 'run'>): Promise<ReadonlyMap<string, WrittenDefinition>> {
  const rows = await db.run('definitions.read', (sql) => sql<{ name: string; definition: WrittenDefinition }[]>`select name, ${asWritten(sql)} as definition from arcadia.saga_definitions as written`);
  return new Map(rows.map(({ name, definition }) => [name, definition]));
}
