-- The list of droplets: who requested each droplet stands beside it, so that the list need not read ten thousand sagas to count by
-- requester. And indexes for what is present, and for what was found about one droplet.
do $$
begin
  perform set_config('lock_timeout', '500ms', true);
  loop
    begin
      lock table arcadia.cloud_provisioned in access exclusive mode;
      exit;
    exception when lock_not_available or deadlock_detected then
      perform pg_sleep(0.05);
    end;
  end loop;
  perform set_config('lock_timeout', '0', true);
end $$;

-- Null: its saga is on record nowhere.
alter table arcadia.cloud_provisioned add column requested_by text;

update arcadia.cloud_provisioned p set requested_by = s.requested_by from arcadia.sagas s where s.id = p.saga_id;

-- A trigger, so that it is written whatever version the worker has.
create function arcadia.note_requester() returns trigger
  language plpgsql
  security definer
  set search_path = pg_catalog, pg_temp
as $$
begin
  select s.requested_by into new.requested_by from arcadia.sagas s where s.id = new.saga_id;
  return new;
end;
$$;

create trigger note_requester before insert on arcadia.cloud_provisioned for each row execute function arcadia.note_requester();

create index cloud_resources_present on arcadia.cloud_resources (name, id) include (region, size_slug) where deleted_at is null;
create index cloud_drift_by_resource on arcadia.cloud_drift (resource_id, id);
create index cloud_orphans_by_resource on arcadia.cloud_orphans (resource_id, id);
