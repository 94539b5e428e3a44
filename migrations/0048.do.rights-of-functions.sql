-- Functions are for those who call them: Postgres lets everybody call a new one, and several of ours answer with their owner's rights.
do $$
declare
  one record;
  writer name;
begin
  for one in
    select p.oid::regprocedure as signature, p.prorettype = 'trigger'::regtype as is_trigger
    from pg_proc p
    where p.pronamespace = 'arcadia'::regnamespace
      and exists (select from aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) as acl where acl.grantee = 0)
  loop
    execute format('revoke all on function %s from public', one.signature);
    -- Nobody needs a right for a trigger to fire.
    continue when one.is_trigger;
    -- Processes that run meanwhile call on. Whoever writes our tables may as well call what writes them; ops/roles.sql is stricter.
    for writer in
      select distinct role.rolname
      from (
        select class.relowner as owner, class.relacl as acl from pg_class class where class.relnamespace = 'arcadia'::regnamespace
        union all
        select class.relowner, attribute.attacl from pg_class class join pg_attribute attribute on attribute.attrelid = class.oid
        where class.relnamespace = 'arcadia'::regnamespace
      ) as ours
        cross join aclexplode(ours.acl) as granted
        join pg_roles role on role.oid = granted.grantee
      where granted.privilege_type in ('INSERT', 'UPDATE', 'DELETE') and granted.grantee <> ours.owner
      union
      select rolname from pg_roles where rolname = 'pg_write_all_data'
    loop
      execute format('grant execute on function %s to %I', one.signature, writer);
    end loop;
  end loop;
end $$;

-- As before, but what is said of a mark is true of every field, also of one that is no secret.
create or replace function arcadia.start_saga_with_priority(name text, input jsonb, priority text, idempotency_key text default null, requested_by text default null)
  returns uuid
  language plpgsql
  security definer
  -- Runs with its owner's rights: a caller's search_path must not choose which functions and operators it uses.
  set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
  max_input_bytes constant int := 524288;
  max_text_length constant int := 255;
  -- Who calls, as far as it is proven; and who that is said to be for.
  starter text := 'sql:' || session_user;
  requester text := coalesce(start_saga_with_priority.requested_by, starter);
  problems text[] := '{}';
  marks text;
  saga_steps text[];
  new_id uuid;
  inserted uuid;
  repeated uuid;
begin
  select d.steps into saga_steps from arcadia.saga_definitions d where d.name = start_saga_with_priority.name;
  if saga_steps is null then
    if jsonb_typeof(start_saga_with_priority.input) = 'object' then
      repeated := arcadia.find_repeated(start_saga_with_priority.name, start_saga_with_priority.input, start_saga_with_priority.idempotency_key, starter);
    end if;
    if repeated is not null then return repeated; end if;
    raise exception using
      errcode = 'SG404',
      message = format('name: no saga is called %s; expected one of %s', coalesce(to_json(start_saga_with_priority.name)::text, 'null'),
        (select coalesce(string_agg(d.name, ', ' order by d.name), 'none') from arcadia.saga_definitions d)),
      hint = 'A new saga is known to SQL once `arcadia migrate` of its version was run.';
  end if;
  if start_saga_with_priority.input is null or jsonb_typeof(start_saga_with_priority.input) <> 'object' then
    problems := problems || format('input: expected an object with the fields of the saga, found %s', coalesce(jsonb_typeof(start_saga_with_priority.input), 'null'));
  elsif octet_length(start_saga_with_priority.input::text) > max_input_bytes then
    problems := problems || format('input: expected at most %s bytes', max_input_bytes);
  end if;
  if length(start_saga_with_priority.idempotency_key) not between 1 and max_text_length then
    problems := problems || format('idempotency_key: expected 1 to %s characters', max_text_length);
  end if;
  if length(start_saga_with_priority.requested_by) > max_text_length then
    problems := problems || format('requested_by: expected at most %s characters', max_text_length);
  end if;
  if start_saga_with_priority.priority is null or start_saga_with_priority.priority not in ('high', 'normal', 'low') then
    problems := problems || 'priority: expected high, normal or low'::text;
  end if;
  if cardinality(problems) > 0 then
    raise exception using errcode = 'SG400', message = array_to_string(problems, '; ');
  end if;

  select string_agg(format('%s: looks like the mark that stands in the place of a secret; expected the value itself', entry.key), '; ' order by entry.key)
  into marks from jsonb_each(start_saga_with_priority.input) as entry
  where jsonb_typeof(entry.value) = 'string' and arcadia.is_secret_mark(entry.value #>> '{}');
  if marks is not null then
    repeated := arcadia.find_repeated(start_saga_with_priority.name, start_saga_with_priority.input, start_saga_with_priority.idempotency_key, starter);
    if repeated is not null then return repeated; end if;
    raise exception using errcode = 'SG400', message = marks;
  end if;

  -- To see early what the step that destroys would refuse in the end. A call that is repeated finds its saga all the same.
  if start_saga_with_priority.name = 'destroy_droplet' and start_saga_with_priority.input->>'droplet_id' ~ '^[0-9]{1,18}$'
    and arcadia.is_protected((start_saga_with_priority.input->>'droplet_id')::bigint)
    and not exists (select from arcadia.sagas s where s.idempotency_key = start_saga_with_priority.idempotency_key) then
    raise exception using
      errcode = 'SG423',
      message = format('droplet %s is protected, so it is not destroyed', start_saga_with_priority.input->>'droplet_id'),
      hint = format('Lift the protection first: select arcadia.set_protection(%s, false)', start_saga_with_priority.input->>'droplet_id');
  end if;

  -- Another saga may have the same first 8 characters: once in some billions of pairs, so five times in a row is a bug.
  for attempt in 1..5 loop
    new_id := gen_random_uuid();
    insert into arcadia.sagas (id, saga8, name, status, steps, input, input_checked, idempotency_key, requested_by, started_by, priority, wake_at)
    values (new_id, left(new_id::text, 8), start_saga_with_priority.name, 'pending', saga_steps, start_saga_with_priority.input, false,
      start_saga_with_priority.idempotency_key, requester, starter, start_saga_with_priority.priority, clock_timestamp())
    on conflict do nothing
    returning id into inserted;
    if inserted is not null then
      insert into arcadia.saga_events (saga_id, seq, kind, detail)
      values (new_id, 0, 'saga_created', jsonb_build_object('status', 'pending', 'requestedBy', requester, 'startedBy', starter));
      insert into arcadia.audit (actor, action, saga_id, detail)
      values (requester, 'saga_created', new_id, jsonb_build_object('name', start_saga_with_priority.name, 'startedBy', starter));
      -- Heard when the transaction commits. Whoever does not hear it finds the saga overdue a little later.
      perform pg_notify('arcadia_sagas', new_id::text);
      return new_id;
    end if;
    repeated := arcadia.find_repeated(start_saga_with_priority.name, start_saga_with_priority.input, start_saga_with_priority.idempotency_key, starter);
    if repeated is not null then return repeated; end if;
  end loop;
  raise exception 'no free saga id in 5 attempts';
end;
$$;
