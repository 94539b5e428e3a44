// Writes transitions: updates the row to its next revision and inserts the event. One statement writes a whole batch.
// Each transition is fenced by the revision it starts from and succeeds or fails by itself.
import { randomUUID } from 'node:crypto';
import type { Database } from '../platform/db.ts';
import { oneOf, sqlStateOf } from '../platform/db.ts';
import type { JsonObject } from '../platform/json.ts';
import { isEmpty, jsonText, textOf } from '../platform/json.ts';
import type { Saga } from './saga.ts';
import { isStuckForward } from './saga.ts';
import type { Transition } from './transition.ts';

/** The result of a write: applied, or fenced because the saga had moved on. */
export type CommitResult = 'applied' | 'fenced';

/** A transition with the id that identifies its event. */
export type Writing = Readonly<{ transition: Transition; transitionId: string }>;

/** Writes transitions together and returns one result for each. */
export type WriteTransitions = (writings: readonly Writing[]) => Promise<readonly (CommitResult | PromiseLike<CommitResult>)[]>;

/**
 * Commits a transition and determines whether it was written.
 *
 * If the reply is lost, looks up the event. A transition is written at most once, and its writer learns whether it was.
 *
 * @throws the database's error, if the transition was not written
 */
export async function commitTransition(
  db: Database,
  transition: Transition,
  write: (writing: Writing) => Promise<CommitResult>,
): Promise<CommitResult> {
  const transitionId = randomUUID();
  try {
    return await write({ transition, transitionId });
  } catch (error) {
    if (!mayHaveBeenApplied(error)) throw error;
    const written = await findWriter(db, transition);
    if (written === transitionId) return 'applied';
    if (written !== null) return 'fenced';
    throw error;
  }
}

/**
 * Creates the function that writes transitions to a database.
 *
 * @param how.worker names this process in the events
 * @param how.reconcileGraceMs how long after the next job is due the reconciler starts to check for it
 * @param how.onWritten is called with each saga that continues at once with its next step, as it is in the database now
 */
export function transitionWriter(db: Database, how: Writer): WriteTransitions {
  return async (writings) => {
    try {
      return await writeTransitions(db, writings, how);
    } catch (error) {
      // A transition that Postgres refuses must not fail the others.
      if (writings.length === 1 || mayHaveBeenApplied(error)) throw error;
      return writings.map(async (writing) => (await writeTransitions(db, [writing], how))[0] ?? 'fenced');
    }
  };
}

type Writer = Readonly<{ worker: string; reconcileGraceMs: number; onWritten(saga: Saga, sentAt: number): void }>;

async function writeTransitions(db: Database, writings: readonly Writing[], { worker, reconcileGraceMs, onWritten }: Writer): Promise<CommitResult[]> {
  // Sorted by id, so that two workers that write the same sagas lock them in the same order.
  const given = writings.map((writing, place) => rowOf(writing, place, reconcileGraceMs)).toSorted((one, other) => (one.id < other.id ? -1 : 1));
  const sentAt = performance.now();
  const [written] = await db.run(
    'store.commit',
    (sql) => sql<{ places: string; updatedAt: Date; stamped: Readonly<Record<string, JsonObject>> | null }[]>`
      with given as (
        select given.*, clock.at, coalesce(becomes, was) as status, revision + case when starts then 2 else 1 end as seq
        from (select clock_timestamp() as at) as clock, json_to_recordset(${jsonText(given)}::text::json) as given (
          place int, id uuid, revision int, was text, becomes text, cursor int, attempt int, patch jsonb, stamps jsonb, error jsonb, cancels boolean, step_stays boolean,
          wake_in_ms double precision, admitted jsonb, new_steps text[], goes_forward boolean, starts boolean, kind text, step text, event_attempt int,
          detail jsonb, transition_id uuid, audit_actor text
        )
      ),
      moved as (
        update arcadia.sagas as saga
        set status = given.status,
            cursor = given.cursor,
            revision = given.seq,
            attempt = coalesce(given.attempt, 0),
            context = saga.context || coalesce(given.patch, '{}') || case when given.stamps is null then '{}' else (
              select jsonb_object_agg(key, to_char(given.at at time zone 'utc', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"')) from jsonb_array_elements_text(given.stamps) as key
            ) end,
            memo = '{}',
            -- An input that was checked just now takes the place of the one that nobody had checked, its secrets sealed. Else it
            -- stays; but a saga that goes forward no more keeps no secrets that nobody sealed.
            input = case
              when given.admitted is not null then case when given.status = 'compensated' then arcadia.without_secrets(saga.name, given.admitted->'input') else given.admitted->'input' end
              when given.goes_forward or given.status in ('pending', 'running') or saga.user_data_fingerprint is not null or (saga.input_checked and saga.input->>'user_data' is null) then saga.input
              else arcadia.without_secrets(saga.name, saga.input)
            end,
            given_input = case
              when given.admitted is null then saga.given_input
              when given.status = 'compensated' and given.admitted ? 'given' then arcadia.without_secrets(saga.name, given.admitted->'given')
              else given.admitted->'given'
            end,
            steps = coalesce(given.new_steps, saga.steps),
            input_checked = saga.input_checked or given.admitted is not null,
            -- user_data alone is for steps forward. Other secrets may be needed to undo a step, until the saga has ended.
            sealed_user_data = case
              when given.admitted is not null then given.admitted->>'sealed'
              when given.goes_forward or given.status in ('pending', 'running') or (given.status not in ('completed', 'compensated') and starts_with(saga.sealed_user_data, '{')) then saga.sealed_user_data
            end,
            user_data_fingerprint = case when given.admitted is not null then given.admitted->>'fingerprint' else saga.user_data_fingerprint end,
            error = given.error,
            cancel_requested_at = case when given.cancels then given.at else saga.cancel_requested_at end,
            step_started_at = case when given.step_stays then saga.step_started_at else given.at end,
            wake_at = case
              when given.status in ('completed', 'compensated', 'stuck') then null
              -- What is due at once may be looked for a little earlier, if that spares the indexes a new entry.
              when given.wake_in_ms is null
                and saga.wake_at between given.at + ${reconcileGraceMs / 2}::double precision * interval '1 millisecond' and given.at + ${reconcileGraceMs}::double precision * interval '1 millisecond'
              then saga.wake_at
              else given.at + coalesce(given.wake_in_ms, ${reconcileGraceMs}::double precision) * interval '1 millisecond'
            end,
            updated_at = given.at,
            finished_at = case when given.status in ('completed', 'compensated') then given.at end
        from given
        -- The list makes the planner use the primary key, whatever it believes of the sizes of both.
        where saga.id = given.id and saga.revision = given.revision and saga.status = given.was and saga.id ${oneOf(sql, given.map(({ id }) => id))}
        returning given.place, given.id, given.starts, given.seq, coalesce(given.kind, 'step_completed') as kind, given.step, coalesce(given.event_attempt, 1) as event_attempt,
          coalesce(given.detail, case given.status when 'running' then '{"status": "running"}' when 'completed' then '{"status": "completed"}' else jsonb_build_object('status', given.status) end) as detail,
          given.transition_id, given.audit_actor,
          given.at, case when given.stamps is not null then saga.context end as stamped_context
      ),
      audited as (
        insert into arcadia.audit (actor, action, saga_id, detail)
        select audit_actor, kind, id, detail from moved where audit_actor is not null
      ),
      inserted_events as (
        insert into arcadia.saga_events (saga_id, seq, kind, step, attempt, detail, worker, transition_id)
        select id, seq, kind, step, event_attempt, detail, ${worker}, transition_id from moved
        union all
        select id, seq - 1, 'saga_started', step, 1, '{"status": "running"}', ${worker}, gen_random_uuid() from moved where starts
      )
      -- One row, as each would have to be read.
      select string_agg(place::text, ',') as places, max(at) as updated_at, jsonb_object_agg(place, stamped_context) filter (where stamped_context is not null) as stamped
      from moved having count(*) > 0`,
  );
  const { places, updatedAt, stamped } = written ?? {};
  const applied = new Set(places?.split(',').map(Number));
  return writings.map(({ transition }, place) => {
    if (updatedAt === undefined || !applied.has(place)) return 'fenced';
    if (transition.event.kind === 'step_completed' && transition.next !== null) {
      const { saga } = transition;
      onWritten({ ...saga, context: stamped?.[place] ?? saga.context, stepStartedAt: transition.stepChanged ? updatedAt : saga.stepStartedAt, updatedAt }, sentAt);
    }
    return 'applied';
  });
}

/**
 * Converts a transition for the statement. JSON omits what is undefined; it is null there. What a completed step usually
 * has is left to the statement: of each row, all names and values are written, sent and parsed.
 */
function rowOf({ transition, transitionId }: Writing, place: number, reconcileGraceMs: number) {
  const { saga, before, event, next, patch, stamps, sealed } = transition;
  const isAskedFor = event.kind === 'cancel_requested' || event.kind === 'retry_requested';
  // `before` can only be the start. One shape for all rows: an object made of optional parts costs as much as deciding the transition.
  return {
    place,
    id: transition.sagaId,
    revision: transition.from,
    was: transition.was,
    becomes: saga.status === transition.was ? undefined : saga.status,
    cursor: saga.cursor,
    attempt: saga.attempt === 0 ? undefined : saga.attempt,
    kind: event.kind === 'step_completed' ? undefined : event.kind,
    step: event.step,
    event_attempt: event.attempt === 1 ? undefined : event.attempt,
    // The status is always in it.
    detail: Object.keys(event.detail).length === 1 ? undefined : event.detail,
    transition_id: transitionId,
    patch: isEmpty(patch) ? undefined : patch,
    stamps: stamps.length === 0 ? undefined : stamps,
    error: saga.error ?? undefined,
    cancels: event.kind === 'cancel_requested' ? true : undefined,
    step_stays: transition.stepChanged ? undefined : true,
    wake_in_ms: next === null || next.delayMs === 0 ? undefined : next.delayMs + reconcileGraceMs,
    // In one column: each costs every row some time, and few rows have it.
    admitted: transition.input === null ? undefined : { input: transition.input, given: transition.given ?? undefined, sealed: sealed?.value, fingerprint: sealed?.fingerprint },
    new_steps: transition.steps ?? undefined,
    goes_forward: isStuckForward(saga) ? true : undefined,
    starts: before === undefined ? undefined : true,
    // The statement that applies a requested action also audits it: neither exists without the other.
    audit_actor: isAskedFor ? textOf(event.detail['by'], 'unknown') : undefined,
  };
}

async function findWriter(db: Database, transition: Transition): Promise<string | null> {
  const [row] = await db.run(
    'store.find_writer',
    (sql) => sql<{ transitionId: string }[]>`
      select transition_id from arcadia.saga_events where saga_id = ${transition.sagaId} and seq = ${transition.event.seq}`,
  );
  return row?.transitionId ?? null;
}

/**
 * Whether a failed statement may still have taken effect. Postgres's own errors (five characters) mean that it did not,
 * except for class 08, class 57 and 40003.
 */
export function mayHaveBeenApplied(error: unknown): boolean {
  const state = sqlStateOf(error);
  return state === null || state.startsWith('08') || state.startsWith('57') || state === '40003';
}
