-- Finds what one actor did, and every action of one kind, newest first, among millions of rows.
create index audit_by_actor on arcadia.audit (actor, id);
create index audit_by_action on arcadia.audit (action, id);
