// The droplets of the account as a list for people: filters, search, order, pages, and totals of what the filter finds.
import type { Database, Sql, SqlFragment } from '../platform/db.ts';
import type { SagaStatus } from '../saga/saga.ts';
import type { DropletFilter, DropletState } from './droplet-conditions.ts';
import { isDrifted, isInState, matches, rowsInState, rowsOf, source } from './droplet-conditions.ts';
import { dropletIdSql } from './droplet-of-saga.ts';
import type { OrphanState } from './orphans.ts';
import type { SyncAge } from './syncs.ts';
import { readSyncAge } from './syncs.ts';

export type DropletSort = 'name' | 'address' | 'region' | 'size' | 'price' | 'age' | 'lease';

/** `page`: from 1. */
export type DropletPlace = Readonly<{ sort: DropletSort; isDescending: boolean; page: number; limit: number }>;

/** A saga that works on a droplet, or is stuck with it. */
type SagaAtWork = Readonly<{ id: string; name: string; status: SagaStatus }>;

/** A droplet in the list. */
export type ListedDroplet = Readonly<{
  /** DigitalOcean's id, as text. */
  providerId: string;
  name: string;
  region: string | null;
  sizeSlug: string | null;
  status: string;
  /** Public ones first. */
  addresses: readonly string[];
  /** Null: not known. */
  priceUsdPerHour: number | null;
  createdAt: Date;
  lastSeenAt: Date;
  deletedAt: Date | null;
  /** Complete syncs in a row that did not show it. */
  absences: number;
  isManaged: boolean;
  isProtected: boolean;
  leaseUntil: Date | null;
  leaseExpiredAt: Date | null;
  /** The saga that provisioned or adopted it. */
  sagaId: string | null;
  requestedBy: string | null;
  /** Fields that differ from its spec. */
  drift: readonly string[];
  orphan: OrphanState | null;
  atWork: SagaAtWork | null;
}>;

/** Droplets that exist, and their price. `unpriced`: those whose price is not known; the sum is without them. */
export type Total = Readonly<{ count: number; usdPerHour: number; unpriced: number }>;
export type TotalOf = Total & Readonly<{ value: string | null }>;

export type DropletList = Readonly<{
  /** The database's clock. */
  now: Date;
  droplets: readonly ListedDroplet[];
  /** How many the filter finds, those that are gone too. */
  found: number;
  /**
   * How many each state would find; `gone` is not counted. `surplus`: orphans whose destruction a person may approve.
   * `unexplained`: unknown orphans that nobody acknowledged.
   */
  counts: Readonly<Record<Exclude<DropletState, 'gone'> | 'all' | 'surplus' | 'unexplained', number>>;
  total: Total;
  /** The largest of each, and for tags only those that people chose. */
  byRegion: readonly TotalOf[];
  byTag: readonly TotalOf[];
  byRequester: readonly TotalOf[];
  /** Regions and sizes of all droplets that exist. */
  regions: readonly string[];
  sizes: readonly string[];
  sync: SyncAge;
}>;

const MOST_TOTALS = 20;

/** Reads a page of the list, with its totals. The statements run side by side: a sync may write between them. */
export async function listDroplets(db: Pick<Database, 'run'>, filter: DropletFilter, place: DropletPlace): Promise<DropletList> {
  const totals = filter.state === 'gone' ? countGone(db, filter) : readTotals(db, filter);
  const [known, droplets, offers, sync] = await Promise.all([totals, readPage(db, filter, place), readOffers(db), readSyncAge(db)]);
  return { ...known, ...offers, droplets, sync };
}

type ListedRow = Omit<ListedDroplet, 'atWork'> & Readonly<{ workId: string | null; workName: string; workStatus: SagaStatus }>;

async function readPage(db: Pick<Database, 'run'>, filter: DropletFilter, { sort, isDescending, page, limit }: DropletPlace): Promise<ListedDroplet[]> {
  const direction = (sql: Sql) => (isDescending ? sql`desc` : sql`asc`);
  const rows = await db.run(
    'droplets.page',
    (sql) => sql<ListedRow[]>`
      with page as materialized (
        select resource.id, ${sortKey(sql, sort)} as key
        from ${source(sql, rowsInState(sql, filter.state))}
        where ${matches(sql, filter)} and ${isInState(sql, filter.state)}
        order by key ${direction(sql)} nulls last, resource.name, resource.id limit ${limit} offset ${(page - 1) * limit}
      )
      select resource.provider_id, resource.name, resource.region, resource.size_slug, resource.status, resource.last_seen_at, resource.deleted_at, resource.absences,
             resource.addresses, resource.usd_per_hour as price_usd_per_hour, ${createdOf(sql)} as created_at,
             provisioned.id is not null as is_managed, coalesce(provisioned.protected, false) as is_protected, provisioned.lease_until, provisioned.lease_expired_at,
             provisioned.saga_id, provisioned.requested_by,
             (select coalesce(array_agg(drift.field order by drift.field), '{}') from arcadia.cloud_drift drift where drift.resource_id = resource.id and drift.resolved_at is null) as drift,
             case when orphan.acknowledged_at is null then orphan.category else 'acknowledged' end as orphan, work.id as work_id, work.name as work_name, work.status as work_status
      from page join ${source(sql, sql`arcadia.cloud_resources`)} on resource.id = page.id
      left join lateral (
        select id, name, status from arcadia.sagas
        where ${dropletIdSql(sql)} = resource.provider_id and status in ('pending', 'running', 'compensating', 'stuck')
        order by created_at desc limit 1
      ) as work on true
      order by page.key ${direction(sql)} nulls last, resource.name, resource.id`,
  );
  return rows.map(({ workId, workName, workStatus, ...row }) => ({ ...row, atWork: workId === null ? null : { id: workId, name: workName, status: workStatus } }));
}

type TotalsRow = Pick<DropletList, 'now' | 'found' | 'counts' | 'total' | 'byRegion' | 'byTag' | 'byRequester'>;

/** Counts and totals of what exists, or is missed. One pass over the rows: each one costs as much as all the sums. */
async function readTotals(db: Pick<Database, 'run'>, filter: DropletFilter): Promise<TotalsRow> {
  const [row] = await db.run(
    'droplets.totals',
    (sql) => {
      const summed = sql`jsonb_build_object('count', count(*), 'usdPerHour', coalesce(sum(usd_per_hour), 0), 'unpriced', count(*) filter (where usd_per_hour is null))`;
      const grouped = (column: SqlFragment, rows: SqlFragment) => sql`
        (select coalesce(jsonb_agg(total || jsonb_build_object('value', value) order by (total->>'count')::int desc, value), '[]')
         from (select ${column} as value, ${summed} as total from ${rows} group by 1 order by count(*) desc, 1 limit ${MOST_TOTALS}) as grouped)`;
      return sql<TotalsRow[]>`
        with known as materialized (
          select ${statesOf(sql)}, resource.region, resource.chosen_tags, resource.usd_per_hour, provisioned.requested_by, ${isInState(sql, filter.state)} as is_shown
          from ${source(sql, rowsOf(sql, filter.state))}
          where ${matches(sql, filter)}
        ),
        shown as not materialized (select region, chosen_tags, usd_per_hour, requested_by from known where is_shown and is_present)
        select clock_timestamp() as now,
          (select count(*)::int from known where is_shown) as found,
          ${countsOf(sql)} as counts,
          (select ${summed} from shown) as total,
          ${grouped(sql`region`, sql`shown`)} as by_region,
          ${grouped(sql`tag`, sql`(select unnest(chosen_tags) as tag, usd_per_hour from shown) as tagged`)} as by_tag,
          ${grouped(sql`requested_by`, sql`shown`)} as by_requester`;
    },
  );
  if (row === undefined) throw new Error('droplets.totals: no answer');
  return row;
}

/** How many are gone, and how many each other state would find. What is gone costs nothing. */
async function countGone(db: Pick<Database, 'run'>, filter: DropletFilter): Promise<TotalsRow> {
  const [row] = await db.run(
    'droplets.gone',
    (sql) => sql<Pick<TotalsRow, 'now' | 'found' | 'counts'>[]>`
      with known as materialized (
        select ${statesOf(sql)}
        from ${source(sql, rowsOf(sql, undefined))}
        where ${matches(sql, filter)}
      )
      select clock_timestamp() as now,
        (select count(*)::int from ${source(sql, rowsOf(sql, 'gone'))} where ${matches(sql, filter)}) as found,
        ${countsOf(sql)} as counts`,
  );
  if (row === undefined) throw new Error('droplets.gone: no answer');
  return { ...row, total: { count: 0, usdPerHour: 0, unpriced: 0 }, byRegion: [], byTag: [], byRequester: [] };
}

/** The columns from which the states are counted. */
function statesOf(sql: Sql): SqlFragment {
  return sql`resource.deleted_at is null as is_present, provisioned.id is not null as is_managed, coalesce(provisioned.protected, false) as is_protected,
    provisioned.id is not null and provisioned.lease_until is null as is_unleased, orphan.id is not null as is_orphan, coalesce(orphan.category = 'surplus' and orphan.approved_at is null, false) as is_surplus,
    coalesce(orphan.category = 'unknown' and orphan.acknowledged_at is null, false) as is_unexplained, ${isDrifted(sql)} as is_drifted`;
}

/** Of the rows of `known`. */
function countsOf(sql: Sql): SqlFragment {
  return sql`(select jsonb_build_object(
     'all', count(*), 'managed', count(*) filter (where is_managed and is_present), 'drifted', count(*) filter (where is_drifted),
     'orphan', count(*) filter (where is_orphan and is_present), 'surplus', count(*) filter (where is_surplus and is_present), 'unexplained', count(*) filter (where is_unexplained and is_present), 'unleased', count(*) filter (where is_unleased and is_present),
     'protected', count(*) filter (where is_protected and is_present), 'foreign', count(*) filter (where not is_managed and not is_orphan and is_present)
   ) from known)`;
}

async function readOffers(db: Pick<Database, 'run'>): Promise<Pick<DropletList, 'regions' | 'sizes'>> {
  const [row] = await db.run(
    'droplets.offers',
    (sql) => sql<{ regions: string[]; sizes: string[] }[]>`
      with offer as (select distinct region, size_slug from arcadia.cloud_resources where deleted_at is null)
      select coalesce(array_agg(distinct region order by region) filter (where region is not null), '{}') as regions,
             coalesce(array_agg(distinct size_slug order by size_slug) filter (where size_slug is not null), '{}') as sizes
      from offer`,
  );
  return row ?? { regions: [], sizes: [] };
}

function sortKey(sql: Sql, sort: DropletSort): SqlFragment {
  switch (sort) {
    case 'name':
      return sql`resource.name`;
    case 'address':
      return sql`resource.first_ipv4`;
    case 'region':
      return sql`resource.region`;
    case 'size':
      return sql`resource.size_slug`;
    case 'price':
      return sql`resource.usd_per_hour`;
    case 'age':
      // The oldest has the greatest age.
      return sql`extract(epoch from clock_timestamp() - ${createdOf(sql)})`;
    case 'lease':
      return sql`provisioned.lease_until`;
    default:
      return sort satisfies never;
  }
}

/** By DigitalOcean's clock; else when it was first seen. */
export function createdOf(sql: Sql): SqlFragment {
  return sql`coalesce((resource.attrs->>'do_created_at')::timestamptz, resource.first_seen_at)`;
}
