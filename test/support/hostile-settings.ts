// Settings of a database, or of a role in it, that would change what our statements return or whether they run.
import { inject } from 'vitest';
import { openAdmin } from './admin-connection.ts';

export const hostileSettings: Readonly<Record<string, string>> = {
  datestyle: 'German',
  timezone: 'Asia/Kathmandu',
  intervalstyle: 'sql_standard',
  search_path: 'pg_temp',
  bytea_output: 'escape',
  extra_float_digits: '-15',
  default_transaction_isolation: 'serializable',
  default_transaction_deferrable: 'on',
  standard_conforming_strings: 'off',
  transform_null_equals: 'on',
  array_nulls: 'off',
  client_encoding: 'LATIN1',
  statement_timeout: '1ms',
  lock_timeout: '1ms',
  idle_session_timeout: '1ms',
  idle_in_transaction_session_timeout: '1ms',
};

/** Sets them for every session that begins from now on: of the database, or of the tests' role in it. */
export async function setForSessions(database: string, where: 'database' | 'role', settings: Readonly<Record<string, string>>): Promise<void> {
  // Not from a session of that database: it would be under its own settings.
  const admin = openAdmin(inject('services').databaseUrl);
  try {
    const [row] = await admin<{ role: string }[]>`select current_user as role`;
    const whose = where === 'database' ? `database "${database}"` : `role "${row?.role}" in database "${database}"`;
    for (const [name, value] of Object.entries(settings)) await admin.unsafe(`alter ${whose} set ${name} = '${value}'`);
  } finally {
    await admin.end({ timeout: 5 });
  }
}
