-- user_data is sealed before it is written (AES-256-GCM, with a key that the database never sees). In `input` stands
-- `[sealed, 312 bytes]` in its place.
alter table arcadia.sagas
  -- v1.<key's id>.<nonce>.<tag>.<data>; null: there was none, or it is erased, as no droplet can be asked for any more.
  add column sealed_user_data      text,
  -- <key's id>.<HMAC>: tells the same user_data from another under the same idempotency key, after it was erased too.
  add column user_data_fingerprint text;

-- What earlier versions left in sagas that need it no more.
update arcadia.sagas
set input = jsonb_set(input, '{user_data}', to_jsonb(format('[erased, %s bytes]', octet_length(input->>'user_data'))))
where input->>'user_data' is not null and status not in ('pending', 'running');
