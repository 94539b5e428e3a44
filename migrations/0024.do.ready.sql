-- Readiness of droplets: a step for those sagas alone that ask for it, and the callbacks by which droplets report.

-- Steps that a saga has only if its input has a field: the field, by the step's name.
alter table arcadia.saga_definitions add column optional_steps jsonb not null default '{}';

-- Where SQL starts a saga, its steps come from saga_definitions, which knows no inputs.
create function arcadia.leave_out_steps()
  returns trigger
  language plpgsql
  -- Whoever inserts a saga need not read the definitions.
  security definer
  set search_path = pg_catalog, pg_temp
as $$
declare
  optional jsonb;
begin
  select d.optional_steps into optional from arcadia.saga_definitions d where d.name = new.name;
  if optional is null or optional = '{}' then
    return new;
  end if;
  new.steps := array(
    select step from unnest(new.steps) with ordinality as listed (step, place)
    where optional->>step is null or new.input->>(optional->>step) is not null
    order by place);
  return new;
end;
$$;

-- All others that insert sagas know their inputs, and give the steps that fit.
create trigger optional_steps before insert on arcadia.sagas for each row
  when (not new.input_checked)
  execute function arcadia.leave_out_steps();

-- The callback of a saga's droplet. The token itself is in the droplet's user_data alone; it is made anew from a key of
-- ARCADIA_ENCRYPTION_KEYS, the one named here, each time that a create is sent.
create table arcadia.ready_callbacks (
  saga_id     uuid primary key references arcadia.sagas (id) on delete cascade,
  key_id      text not null,
  token_hash  bytea not null,
  created_at  timestamptz not null default clock_timestamp(),
  -- Set once: a token is for one answer.
  answered_at timestamptz,
  answer      text check (answer in ('ok', 'failed')),
  log         text
);
