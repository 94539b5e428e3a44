-- Functions look for names where their authors did, whatever search_path their callers have: those that have no search_path yet.
do $$
declare
  one regprocedure;
begin
  for one in
    select p.oid::regprocedure from pg_catalog.pg_proc p
    where p.pronamespace = 'arcadia'::regnamespace and p.prokind = 'f'
      and not exists (select from unnest(p.proconfig) as setting where starts_with(setting, 'search_path='))
  loop
    execute format('alter function %s set search_path = pg_catalog, pg_temp', one);
  end loop;
end $$;
