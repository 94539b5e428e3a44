-- Which fields of a saga's input are secret, as any definition of that name has said so far. Definitions change and leave the app;
-- sagas that were started with them stay, and so do the secrets in their rows.
create table arcadia.remembered_secrets (
  saga_name text primary key,
  fields    text[] not null default '{}',
  -- Fields that may have been secret in a definition that was gone before this table was made. Good for erasing, not for comparing:
  -- they may be ordinary ones. None once a definition of that name is written again.
  guessed   text[] not null default '{}'
);

create function arcadia.remember_secrets()
  returns trigger
  language plpgsql
  security definer
  set search_path = pg_catalog, pg_temp
as $$
begin
  if new.secrets = '{}' then
    update arcadia.remembered_secrets set guessed = '{}' where saga_name = new.name and guessed <> '{}';
    return null;
  end if;
  insert into arcadia.remembered_secrets as known (saga_name, fields) values (new.name, new.secrets)
  on conflict (saga_name) do update set fields = array(select distinct unnest(known.fields || excluded.fields)), guessed = '{}'
  where not excluded.fields <@ known.fields or known.guessed <> '{}';
  return null;
end;
$$;

-- A trigger, so that `migrate` of an older version remembers them too.
create trigger remember_secrets after insert or update on arcadia.saga_definitions for each row execute function arcadia.remember_secrets();

insert into arcadia.remembered_secrets (saga_name, fields)
select name, secrets from arcadia.saga_definitions where secrets <> '{}';

-- Of sagas that SQL started, that no worker has taken yet, and whose definition is gone already, nobody knows which fields are
-- secret: all that may be.
insert into arcadia.remembered_secrets (saga_name, guessed)
select saga.name, array_agg(distinct entry.key)
from arcadia.sagas as saga cross join jsonb_each(saga.input) as entry
where saga.wake_at is not null and saga.status = 'pending' and not saga.input_checked
  and jsonb_typeof(entry.value) not in ('number', 'boolean', 'null')
  and not exists (select from arcadia.saga_definitions d where d.name = saga.name)
group by saga.name;

-- user_data is one in every saga.
create function arcadia.secret_fields(saga_name text)
  returns text[]
  language sql
  stable
  -- Whoever compares or moves a saga need not read the table.
  security definer
  set search_path = pg_catalog, pg_temp
as $$
  select array['user_data'] || coalesce((select known.fields from arcadia.remembered_secrets known where known.saga_name = secret_fields.saga_name), '{}')
$$;

-- Whether a text is what stands in the place of a secret.
create function arcadia.is_secret_mark(given text)
  returns boolean
  language sql
  immutable
  set search_path = pg_catalog, pg_temp
as $$
  select coalesce(given ~ '^\[(sealed|erased), \d+ bytes\]$', false)
$$;

-- As before, but with what was a secret once, and what a worker has erased already stays as it is.
create or replace function arcadia.without_secrets(saga_name text, given jsonb)
  returns jsonb
  language sql
  stable
  -- Whoever moves a saga need not read the definitions.
  security definer
  set search_path = pg_catalog, pg_temp
as $$
  select coalesce(jsonb_object_agg(entry.key,
    case when entry.key = any(secret.names) and jsonb_typeof(entry.value) <> 'null' and not arcadia.is_secret_mark(entry.value #>> '{}')
      then to_jsonb(format('[erased, %s bytes]', octet_length(entry.value #>> '{}'))) else entry.value end), '{}')
  from jsonb_each(given) as entry
    cross join (
      select arcadia.secret_fields(saga_name) || coalesce((select known.guessed from arcadia.remembered_secrets known where known.saga_name = without_secrets.saga_name), '{}') as names
    ) as secret
$$;

-- The saga that a call with this key started; null: none. Raises SG409 if that call was another one. Volatile: it must see a saga
-- that was committed while the caller's insert waited for it.
create function arcadia.find_repeated(saga_name text, given jsonb, key text, starter text)
  returns uuid
  language plpgsql
  set search_path = pg_catalog, pg_temp
as $$
declare
  existing record;
begin
  -- Secrets are sealed once a worker has taken the saga, and SQL has no key: then their lengths have to tell. To anybody but
  -- who started the saga, nothing is told of them: whoever tries values would learn which one is right.
  select s.id,
    s.name = find_repeated.saga_name
      and exists (
        -- As it was given, or as the schema made it: each is the same request.
        select from unnest(array[s.input, s.given_input]) as known (input)
        where known.input - secret.fields = find_repeated.given - secret.fields
          and not exists (
            select from unnest(secret.fields) as field
            where arcadia.is_secret_mark(find_repeated.given->>field) or not case when s.started_by = find_repeated.starter
              then known.input->>field is not distinct from find_repeated.given->>field
                or coalesce(known.input->>field in (
                  format('[sealed, %s bytes]', octet_length(find_repeated.given->>field)),
                  format('[erased, %s bytes]', octet_length(find_repeated.given->>field))), false)
              else (known.input ? field) = (find_repeated.given ? field) end
          )
      ) as is_same,
    coalesce(s.started_by, s.requested_by) = find_repeated.starter or has_table_privilege(session_user, 'arcadia.sagas', 'select') as may_know
  into existing
  from arcadia.sagas s cross join lateral (select arcadia.secret_fields(s.name) as fields) as secret
  where s.idempotency_key = find_repeated.key;
  if existing.id is null or existing.is_same then return existing.id; end if;
  if existing.may_know is not true then
    raise exception using
      errcode = 'SG409',
      message = format('idempotency_key: %s is taken; use a new key for a new request', to_json(find_repeated.key)::text);
  end if;
  raise exception using
    errcode = 'SG409',
    message = format('idempotency_key: %s was used before with another input, by saga %s; use a new key for a new request',
      to_json(find_repeated.key)::text, existing.id),
    detail = format('saga %s', existing.id);
end;
$$;
revoke all on function arcadia.find_repeated from public;

-- As before, but a repeated key finds its saga also if the saga's name is no longer known, and a mark is not taken for a secret.
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
