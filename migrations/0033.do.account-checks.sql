-- What the last check of a token's account found, and until when a worker is at it: of a fleet that starts, one worker asks
-- DigitalOcean, and the others go by its answer.
create table arcadia.account_checks (
  -- Fingerprint of the token.
  scope       text primary key,
  found       jsonb,
  found_at    timestamptz not null default '-infinity',
  asked_until timestamptz not null
);
