-- A person says that an unknown orphan is known, so that nobody is alarmed about it any more. It stays listed, and is never touched.
alter table arcadia.cloud_orphans
  add column acknowledged_at timestamptz,
  add column acknowledged_by text,
  add column acknowledged_reason text;
