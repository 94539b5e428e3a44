// A test's own connection to a server, past what is tested.
import postgres from 'postgres';

/**
 * One connection, kept until it is ended, whatever the settings of a database or a role. It asks for no array types:
 * postgres.js catches no error of that question, so that a server that ends just then would fail the whole run.
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
