// The ends of sagas as outcomes: the events with which sagas came to rest. They are read from `saga_events`, so that the engine
// writes nothing of its own for them.
import type { Database, Sql, SqlFragment } from '../platform/db.ts';
import type { JsonObject } from '../platform/json.ts';
import { jsonText, textOf } from '../platform/json.ts';
import type { Catalog, SagaDefinition } from './definition.ts';
import type { IsNeeded } from './expire.ts';
import { isLeftEffectsKey } from './leftovers.ts';
import type { Outcome, OutcomeFacts, OutcomeRow, OutcomeSource } from './outcome-source.ts';
import { fromElsewhere } from './outcome-source.ts';
import type { SagaError } from './saga.ts';
import type { SagaFacts, Subject } from './saga-words.ts';
import type { Surface } from './words.ts';
import { surfaceOf } from './words.ts';

/** Condition of the index `saga_events_ends`. */
const isEnd = (sql: Sql) => sql`event.xid is not null and event.detail->>'status' in ('completed', 'compensated', 'stuck')`;

/** The ends of the sagas of an app. */
export function sagaOutcomes(catalog: Catalog<never>): OutcomeSource {
  const surface = surfaceOf(catalog);
  const told = new Map(Object.entries(catalog).map(([name, definition]) => [name, toldKeysOf(definition)]));
  const remains = new Map(Object.values(catalog).flatMap(({ steps }) => steps.map((step) => [step.name, Object.keys(step.remains?.shape ?? {})] as const)));
  const named = Object.entries(catalog).flatMap(([name, { words }]) => (words?.subject === undefined ? [] : [name]));
  const facts: OutcomeFacts = {
    sql: (sql) => factsOf(sql, named),
    outcomeOf: (row, value) => {
      // oxlint-disable-next-line typescript/no-unsafe-type-assertion -- as the statement makes it
      const end = value as EndFacts;
      const [name, context, , , , steps] = end;
      const { added, remaining } = told.get(name) ?? ofAnyVersion;
      // The steps of the row count too: another version of the definition may have started the saga.
      const left = [...remaining, ...steps.flatMap((step) => remains.get(step) ?? []), ...Object.keys(context).filter(isLeftEffectsKey)];
      return outcomeOf(row, end, surface, { added, remaining: new Set(left) });
    },
  };
  return {
    name: 'saga',
    rows: (sql) => sql`select event.xid, ${columnsOf(sql)} from arcadia.saga_events event where ${isEnd(sql)}`,
    idOf,
    forget: (sql) => sql`update arcadia.saga_events event set xid = null where ${isEnd(sql)} and ${fromElsewhere(sql)}`,
    read: async (db, ids) => {
      const rows = await readEnds(db, ids, facts);
      return new Map(rows.flatMap(({ facts: found, ...row }) => (found === null ? [] : [[idOf(row), facts.outcomeOf(row, found)]])));
    },
    facts,
  };
}

/** The columns of an {@link OutcomeRow}. */
const columnsOf = (sql: Sql) => sql`'saga.' || (event.detail->>'status') as type, event.at, event.saga_id::text as line, event.seq::bigint as place`;

/** Names the event: the saga's id and its revision. */
const idOf = ({ line, place }: Pick<OutcomeRow, 'line' | 'place'>) => `${line}/${place}`;

/** What a body is made of, beside its row. `stuck`: step and detail of what it is stuck in. */
type EndFacts = readonly [name: string, context: JsonObject, input: JsonObject | null, error: SagaError | null, stuck: readonly [step: string | null, detail: JsonObject] | null, steps: readonly string[]];

/** Nothing is read that the body does not need: the input only for the subject of a saga that has one. */
function factsOf(sql: Sql, named: readonly string[]): SqlFragment {
  return sql`(
    select json_build_array(
      saga.name, saga.context, case when saga.name = any(${[...named]}::text[]) then saga.input end, case when told.type = 'saga.compensated' then saga.error end,
      case when told.type = 'saga.stuck' then (select json_build_array(step, detail) from arcadia.saga_events event where event.saga_id = saga.id and event.seq = told.place) end,
      saga.steps
    )
    from arcadia.sagas saga where saga.id = told.line::uuid
  )`;
}

async function readEnds(db: Pick<Database, 'run'>, ids: readonly string[], facts: OutcomeFacts): Promise<(OutcomeRow & { facts: unknown })[]> {
  const wanted = ids.map((id) => ({ saga: id.slice(0, id.indexOf('/')), seq: Number(id.slice(id.indexOf('/') + 1)) }));
  return db.run(
    'outcomes.read_sagas',
    // "offset 0" makes the planner look each of them up by its primary key, whatever it believes of the sizes of the tables.
    (sql) => sql<(OutcomeRow & { facts: unknown })[]>`
      select told.*, ${facts.sql(sql)} as facts
      from jsonb_to_recordset(${jsonText(wanted)}::text::jsonb) as wanted (saga uuid, seq int)
      cross join lateral (select ${columnsOf(sql)} from arcadia.saga_events event where event.saga_id = wanted.saga and event.seq = wanted.seq offset 0) as told`,
  );
}

/**
 * The context keys that callers are told. `added`: the outputs; null: all but the book-keeping of effects. `remaining`: what a
 * rollback leaves.
 */
type ToldKeys = Readonly<{ added: ReadonlySet<string> | null; remaining: ReadonlySet<string> }>;

/** For a saga that this process does not know. */
const ofAnyVersion: ToldKeys = { added: null, remaining: new Set() };

function outcomeOf(row: OutcomeRow, [name, context, input, error, stuck]: EndFacts, { words, redact }: Surface, { added, remaining }: ToldKeys): Outcome {
  // What it is now, but for its end: a stuck saga may have gone on since.
  const saga: SagaFacts = { input: redact.value(input ?? {}), context: redact.value(context), error: stuck === null ? error : errorOf(...stuck) };
  return {
    type: row.type,
    timestamp: row.at.toISOString(),
    data: {
      id: idOf(row),
      saga_id: row.line,
      name,
      status: row.type.slice('saga.'.length),
      subject: input === null ? null : subjectOf(words({ name }).subject, saga),
      // Nothing else is left of what a saga made that was rolled back.
      outputs: outputsOf(saga, row.type === 'saga.compensated' ? remaining : added),
      error: toldError(saga.error),
    },
  };
}

function errorOf(step: string | null, detail: JsonObject): SagaError {
  return { code: textOf(detail['code']), message: textOf(detail['message']), step: step ?? '', retryable: detail['retryable'] === true };
}

function toldError(error: SagaError | null): Outcome['data']['error'] {
  return error === null ? null : { code: error.code, message: error.message, step: error.step, retryable: error.retryable };
}

function subjectOf(subject: ((saga: SagaFacts) => Subject) | undefined, saga: SagaFacts): Subject | null {
  try {
    return subject?.(saga) ?? null;
  } catch {
    // It was written for inputs of another shape.
    return null;
  }
}

/** What the steps of a saga declare; null for the outputs if none declares any. */
function toldKeysOf({ steps }: SagaDefinition<never>): ToldKeys {
  const adds = steps.flatMap((step) => step.adds?.shape ?? []);
  return { added: adds.length === 0 ? null : keysOf(adds), remaining: keysOf(steps.flatMap((step) => step.remains?.shape ?? [])) };
}

function keysOf(shapes: readonly object[]): ReadonlySet<string> {
  return new Set(shapes.flatMap((shape) => Object.keys(shape)));
}

function outputsOf({ context }: SagaFacts, added: ReadonlySet<string> | null): JsonObject {
  return Object.fromEntries(Object.entries(context).filter(([key]) => added?.has(key) ?? !key.includes('.')));
}

// A subscription that nobody is configured for any more holds nothing back.
const LIVE_DAYS = 7;
// Nor does one that gets nothing delivered for so long.
const HOLD_DAYS = 30;

/** Keeps sagas whose end a subscription has not been given yet: until 30 days after their time, and while a worker is configured for it. */
export function undeliveredOutcomes(retentionDays: number): IsNeeded {
  return (sql: Sql, sagaId: SqlFragment) => sql`(
    exists (select from arcadia.sagas held where held.id = ${sagaId} and held.finished_at > clock_timestamp() - ${retentionDays + HOLD_DAYS}::int * interval '1 day')
    and (
      exists (select from arcadia.outcome_deliveries delivery where delivery.line = ${sagaId}::text)
      or exists (
        select from arcadia.outcome_subscriptions subscription, arcadia.saga_events event
        where subscription.configured_at > clock_timestamp() - ${LIVE_DAYS}::int * interval '1 day'
          and event.saga_id = ${sagaId} and ${isEnd(sql)} and not pg_visible_in_snapshot(event.xid, subscription.seen)
      )
    )
  )`;
}
