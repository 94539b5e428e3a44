-- The database roles of arcadia-cloud, each with the least that its processes need. Safe to repeat. Run it as somebody who
-- may create roles and schemas: before the first `arcadia migrate`, and after each one, when there are new tables.
--
--   psql "$ADMIN_DATABASE_URL" -v ON_ERROR_STOP=1 -f ops/roles.sql
--
-- Then give each role that you use a way to log in, such as: alter role arcadia_worker password '…'. docs/reference/postgres.md says
-- which process uses which role.

do $$
declare
  role text;
begin
  foreach role in array array['arcadia_migrate', 'arcadia_worker', 'arcadia_web', 'arcadia_client', 'arcadia_producer', 'arcadia_reader'] loop
    if not exists (select from pg_catalog.pg_roles where rolname = role) then
      execute format('create role %I login', role);
    end if;
  end loop;
  -- To give a role schemas, and to grant rights on its tables, takes a member of it; a superuser needs no membership.
  if not (select rolsuper from pg_catalog.pg_roles where rolname = current_user) and not pg_has_role(current_user, 'arcadia_migrate', 'usage') then
    execute format('grant arcadia_migrate to %I', current_user);
  end if;
end $$;

-- migrate owns the schemas, and with them the tables and functions. The second schema is for queues in Postgres.
create schema if not exists arcadia authorization arcadia_migrate;
create schema if not exists bullmq authorization arcadia_migrate;
grant usage on schema arcadia to arcadia_worker, arcadia_web, arcadia_client, arcadia_producer, arcadia_reader;
grant usage on schema bullmq to arcadia_worker, arcadia_web, arcadia_client;

-- Tables that a later version brings work at once; the next run of this file narrows the rights on them.
alter default privileges for role arcadia_migrate in schema arcadia grant select, insert, update, delete on tables to arcadia_worker;
alter default privileges for role arcadia_migrate in schema arcadia grant select, insert, update on tables to arcadia_web;
alter default privileges for role arcadia_migrate in schema bullmq grant select, insert, update, delete on tables to arcadia_worker, arcadia_web, arcadia_client;
alter default privileges for role arcadia_migrate in schema bullmq grant usage, select on sequences to arcadia_worker, arcadia_web, arcadia_client;

do $$
declare
  -- What a worker writes; it reads all. Of the environment it writes the account that it found.
  written text[] := array['sagas', 'saga_events', 'account_checks', 'circuits', 'cloud_drift', 'cloud_orphans', 'cloud_provisioned', 'cloud_resources',
    'drawn_requests', 'droplet_observations', 'droplet_waves', 'held_sagas', 'inventory_syncs', 'lease_events', 'outcome_deliveries', 'outcome_subscriptions', 'provision_leases', 'ready_callbacks', 'request_budgets', 'request_counts', 'request_finishes', 'request_turns', 'request_waiters', 'requests_left', 'resent_callbacks', 'retention', 'saga_tombstones', 'spent_tags', 'workers'];
  -- What says how the fleet is, and nothing of what was asked for.
  told text[] := array['saga_events', 'audit', 'circuits', 'cloud_orphans', 'cloud_resources', 'environment', 'held_sagas', 'inventory_syncs', 'lease_events', 'outcome_deliveries', 'outcome_subscriptions', 'request_counts', 'requests_left', 'saga_tombstones', 'workers'];
  one text;
  budget regprocedure;
begin
  if to_regclass('arcadia.sagas') is null then
    return;
  end if;
  revoke all on all tables in schema arcadia from arcadia_worker, arcadia_web, arcadia_client, arcadia_producer, arcadia_reader;

  grant select on all tables in schema arcadia to arcadia_worker;
  foreach one in array written loop
    execute format('grant insert, update, delete on arcadia.%I to arcadia_worker', one);
  end loop;
  grant update on arcadia.environment to arcadia_worker;
  grant delete on arcadia.audit to arcadia_worker;
  -- The role that writes a row stands in it by default: nobody may write another one there.
  grant insert (actor, action, saga_id, detail) on arcadia.audit to arcadia_worker, arcadia_web, arcadia_client;

  grant select on all tables in schema arcadia to arcadia_web;
  -- What the web and the command line change, besides sagas: drift that people accept, orphans that they judge, leases that they let
  -- expire, outcomes that they resume, reports of droplets. Only columns: which droplet a row is about is for workers to say.
  grant update (spec, released_at, lease_approved_at, lease_approved_by) on arcadia.cloud_provisioned to arcadia_web;
  grant update (lease_approved_at, lease_approved_by) on arcadia.provision_leases to arcadia_web;
  grant update (resolved_at, resolution) on arcadia.cloud_drift to arcadia_web;
  grant update (approved_at, approved_by, acknowledged_at, acknowledged_by, acknowledged_reason) on arcadia.cloud_orphans to arcadia_web;
  grant update (answered_at, answer, log) on arcadia.ready_callbacks, arcadia.resent_callbacks to arcadia_web;
  grant update (attempts, due_at) on arcadia.outcome_deliveries to arcadia_web;
  grant update (seen, reading, read_xid, failures, failing_since, last_error, paused_at, paused_reason, not_before) on arcadia.outcome_subscriptions to arcadia_web;
  grant insert on arcadia.saga_events to arcadia_web;
  -- Plans of provisions read DigitalOcean, within the fleet's budget of requests.
  grant insert, update, delete on arcadia.request_budgets, arcadia.drawn_requests to arcadia_web;
  -- A person may skip one.
  grant delete on arcadia.outcome_deliveries to arcadia_web;

  grant select on arcadia.sagas to arcadia_client;
  -- Not when a saga began, what it is, and who started it: rollbacks and the audit rely on that.
  grant insert (id, saga8, name, status, steps, input, given_input, sealed_user_data, user_data_fingerprint, idempotency_key, requested_by, started_by, priority, traceparent, rerun_of, wake_at),
    update (status, cursor, revision, attempt, context, memo, input, given_input, steps, input_checked, sealed_user_data, user_data_fingerprint, error,
      cancel_requested_at, step_started_at, wake_at, updated_at, finished_at) on arcadia.sagas to arcadia_client, arcadia_web;
  grant select, insert on arcadia.saga_events to arcadia_client;
  grant select on arcadia.environment, arcadia.circuits, arcadia.held_sagas, arcadia.inventory_syncs, arcadia.outcome_subscriptions, arcadia.workers to arcadia_client;

  revoke all on all functions in schema arcadia from arcadia_worker, arcadia_web, arcadia_client, arcadia_producer, arcadia_reader;
  grant execute on all functions in schema arcadia to arcadia_worker;
  for budget in
    select p.oid::regprocedure from pg_catalog.pg_proc p
    where p.pronamespace = 'arcadia'::regnamespace and (p.proname like 'budget\_%' or p.proname in ('draw_request', 'draw_turn', 'withdraw_request'))
  loop
    execute format('grant execute on function %s to arcadia_web', budget);
  end loop;
  grant execute on function arcadia.lease_brake to arcadia_web;
  -- The statements that start and move sagas call these.
  grant execute on function arcadia.is_protected, arcadia.secret_fields, arcadia.without_secrets to arcadia_client, arcadia_web;
  grant execute on function arcadia.start_saga to arcadia_producer, arcadia_client;
  grant execute on function arcadia.start_saga_with_priority to arcadia_producer, arcadia_client;
  grant execute on function arcadia.set_protection to arcadia_producer, arcadia_client, arcadia_web;
  grant execute on function arcadia.renew_lease to arcadia_producer, arcadia_client, arcadia_web;
  grant execute on function arcadia.leases_of_sagas to arcadia_client, arcadia_web;

  foreach one in array told loop
    execute format('grant select on arcadia.%I to arcadia_reader', one);
  end loop;
  -- A list of what may be read: a column that a later version adds may hold an input.
  grant select (id, saga8, name, status, steps, cursor, revision, attempt, context, error, idempotency_key, requested_by, started_by, priority, traceparent, resource, former_resource, waits_for, rerun_of,
    cancel_requested_at, step_started_at, wake_at, created_at, updated_at, finished_at) on arcadia.sagas to arcadia_reader;

  grant select, insert, update, delete on all tables in schema bullmq to arcadia_worker, arcadia_web, arcadia_client;
  grant usage, select on all sequences in schema bullmq to arcadia_worker, arcadia_web, arcadia_client;
end $$;
