-- DigitalOcean keeps the spelling in which a tag was first used, whatever a caller asks for: searches compare tags without case.
do $$
begin
  -- Nobody waits behind this for longer than half a second.
  perform set_config('lock_timeout', '500ms', true);
  loop
    begin
      lock table arcadia.sagas in access exclusive mode;
      exit;
    exception when lock_not_available or deadlock_detected then
      perform pg_sleep(0.05);
    end;
  end loop;
  perform set_config('lock_timeout', '0', true);
end $$;

drop index arcadia.sagas_by_tag;
-- Tags are ASCII. "C" folds no other letters, and does so alike under every locale.
create index sagas_by_tag on arcadia.sagas using gin ((lower((input->'tags')::text collate "C")::jsonb) jsonb_path_ops) where input ? 'tags';
