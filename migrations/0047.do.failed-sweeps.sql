-- Why a surplus droplet is still there although the sweep tried to destroy it, so that somebody is told.
alter table arcadia.cloud_orphans
  -- Since when each try failed; null: none did.
  add column sweep_failing_since timestamptz,
  add column failed_sweeps int not null default 0,
  add column sweep_error text;
