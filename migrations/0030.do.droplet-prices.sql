-- The price of a droplet as a column: the list of droplets sums ten thousand of them for each page. It counts for the size that the
-- droplet has. No other table has a column of that name, which statements of older versions could mean. Adding it writes the table anew, so the lock is waited for in short turns.
do $$
begin
  perform set_config('lock_timeout', '500ms', true);
  loop
    begin
      lock table arcadia.cloud_resources in access exclusive mode;
      exit;
    exception when lock_not_available or deadlock_detected then
      perform pg_sleep(0.05);
    end;
  end loop;
  perform set_config('lock_timeout', '0', true);
end $$;

alter table arcadia.cloud_resources add column usd_per_hour float8 generated always as (
  case when attrs->'price'->>'size' = size_slug and jsonb_typeof(attrs->'price'->'usd_per_hour') = 'number' then (attrs->'price'->>'usd_per_hour')::float8 end
) stored;

-- Those that are gone, in the order of the list.
create index cloud_resources_gone on arcadia.cloud_resources (name, id) where deleted_at is not null;

-- Those that are present, about in the order in which they lie on disk: so reading them all does not read all that are gone too.
create index cloud_resources_present_by_age on arcadia.cloud_resources (first_seen_at) where deleted_at is null;
