-- What ended long ago is deleted by one worker of the fleet at a time: whose turn it is stands in the only row of this table.
create table arcadia.retention (
  is_only     boolean primary key default true check (is_only),
  -- One pass of one worker, which says with each batch that it is still at it; past this moment it has given up its turn.
  leased_by   uuid,
  lease_until timestamptz not null,
  -- When a pass last came to its end.
  finished_at timestamptz not null default '-infinity'
);

create index cloud_resources_deleted on arcadia.cloud_resources (deleted_at) where deleted_at is not null;
