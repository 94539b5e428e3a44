// A private PgBouncer in transaction mode: the pgbouncer of this machine, on a free port of 127.0.0.1, in front of a Postgres. It
// ends with the process that started it.

import { findFreePort, findProgram, startGuarded, tryThrice } from './services-guarded.ts';

export type PrivatePgBouncer = {
  /** The URL of Postgres, by way of PgBouncer, as DATABASE_URL names it. */
  readonly through: (url: string) => string;
  readonly port: number;
  readonly stop: () => Promise<void>;
  readonly [Symbol.asyncDispose]: () => Promise<void>;
};

/** Starts PgBouncer in front of the Postgres that `serverUrl` names, for all of its databases. `settings` go on top of our own. */
export async function startPrivatePgBouncer(serverUrl: string, settings: Readonly<Record<string, string>> = {}): Promise<PrivatePgBouncer> {
  const program = findProgram(['pgbouncer']);
  if (program === undefined) throw new Error('the tests need PgBouncer, and it is not installed: run script/setup');
  return tryThrice(async () => {
    const port = await findFreePort();
    const server = await startGuarded({ program, args: ['pgbouncer.ini'], files: { 'pgbouncer.ini': iniOf(serverUrl, port, settings) }, readyText: 'process up' });
    return { through: (url) => throughPgBouncer(url, port), port, stop: server.stop, [Symbol.asyncDispose]: server.stop };
  });
}

/** The URL of Postgres, by way of the PgBouncer on this port. */
export function throughPgBouncer(url: string, port: number): string {
  const through = new URL(url);
  through.hostname = '127.0.0.1';
  through.port = String(port);
  through.searchParams.set('pgbouncer', 'true');
  return through.href;
}

function iniOf(serverUrl: string, port: number, settings: Readonly<Record<string, string>>): string {
  const { hostname, port: serverPort, username, password } = new URL(serverUrl);
  const lines = Object.entries({
    listen_addr: '127.0.0.1',
    listen_port: String(port),
    unix_socket_dir: '',
    // Accept every client, as the user of the line above.
    auth_type: 'any',
    pool_mode: 'transaction',
    // Rotate the sessions, so that a client's next transaction runs in another session if there is one.
    server_round_robin: '1',
    default_pool_size: '16',
    max_client_conn: '1000',
    server_idle_timeout: '10',
    // Tests create and drop databases.
    autodb_idle_timeout: '10',
    // It refuses to run as root.
    ...(process.getuid?.() === 0 ? { user: 'nobody' } : {}),
    ...settings,
  }).map(([name, value]) => `${name} = ${value}`);
  const database = `* = host=${hostname} port=${serverPort} user=${decodeURIComponent(username)} password=${decodeURIComponent(password)}`;
  return ['[databases]', database, '[pgbouncer]', ...lines, ''].join('\n');
}
