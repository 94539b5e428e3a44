// Shared observations in Postgres, for installations without Redis. Looking up an observation writes nothing; reading a
// list causes one write.

import type { Database } from '../platform/db.ts';
import type { SharedObservations, Wanted } from './observation-store.ts';
import { lookedForMs } from './observation-store.ts';

type Wave = { pages: number; inFlight: number; listedAgeMs: number };

/** Opens the observations of one token's droplets. */
export function createPostgresObservations(db: Pick<Database, 'sql'>, scope: string): SharedObservations {
  // The last list of a wave tells how many of its droplets are being waited for. Before the first list, this process's
  // own lookups tell.
  const lookedFor = new Map<string, Map<number, number>>();
  const countLookedFor = (wave: string, ids: readonly number[], withinMs: number): number => {
    const now = performance.now();
    const known = lookedFor.get(wave) ?? new Map<number, number>();
    for (const id of ids) known.set(id, now);
    for (const [id, at] of known) if (at < now - withinMs) known.delete(id);
    lookedFor.set(wave, known);
    for (const [name, droplets] of lookedFor) if ([...droplets.values()].every((at) => at < now - withinMs)) lookedFor.delete(name);
    return known.size;
  };

  return {
    observe: async (wave, wanted, { intervalMs, leaseMs, holder }) => {
      const ids = wanted.map(({ dropletId }) => dropletId);
      const rows = await db.sql<{ nowMs: number; dropletId: string | null; ageMs: number | null; sealed: string | null }[]>`
        select extract(epoch from clock.now)::double precision * 1000 as now_ms, droplet_id,
               extract(epoch from clock.now - observed_at)::double precision * 1000 as age_ms, droplet->>'sealed' as sealed
        from (select clock_timestamp() as now) as clock left join arcadia.droplet_observations
        on scope = ${scope} and droplet_id in (select value::bigint from jsonb_array_elements_text(${JSON.stringify(ids)}::text::jsonb))`;
      const nowMs = rows[0]?.nowMs ?? 0;
      const found = new Map(rows.flatMap(({ dropletId, ageMs, sealed }) => (dropletId === null || ageMs === null || sealed === null ? [] : [[Number(dropletId), { ageMs, sealed }] as const])));
      const isFresh = ({ dropletId, maxAgeMs }: Wanted) => {
        const ageMs = found.get(dropletId)?.ageMs;
        return ageMs !== undefined && ageMs >= 0 && ageMs <= maxAgeMs;
      };
      const seen = new Map([...found].map(([dropletId, { sealed }]) => [dropletId, sealed]));
      const missing = wanted.filter((one) => !isFresh(one));
      if (wave === null || missing.length === 0) return { way: 'single', nowMs, seen };

      const ours = countLookedFor(wave, ids, lookedForMs(intervalMs));
      const [known] = await db.sql<Wave[]>`
        select pages, in_flight, extract(epoch from clock_timestamp() - listed_at)::double precision * 1000 as listed_age_ms
        from arcadia.droplet_waves where scope = ${scope} and wave = ${wave} and listed_at > '-infinity'`;
      const isListed = known !== undefined && known.listedAgeMs >= 0 && known.listedAgeMs <= Math.min(...wanted.map(({ maxAgeMs }) => maxAgeMs));
      if (isListed || Math.max(ours, known?.inFlight ?? 0) <= (known?.pages ?? 1)) return { way: 'single', nowMs, seen };
      const leased = await db.sql`
        insert into arcadia.droplet_waves as wave (scope, wave, leased_by, leased_until)
        values (${scope}, ${wave}, ${holder}, clock_timestamp() + ${leaseMs}::double precision * interval '1 millisecond')
        on conflict (scope, wave) do update set leased_by = excluded.leased_by, leased_until = excluded.leased_until
        where wave.leased_until < clock_timestamp()
        returning 1`;
      return { way: leased.length === 1 ? 'list' : 'busy', nowMs, seen };
    },
    save: async (wave, entries, { tookMs, keepMs, list }) => {
      if (wave !== null) for (const { id, status } of entries) if (status === 'active') lookedFor.get(wave)?.delete(id);
      await db.sql`
        with gone as (
          delete from arcadia.droplet_observations where observed_at < clock_timestamp() - ${keepMs}::double precision * interval '1 millisecond'
        )
        insert into arcadia.droplet_observations as seen (scope, droplet_id, observed_at, droplet)
        select ${scope}, (droplet ->> 'id')::bigint, clock_timestamp() - ${tookMs}::double precision * interval '1 millisecond', droplet
        from jsonb_array_elements(${JSON.stringify(entries)}::text::jsonb) as droplet
        order by 2
        on conflict (scope, droplet_id) do update set observed_at = excluded.observed_at, droplet = excluded.droplet
        where seen.observed_at < excluded.observed_at or seen.observed_at > clock_timestamp()`;
      if (list === null) return;
      const inFlight = entries.filter(({ status }) => status !== 'active').length;
      await db.sql`
        update arcadia.droplet_waves set
          pages = case when ${list.pages} > 0 then ${list.pages} else pages end,
          in_flight = case when ${list.pages} > 0 then ${inFlight}::int else in_flight end,
          listed_at = case when ${list.pages} > 0 then clock_timestamp() - ${tookMs}::double precision * interval '1 millisecond' else listed_at end,
          leased_until = '-infinity'
        where scope = ${scope} and wave = ${wave} and leased_by = ${list.holder}`;
    },
  };
}
