-- The resource that a saga holds: no other saga runs a step on it until this one is at rest. Whoever takes it after that
-- clears it here.
alter table arcadia.sagas add column resource text;
create unique index sagas_by_resource on arcadia.sagas (resource) where resource is not null;

-- The saga that it waits for, because that one holds its resource. For people to read; means nothing once it is at rest.
alter table arcadia.sagas add column waits_for uuid;
