-- The input as it was given, where the saga's schema changes it, such as by a default: secrets are marked as in `input`. Null: the
-- schema changed nothing, or an older version wrote the row. A repeated call finds its saga by what was given.
alter table arcadia.sagas add column given_input jsonb;

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
  saga_steps text[];
  saga_secrets text[];
  new_id uuid;
  inserted uuid;
  existing record;
begin
  select d.steps, array['user_data'] || d.secrets into saga_steps, saga_secrets from arcadia.saga_definitions d where d.name = start_saga_with_priority.name;
  if saga_steps is null then
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
    -- Secrets are sealed once a worker has taken the saga, and SQL has no key: then their lengths have to tell. To anybody but
    -- who started the saga, nothing is told of them: whoever tries values would learn which one is right.
    select s.id,
      s.name = start_saga_with_priority.name
        and exists (
          -- As it was given, or as the schema made it: each is the same request.
          select from unnest(array[s.input, s.given_input]) as known (input)
          where known.input - saga_secrets = start_saga_with_priority.input - saga_secrets
            and not exists (
              select from unnest(saga_secrets) as field
              where not case when s.started_by = starter
                then known.input->>field is not distinct from start_saga_with_priority.input->>field
                  or coalesce(known.input->>field in (
                    format('[sealed, %s bytes]', octet_length(start_saga_with_priority.input->>field)),
                    format('[erased, %s bytes]', octet_length(start_saga_with_priority.input->>field))), false)
                else (known.input ? field) = (start_saga_with_priority.input ? field) end
            )
        ) as is_same,
      coalesce(s.started_by, s.requested_by) = starter or has_table_privilege(session_user, 'arcadia.sagas', 'select') as may_know
    into existing
    from arcadia.sagas s where s.idempotency_key = start_saga_with_priority.idempotency_key;
    if existing.id is not null then
      if existing.is_same then return existing.id; end if;
      if existing.may_know is not true then
        raise exception using
          errcode = 'SG409',
          message = format('idempotency_key: %s is taken; use a new key for a new request', to_json(start_saga_with_priority.idempotency_key)::text);
      end if;
      raise exception using
        errcode = 'SG409',
        message = format('idempotency_key: %s was used before with another input, by saga %s; use a new key for a new request',
          to_json(start_saga_with_priority.idempotency_key)::text, existing.id),
        detail = format('saga %s', existing.id);
    end if;
  end loop;
  raise exception 'no free saga id in 5 attempts';
end;
$$;
