-- Run again: a saga that was rolled back is started anew, once. The new saga names the one that it repeats.
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

-- No foreign key: the saga that is repeated is deleted when its retention is over.
alter table arcadia.sagas add column rerun_of uuid;

-- Pressed twice, the button starts one saga.
create unique index sagas_by_rerun on arcadia.sagas (rerun_of) where rerun_of is not null;
