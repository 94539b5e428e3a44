// Allows one saga at a time per resource. A saga holds its resource from the first step that works on it until the saga
// is at rest. Another saga with a step for that resource waits, without using a worker or an attempt. A saga that holds one
// never waits for another, so no two sagas wait for each other. The holder is recorded in Postgres, under a unique index.
import type { Database } from '../platform/db.ts';
import { sqlStateOf } from '../platform/db.ts';
import type { SagaDefinition } from './definition.ts';
import type { LoadedSaga } from './loaded.ts';
import type { Claim } from './step.ts';

/**
 * The holder of a resource. `resource`: what the saga took, or waits for. `waits`: `holder` has it; null: another saga took it at
 * this moment. `fenced`: the claim no longer holds.
 */
export type Holding = Readonly<{ kind: 'held'; resource: string } | { kind: 'waits'; resource: string; holder: string | null } | { kind: 'fenced' }>;

/**
 * Takes a resource for a saga, unless a saga that is not at rest holds it. A saga that has a resource, or had one before another
 * saga took it while it was stuck, takes that one.
 */
export type HoldResource = (claim: Claim, resource: string) => Promise<Holding>;

// It is stored in an index, and Postgres limits the size of index entries.
const MAX_LENGTH = 255;

/**
 * Returns the resource of a saga's next step, from its definition.
 *
 * @returns null if it has none (yet), or if the input is invalid and the saga will be rejected
 * @throws {TypeError} if the definition returns an invalid resource; whatever the definition throws
 */
export function resourceOf<Deps>(definition: SagaDefinition<Deps> | undefined, { saga, inputChecked }: Pick<LoadedSaga, 'saga' | 'inputChecked'>): string | null {
  if (definition?.resource === undefined) return null;
  const input = inputChecked ? saga.input : definition.input.safeParse(saga.input).data;
  const resource = input === undefined ? null : (definition.resource({ ...saga, input }) ?? null);
  if (resource === null || (typeof resource === 'string' && resource !== '' && resource.length <= MAX_LENGTH)) return resource;
  throw new TypeError(`expected a text of 1 to ${MAX_LENGTH} characters, or null; found ${JSON.stringify(resource).slice(0, 100)}`);
}

/** Creates {@link HoldResource} for a database. */
export function createHoldResource(db: Pick<Database, 'run'>): HoldResource {
  return async (claim, resource) => {
    try {
      const [row] = await db.run(
        'store.hold_resource',
        (sql) => sql<{ isHeld: boolean; holder: string | null; resource: string | null }[]>`
          with wanted as materialized (select coalesce(resource, former_resource, ${resource}) as resource from arcadia.sagas where id = ${claim.sagaId} and revision = ${claim.revision}),
          freed as (
            update arcadia.sagas set resource = null, former_resource = resource
            where resource = (select resource from wanted) and id <> ${claim.sagaId} and status in ('completed', 'compensated', 'stuck')
            returning id
          ),
          holder as (select id from arcadia.sagas where resource = (select resource from wanted) and id <> ${claim.sagaId} and id not in (select id from freed)),
          held as (
            update arcadia.sagas set resource = (select resource from wanted), waits_for = null
            where id = ${claim.sagaId} and revision = ${claim.revision} and not exists (select from holder) and (select count(*) from freed) >= 0
            returning id
          ),
          waits as (
            update arcadia.sagas set waits_for = (select id from holder)
            where id = ${claim.sagaId} and revision = ${claim.revision} and exists (select from holder) and waits_for is distinct from (select id from holder)
          )
          select exists (select from held) as is_held, (select id from holder) as holder, (select resource from wanted) as resource`,
      );
      if (row === undefined || row.resource === null || (!row.isHeld && row.holder === null)) return { kind: 'fenced' };
      return row.isHeld ? { kind: 'held', resource: row.resource } : { kind: 'waits', resource: row.resource, holder: row.holder };
    } catch (error) {
      // If two sagas take it at once, the index lets one have it.
      if (sqlStateOf(error) === UNIQUE_VIOLATION) return { kind: 'waits', resource, holder: null };
      throw error;
    }
  };
}

const UNIQUE_VIOLATION = '23505';

// Poll delays for a resource that another saga holds. The first is short, in case that saga is about to end.
const FIRST_LOOK_MS = 200;
const LATEST_LOOK_MS = 5_000;

/** Computes how long a saga waits before its next poll, in milliseconds. */
export function resourceWaitMs(looks: number, random: number): number {
  return Math.min(LATEST_LOOK_MS, FIRST_LOOK_MS * 2 ** Math.min(looks, 10)) * (0.8 + 0.4 * random);
}
