// A direct connection of a test to a server, which bypasses the code under test.
import postgres from 'postgres';

/**
 * Opens one connection that works under any settings of the database or the role. It does not fetch array types: postgres.js
 * does not catch an error of that query, so a server that ends at that moment would fail the whole run.
 */
export function openAdmin(url: string, connection: postgres.Options<Record<string, never>>['connection'] = {}): postgres.Sql {
  return postgres(url, { max: 1, idle_timeout: 0, max_lifetime: null, fetch_types: false, onnotice: () => undefined, connection: { application_name: 'test', statement_timeout: 0, idle_session_timeout: 0, ...connection } });
}

/** Runs one statement on a connection of its own, which is closed afterwards. */
export async function runAsAdmin(url: string, statement: string): Promise<unknown[]> {
  const sql = openAdmin(url);
  try {
    return [...(await sql.unsafe(statement))];
  } finally {
    await sql.end();
  }
}
