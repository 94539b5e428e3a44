-- Protection: a protected droplet is not destroyed until somebody lifts its protection.
alter table arcadia.cloud_provisioned add column protected boolean not null default false;

-- Whether a droplet is protected. A droplet that was destroyed on request, or given up, is not.
create function arcadia.is_protected(droplet_id bigint)
  returns boolean
  language sql
  stable
  -- Clients that may start a saga need not read the inventory.
  security definer
  set search_path = pg_catalog, pg_temp
as $$
  select exists (
    select from arcadia.cloud_resources r join arcadia.cloud_provisioned p on p.resource_id = r.id
    where r.provider = 'digitalocean' and r.kind = 'droplet' and r.provider_id = is_protected.droplet_id::text
      and p.protected and p.released_at is null
  )
$$;

-- Protects a droplet, or lifts its protection, in the caller's transaction. Returns whether that changed anything. Audited.
--
-- Errors: SG404 no such droplet is on record, SG423 the droplet is being destroyed, so protection would come too late.
create function arcadia.set_protection(droplet_id bigint, protected boolean, requested_by text default null)
  returns boolean
  language plpgsql
  security definer
  set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
  provision record;
  destroyer uuid;
begin
  if set_protection.droplet_id is null or set_protection.protected is null or length(set_protection.requested_by) > 255 then
    raise exception using errcode = 'SG400', message = 'expected a droplet_id, protected as true or false, and requested_by of at most 255 characters';
  end if;
  -- The step that destroys locks this row too: whoever has it first wins.
  select p.id, p.protected as was, p.saga_id into provision
  from arcadia.cloud_provisioned p join arcadia.cloud_resources r on r.id = p.resource_id
  where r.provider = 'digitalocean' and r.kind = 'droplet' and r.provider_id = set_protection.droplet_id::text and p.released_at is null
  for no key update of p;
  if provision.id is null then
    raise exception using errcode = 'SG404', message = format('no droplet %s is on record as provisioned here, or it is destroyed', set_protection.droplet_id);
  end if;
  if provision.was = set_protection.protected then
    return false;
  end if;
  if set_protection.protected then
    select s.id into destroyer from arcadia.sagas s
    where coalesce(s.context->>'droplet_id', s.input->>'droplet_id') = set_protection.droplet_id::text
      and 'destroy_droplet' = any(s.steps)
      -- A deletion that DigitalOcean has accepted may still come, whatever became of its saga.
      and (s.status in ('pending', 'running', 'compensating') or s.context ? ('deletion_accepted_at_' || set_protection.droplet_id))
    limit 1;
    if destroyer is not null then
      raise exception using
        errcode = 'SG423',
        message = format('droplet %s is being destroyed by saga %s: cancel that saga first. If DigitalOcean has already accepted the deletion, the droplet cannot be protected', set_protection.droplet_id, destroyer),
        detail = format('saga %s', destroyer);
    end if;
  end if;
  update arcadia.cloud_provisioned p set protected = set_protection.protected where p.id = provision.id;
  insert into arcadia.audit (actor, action, saga_id, detail)
  values (coalesce(set_protection.requested_by, 'sql:' || session_user), case when set_protection.protected then 'droplet_protected' else 'droplet_unprotected' end,
    provision.saga_id, jsonb_build_object('droplet_id', set_protection.droplet_id));
  return true;
end;
$$;

comment on function arcadia.set_protection is
  'Protects a droplet or lifts its protection, in the caller''s transaction. Errors: SG400 malformed, SG404 unknown droplet, SG423 it is being destroyed.';
revoke all on function arcadia.set_protection from public;

-- As before, but a protected droplet is refused with SG423.
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

  -- To see early what the step that destroys would refuse in the end. A call that is repeated finds its saga all the same.
  if start_saga.name = 'destroy_droplet' and start_saga.input->>'droplet_id' ~ '^[0-9]{1,18}$'
    and arcadia.is_protected((start_saga.input->>'droplet_id')::bigint)
    and not exists (select from arcadia.sagas s where s.idempotency_key = start_saga.idempotency_key) then
    raise exception using
      errcode = 'SG423',
      message = format('droplet %s is protected, so it is not destroyed', start_saga.input->>'droplet_id'),
      hint = format('Lift the protection first: select arcadia.set_protection(%s, false)', start_saga.input->>'droplet_id');
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
