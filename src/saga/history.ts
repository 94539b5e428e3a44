// The recent past in numbers, for charts: how many sagas started and ended, how long completed ones took, and how long sagas took to
// their milestones.
import type { Database } from '../platform/db.ts';
import { jsonText } from '../platform/json.ts';
import type { Milestone } from './words.ts';

/** A time span and its division into equal parts, in seconds. */
export type Span = Readonly<{ seconds: number; partSeconds: number }>;

/** Number of sagas that started and ended in one part of the span. */
export type HistoryPart = Readonly<{ at: Date; started: number; completed: number; rolledBack: number }>;

/** How long the sagas of one name took, in seconds; null: none came to that point in that part. */
export type Durations = Readonly<{ name: string; parts: readonly (Readonly<{ p50: number; p99: number }> | null)[] }>;

/** `durations`: from the start of the sagas to their completion. `milestones`: to a milestone, also of sagas that are not over. */
export type History = Readonly<{
  readAt: Date;
  parts: readonly HistoryPart[];
  durations: readonly Durations[];
  milestones: readonly (Durations & Readonly<{ label: string }>)[];
}>;

// Sagas that take longer than this are missing from the ends: by their start, the index finds the others.
const LONGEST_SAGA = '1 day';

// Names with a chart of their own.
const MOST_NAMES = 6;

/** Reads the history of a span that ends now. Parts begin at multiples of their length, so that they stay the same from call to call. */
export async function readHistory(db: Pick<Database, 'run'>, { seconds, partSeconds }: Span, milestones: readonly Milestone[]): Promise<History> {
  const count = Math.ceil(seconds / partSeconds);
  const [row] = await db.run(
    'history.read',
    (sql) => sql<HistoryRow[]>`
      with span as materialized (
        select clock_timestamp() as now, to_timestamp((floor(extract(epoch from clock_timestamp()) / ${partSeconds}::int) - ${count - 1}::int) * ${partSeconds}::int) as begins_at
      ),
      started as (
        select floor(extract(epoch from created_at - begins_at) / ${partSeconds}::int)::int as part, count(*)::int as count
        from arcadia.sagas, span where created_at >= begins_at group by 1
      ),
      ended as (
        select floor(extract(epoch from finished_at - begins_at) / ${partSeconds}::int)::int as part, name, status, count(*)::int as count,
               percentile_disc(array[0.5, 0.99]) within group (order by extract(epoch from finished_at - created_at)::float8) as took
        from arcadia.sagas, span where created_at >= begins_at - ${LONGEST_SAGA}::interval and finished_at >= begins_at group by 1, 2, 3
      ),
      milestone as (select saga, step from jsonb_to_recordset(${jsonText(milestones)}::text::jsonb) as milestone (saga text, step text)),
      reached as (
        select floor(extract(epoch from event.at - begins_at) / ${partSeconds}::int)::int as part, saga.name, event.step,
               percentile_disc(array[0.5, 0.99]) within group (order by extract(epoch from event.at - saga.created_at)::float8) as took
        from span, arcadia.saga_events event join arcadia.sagas saga on saga.id = event.saga_id
        where event.at >= begins_at and event.kind = 'step_completed' and (saga.name, event.step) in (select saga, step from milestone) group by 1, 2, 3
      )
      select now, begins_at,
        (select coalesce(jsonb_agg(jsonb_build_object('part', part, 'count', count)), '[]') from started) as started,
        (select coalesce(jsonb_agg(jsonb_build_object('part', part, 'name', name, 'status', status, 'count', count, 'p50', took[1], 'p99', took[2])), '[]') from ended) as ended,
        (select coalesce(jsonb_agg(jsonb_build_object('part', part, 'name', name, 'step', step, 'p50', took[1], 'p99', took[2])), '[]') from reached) as reached
      from span`,
  );
  if (row === undefined) throw new Error('history.read: no answer');
  return toHistory(row, { count, partSeconds, milestones });
}

type Ended = Readonly<{ part: number; name: string; status: string; count: number; p50: number; p99: number }>;
type Reached = Readonly<{ part: number; name: string; step: string; p50: number; p99: number }>;
type HistoryRow = Readonly<{ now: Date; beginsAt: Date; started: readonly Readonly<{ part: number; count: number }>[]; ended: readonly Ended[]; reached: readonly Reached[] }>;

function toHistory({ now, beginsAt, started, ended, reached }: HistoryRow, { count, partSeconds, milestones }: { count: number; partSeconds: number; milestones: readonly Milestone[] }): History {
  const places = Array.from({ length: count }, (_, part) => part);
  const completed = ended.filter(({ status }) => status === 'completed');
  const rolledBack = ended.filter(({ status }) => status === 'compensated');
  const names = [...new Set(completed.map(({ name }) => name))].toSorted().slice(0, MOST_NAMES);
  return {
    readAt: now,
    parts: places.map((part) => ({ at: new Date(beginsAt.getTime() + part * partSeconds * 1_000), started: sumOf(started, part), completed: sumOf(completed, part), rolledBack: sumOf(rolledBack, part) })),
    durations: names.map((name) => ({ name, parts: places.map((part) => durationIn(completed.find((row) => row.name === name && row.part === part))) })),
    milestones: milestones
      .map(({ saga, step, label }) => ({ name: saga, label, rows: reached.filter((row) => row.name === saga && row.step === step) }))
      .filter(({ rows }) => rows.length > 0)
      .map(({ name, label, rows }) => ({ name, label, parts: places.map((part) => durationIn(rows.find((row) => row.part === part))) })),
  };
}

function durationIn(row: Pick<Ended, 'p50' | 'p99'> | undefined): Readonly<{ p50: number; p99: number }> | null {
  return row === undefined ? null : { p50: row.p50, p99: row.p99 };
}

function sumOf(rows: readonly Readonly<{ part: number; count: number }>[], part: number): number {
  return rows.filter((row) => row.part === part).reduce((total, row) => total + row.count, 0);
}
