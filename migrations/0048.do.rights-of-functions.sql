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
