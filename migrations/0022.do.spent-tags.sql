-- Tags that a saga put on its droplet, and that nothing needs any more: its droplet is gone, or it was rolled back. They are
-- deleted by the sync of the inventory, a few at a time.
do $$
begin
  perform set_config('lock_timeout', '500ms', true);
  loop
    begin
      lock table arcadia.sagas in share row exclusive mode;
      lock table arcadia.cloud_resources in share row exclusive mode;
      exit;
    exception when lock_not_available or deadlock_detected then
      perform pg_sleep(0.05);
    end;
  end loop;
  perform set_config('lock_timeout', '0', true);
end $$;

create table arcadia.spent_tags (
  -- No foreign key: tags may outlive their saga.
  saga_id uuid primary key,
  -- The tag of the wave in which its droplet was asked for, where that is known.
  wave    text,
  -- The tags are looked at a grace period after this.
  since   timestamptz not null default clock_timestamp()
);

create index spent_tags_since on arcadia.spent_tags (since);

-- From when on the grace period of a rolled-back saga counts. A create without an answer, of which no droplet was seen, may
-- have made one that no list shows for hours: for a day, its tags prove whose it is.
create function arcadia.tags_spent_since(context jsonb) returns timestamptz
  language sql
  volatile
  set search_path = pg_catalog, pg_temp
as $$
  select clock_timestamp() + case
    when coalesce((context->>'create_intents')::int, 0) > coalesce((context->>'create_refusals')::int, 0) + case when context ? 'droplet_id' then 1 else 0 end then interval '24 hours'
    else interval '0'
  end;
$$;

-- A saga was rolled back that may have asked for a droplet. One whose creates were all refused has put a tag on nothing.
create function arcadia.spend_tags_of_saga() returns trigger
  language plpgsql
  -- Whoever moves a saga need not write this table.
  security definer
  set search_path = pg_catalog, pg_temp
as $$
begin
  if new.context->'create_refusals' is distinct from new.context->'create_intents' then
    insert into arcadia.spent_tags (saga_id, wave, since) values (new.id, new.context->>'droplet_wave', arcadia.tags_spent_since(new.context))
    on conflict (saga_id) do update set since = greatest(spent_tags.since, excluded.since);
  end if;
  return null;
end;
$$;

create trigger spend_tags after update of status on arcadia.sagas
  for each row when (new.status = 'compensated' and old.status <> 'compensated' and new.context ? 'create_intents')
  execute function arcadia.spend_tags_of_saga();

-- A droplet is gone: on record as provisioned by a saga, or with the full id of one of our sagas on it.
create function arcadia.spend_tags_of_resource() returns trigger
  language plpgsql
  security definer
  set search_path = pg_catalog, pg_temp
as $$
begin
  insert into arcadia.spent_tags (saga_id, wave)
  select known.id, (select tag from unnest(new.tags) as tag where tag ~ '^arcadia-wave-[0-9]{1,4}$' limit 1)
  from (
    select p.saga_id as id from arcadia.cloud_provisioned p where p.resource_id = new.id
    union
    select substring(tag from 17)::uuid from unnest(new.tags) as tag where tag ~ '^arcadia-saga-id-[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$'
  ) as known
  -- Another environment's sagas are in its own database.
  where exists (select from arcadia.sagas where id = known.id) or exists (select from arcadia.saga_tombstones where saga_id = known.id)
  on conflict (saga_id) do update set since = greatest(spent_tags.since, excluded.since), wave = coalesce(excluded.wave, spent_tags.wave);
  return null;
end;
$$;

create trigger spend_tags after update of deleted_at on arcadia.cloud_resources
  for each row when (old.deleted_at is null and new.deleted_at is not null)
  execute function arcadia.spend_tags_of_resource();

-- What was left so far.
insert into arcadia.spent_tags (saga_id, wave, since)
select id, context->>'droplet_wave', arcadia.tags_spent_since(context) from arcadia.sagas
where status = 'compensated' and context ? 'create_intents' and context->'create_refusals' is distinct from context->'create_intents'
union all
select s.id, s.context->>'droplet_wave', clock_timestamp() from arcadia.sagas s
where s.status = 'completed' and s.context ? 'create_intents'
  and exists (
    select from arcadia.cloud_provisioned p join arcadia.cloud_resources r on r.id = p.resource_id where p.saga_id = s.id and r.deleted_at is not null
  )
union all
select b.saga_id, null, clock_timestamp() from arcadia.saga_tombstones b
where b.status in ('completed', 'compensated') and b.name = 'provision_droplet'
  and not exists (
    select from arcadia.cloud_provisioned p join arcadia.cloud_resources r on r.id = p.resource_id where p.saga_id = b.saga_id and r.deleted_at is null
  )
on conflict do nothing;
