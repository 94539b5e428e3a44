-- What SQL puts in is read by programs that walk through it by recursion: it may be no deeper than what other callers send.
create function arcadia.refuse_nested_input() returns trigger language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
  raise exception using errcode = 'SG400', message = 'input: expected at most 32 levels of nesting';
end $$;

-- Only what nobody has checked yet. The input itself is the first level.
create trigger nested_input before insert on arcadia.sagas for each row
  when (not new.input_checked and pg_catalog.jsonb_path_exists(new.input, 'strict $.**{32} ? (@.type() == "object" || @.type() == "array")'))
  execute function arcadia.refuse_nested_input();
