-- The fields of a saga's input that its definition names as secret. user_data is one in every saga.
alter table arcadia.saga_definitions add column secrets text[] not null default '{}';

-- The input of a saga that goes forward no more, where its secrets were never sealed.
create function arcadia.without_secrets(saga_name text, given jsonb)
  returns jsonb
  language sql
  stable
  -- Whoever moves a saga need not read the definitions.
  security definer
  set search_path = pg_catalog, pg_temp
as $$
  select coalesce(jsonb_object_agg(entry.key,
    case when entry.key = any(secret.names) and jsonb_typeof(entry.value) <> 'null'
      then to_jsonb(format('[erased, %s bytes]', octet_length(entry.value #>> '{}'))) else entry.value end), '{}')
  from jsonb_each(given) as entry
    cross join (select array['user_data'] || coalesce((select d.secrets from arcadia.saga_definitions d where d.name = saga_name), '{}') as names) as secret
$$;

-- As before, but for secrets beside user_data.
create or replace function arcadia.start_saga(name text, input jsonb, idempotency_key text default null, requested_by text default null)
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
  requester text := coalesce(start_saga.requested_by, starter);
  problems text[] := '{}';
  saga_steps text[];
  saga_secrets text[];
  new_id uuid;
  inserted uuid;
  existing record;
begin
  select d.steps, array['user_data'] || d.secrets into saga_steps, saga_secrets from arcadia.saga_definitions d where d.name = start_saga.name;
  if saga_steps is null then
    raise exception using
      errcode = 'SG404',
      message = format('name: no saga is called %s; expected one of %s', coalesce(to_json(start_saga.name)::text, 'null'),
        (select coalesce(string_agg(d.name, ', ' order by d.name), 'none') from arcadia.saga_definitions d)),
      hint = 'A new saga is known to SQL once `arcadia migrate` of its version was run.';
  end if;
  if start_saga.input is null or jsonb_typeof(start_saga.input) <> 'object' then
    problems := problems || format('input: expected an object with the fields of the saga, found %s', coalesce(jsonb_typeof(start_saga.input), 'null'));
  elsif octet_length(start_saga.input::text) > max_input_bytes then
    problems := problems || format('input: expected at most %s bytes', max_input_bytes);
  end if;
  if length(start_saga.idempotency_key) not between 1 and max_text_length then
    problems := problems || format('idempotency_key: expected 1 to %s characters', max_text_length);
  end if;
  if length(start_saga.requested_by) > max_text_length then
    problems := problems || format('requested_by: expected at most %s characters', max_text_length);
  end if;
  if cardinality(problems) > 0 then
    raise exception using errcode = 'SG400', message = array_to_string(problems, '; ');
  end if;

  -- Another saga may have the same first 8 characters: once in some billions of pairs, so five times in a row is a bug.
  for attempt in 1..5 loop
    new_id := gen_random_uuid();
    insert into arcadia.sagas (id, saga8, name, status, steps, input, input_checked, idempotency_key, requested_by, started_by, wake_at)
    values (new_id, left(new_id::text, 8), start_saga.name, 'pending', saga_steps, start_saga.input, false,
      start_saga.idempotency_key, requester, starter, clock_timestamp())
    on conflict do nothing
    returning id into inserted;
    if inserted is not null then
      insert into arcadia.saga_events (saga_id, seq, kind, detail)
      values (new_id, 0, 'saga_created', jsonb_build_object('status', 'pending', 'requestedBy', requester, 'startedBy', starter));
      insert into arcadia.audit (actor, action, saga_id, detail)
      values (requester, 'saga_created', new_id, jsonb_build_object('name', start_saga.name, 'startedBy', starter));
      -- Heard when the transaction commits. Whoever does not hear it finds the saga overdue a little later.
      perform pg_notify('arcadia_sagas', new_id::text);
      return new_id;
    end if;
    -- Secrets are sealed once a worker has taken the saga, and SQL has no key: then their lengths have to tell. To anybody but
    -- who started the saga, nothing is told of them: whoever tries values would learn which one is right.
    select s.id,
      s.name = start_saga.name
        and s.input - saga_secrets = start_saga.input - saga_secrets
        and not exists (
          select from unnest(saga_secrets) as field
          where not case when s.started_by = starter
            then s.input->>field is not distinct from start_saga.input->>field
              or coalesce(s.input->>field in (
                format('[sealed, %s bytes]', octet_length(start_saga.input->>field)),
                format('[erased, %s bytes]', octet_length(start_saga.input->>field))), false)
            else (s.input ? field) = (start_saga.input ? field) end
        ) as is_same,
      coalesce(s.started_by, s.requested_by) = starter or has_table_privilege(session_user, 'arcadia.sagas', 'select') as may_know
    into existing
    from arcadia.sagas s where s.idempotency_key = start_saga.idempotency_key;
    if existing.id is not null then
      if existing.is_same then return existing.id; end if;
      if existing.may_know is not true then
        raise exception using
          errcode = 'SG409',
          message = format('idempotency_key: %s is taken; use a new key for a new request', to_json(start_saga.idempotency_key)::text);
      end if;
      raise exception using
        errcode = 'SG409',
        message = format('idempotency_key: %s was used before with another input, by saga %s; use a new key for a new request',
          to_json(start_saga.idempotency_key)::text, existing.id),
        detail = format('saga %s', existing.id);
    end if;
  end loop;
  raise exception 'no free saga id in 5 attempts';
end;
$$;
