-- What the list of droplets sorts by, searches and counts, as columns: it did so with 10,000 droplets for each page, out of their JSON.
-- No other table has columns of these names, which statements of older versions could mean. Adding them writes the table anew, so the
-- lock is waited for in short turns.
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

-- The tags that people chose: all but those that src/steps/tags.ts reserves.
create function arcadia.chosen_tags_of(tags text[]) returns text[]
  language plpgsql immutable parallel safe
  set search_path = pg_catalog, pg_temp
as $$
declare
  chosen text[] := '{}';
  tag text;
  folded text;
begin
  foreach tag in array tags loop
    folded := lower(tag);
    if not (starts_with(folded, 'arcadia-saga-') or starts_with(folded, 'arcadia-wave-') or starts_with(folded, 'arcadia-adopted-') or folded = 'managed-by-arcadia-cloud') then
      chosen := chosen || tag;
    end if;
  end loop;
  return chosen;
end;
$$;

alter table arcadia.cloud_resources
  add column chosen_tags text[] generated always as (arcadia.chosen_tags_of(tags)) stored,
  -- An array of texts: public ones first, and of these IPv4 first.
  add column addresses jsonb generated always as (
    jsonb_path_query_array(attrs, '$.networks.v4[*] ? (@.type == "public").ip_address ? (@.type() == "string")')
    || jsonb_path_query_array(attrs, '$.networks.v6[*] ? (@.type == "public").ip_address ? (@.type() == "string")')
    || jsonb_path_query_array(attrs, '$.networks.v4[*] ? (!(@.type == "public")).ip_address ? (@.type() == "string")')
    || jsonb_path_query_array(attrs, '$.networks.v6[*] ? (!(@.type == "public")).ip_address ? (@.type() == "string")')
  ) stored,
  -- The first IPv4 address as numbers, so that 9.0.0.1 comes before 10.0.0.1.
  add column first_ipv4 int[] generated always as (
    string_to_array(coalesce(
      jsonb_path_query_first(attrs, '$.networks.v4[*] ? (@.type == "public").ip_address ? (@ like_regex "^[0-9]{1,3}([.][0-9]{1,3}){3}$")'),
      jsonb_path_query_first(attrs, '$.networks.v4[*].ip_address ? (@ like_regex "^[0-9]{1,3}([.][0-9]{1,3}){3}$")')
    ) #>> '{}', '.')::int[]
  ) stored;
