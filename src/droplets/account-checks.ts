// Shares checks of the token's account in a fleet: one worker asks DigitalOcean, and those that start in the next minute go by
// its answer.
import type { Database } from '../platform/db.ts';
import { jsonText } from '../platform/json.ts';

/** What a check found. `account` null: it could not be read, for this reason. */
export type AccountCheck = Readonly<{ account: string; status?: undefined } | { account: null; isSettled: boolean; status: number | null; reason: string }>;

/** `ask`: the caller is to ask, and to save what it finds. `wait`: somebody is at it. */
type Claim = AccountCheck | 'ask' | 'wait';

const FRESH_MS = 60_000;

// An outage may be over soon.
const UNSETTLED_FRESH_MS = 1_000;

/**
 * Returns what the last check found, if it was a moment ago; otherwise claims the next one.
 *
 * @param scope fingerprint of the token
 * @param claimMs for how long nobody else asks, in milliseconds
 */
export async function claimAccountCheck(db: Pick<Database, 'run'>, scope: string, claimMs: number): Promise<Claim> {
  const [row] = await db.run(
    'account_checks.claim',
    (sql) => sql<{ found: AccountCheck | null; claimed: boolean }[]>`
      with fresh as (
        select found from arcadia.account_checks checks
        where scope = ${scope} and found_at > clock_timestamp() - case when found->>'isSettled' = 'false' then ${UNSETTLED_FRESH_MS}::float8 else ${FRESH_MS}::float8 end * interval '1 millisecond'
      ),
      claimed as (
        insert into arcadia.account_checks as checks (scope, asked_until)
        select ${scope}, clock_timestamp() + ${claimMs}::float8 * interval '1 millisecond' where not exists (select from fresh)
        on conflict (scope) do update set asked_until = excluded.asked_until where checks.asked_until < clock_timestamp()
        returning 1
      )
      select (select found from fresh) as found, exists (select from claimed) as claimed`,
  );
  return row?.found ?? (row?.claimed === true ? 'ask' : 'wait');
}

/** Saves what a claimed check found. Forgets other tokens after a day. */
export async function saveAccountCheck(db: Pick<Database, 'run'>, scope: string, check: AccountCheck): Promise<void> {
  await db.run(
    'account_checks.save',
    (sql) => sql`
      with forgotten as (delete from arcadia.account_checks where scope <> ${scope} and asked_until < clock_timestamp() - interval '1 day' and found_at < clock_timestamp() - interval '1 day')
      update arcadia.account_checks set found = ${jsonText(check)}::text::jsonb, found_at = clock_timestamp(), asked_until = '-infinity' where scope = ${scope}`,
  );
}
