-- Both tables at once, before anything else is held: workers lock them in either order. Whoever waits for one gives up the
-- other soon, and tries again; none is kept waiting for longer.
do $$
begin
  perform set_config('lock_timeout', '500ms', true);
  loop
    begin
      lock table arcadia.sagas in access exclusive mode;
      lock table arcadia.saga_events in access exclusive mode;
      exit;
    exception when lock_not_available or deadlock_detected then
      perform pg_sleep(0.05);
    end;
  end loop;
  perform set_config('lock_timeout', '0', true);
end $$;

-- From its start to the step before its last, a saga's row changes nothing that an index names but, where steps have
-- outputs, its context (sagas_by_droplet): its status stands in none.
-- What a status means for the times does: unfinished ones have a wake_at (sagas_due), stuck ones have neither that nor an
-- end, and those that were rolled back ended with an error. Completed ones are most of the newest.
create index sagas_stuck on arcadia.sagas (created_at desc, id) where wake_at is null and finished_at is null;
create index sagas_compensated on arcadia.sagas (created_at desc, id) where finished_at is not null and error is not null;
drop index arcadia.sagas_by_status;

-- Sagas without tags are nothing to look for by them.
drop index arcadia.sagas_by_tag;
create index sagas_by_tag on arcadia.sagas using gin ((input->'tags') jsonb_path_ops) where input ? 'tags';

-- An event is only ever inserted by the statement that moves its saga: to ask for the saga once more costs each of them a
-- look. What the foreign key did besides, a trigger does: the events go with their saga.
alter table arcadia.saga_events drop constraint saga_events_saga_id_fkey;
create function arcadia.bury_events() returns trigger language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
  delete from arcadia.saga_events where saga_id in (select id from gone);
  return null;
end $$;
create trigger bury_events after delete on arcadia.sagas referencing old table as gone for each statement execute function arcadia.bury_events();
