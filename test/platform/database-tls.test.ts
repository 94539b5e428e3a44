// DATABASE_URL as people have it, on a Postgres with TLS, on IPv6 and on a Unix socket: both drivers do the same, as libpq would.

import { execFileSync } from 'node:child_process';
import { chownSync, mkdtempSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { once } from 'node:events';
import { rm } from 'node:fs/promises';
import { connect, createServer } from 'node:net';
import type { ListenOptions, Server } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, onTestFinished, test } from 'vitest';
import { ConfigError } from '../../src/platform/config-error.ts';
import { openDatabase } from '../../src/platform/db.ts';
import type { EmbeddedPostgres } from '../../src/dev/embedded-postgres/start-embedded-postgres.ts';
import { silentLog } from '../../src/platform/log.ts';
import { migrateQueues, openQueueConnection } from '../../src/queues/connection.ts';
import { runCommand } from '../support/fleet.ts';
import { startPrivatePostgres } from '../support/services-postgres.ts';
import { openAdmin } from '../support/admin-connection.ts';

let folder: string;
let server: EmbeddedPostgres;
let plain: EmbeddedPostgres;
let other: URL;
let relays: Server[];

const file = (name: string): string => join(folder, name);
const openssl = (...args: string[]): void => void execFileSync('openssl', args, { cwd: folder, stdio: 'pipe' });

/** How many authorities another process with this environment trusts as those of the system. */
function countSystemCertificates(env: NodeJS.ProcessEnv): number {
  const program = `import(${JSON.stringify(new URL('../../src/platform/database-tls.ts', import.meta.url).href)}).then((module) => console.log(module.systemCertificates().length))`;
  return Number(execFileSync(process.execPath, ['-e', program], { env: { PATH: process.env['PATH'], ...env } }));
}

function makeAuthority(name: string): void {
  openssl('req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes', '-keyout', `${name}.key`, '-out', `${name}.pem`, '-days', '2', '-subj', `/CN=${name}`);
}

/** Signed by `ca`. */
function makeCertificate(name: string, commonName: string, alternativeName: string): void {
  writeFileSync(file(`${name}.ext`), `subjectAltName=${alternativeName}\n`);
  openssl('req', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes', '-keyout', `${name}.key`, '-out', `${name}.csr`, '-subj', `/CN=${commonName}`);
  openssl('x509', '-req', '-in', `${name}.csr`, '-CA', 'ca.pem', '-CAkey', 'ca.key', '-CAcreateserial', '-days', '2', '-extfile', `${name}.ext`, '-out', `${name}.pem`);
}

/** Gives the server this certificate, from its next connection on. */
async function present(certificate: string): Promise<void> {
  const { uid, gid } = statSync(server.dataDir);
  for (const [from, to] of [[`${certificate}.pem`, 'server.crt'], [`${certificate}.key`, 'server.key'], ['ca.pem', 'root.crt']] as const) {
    const path = join(server.dataDir, to);
    writeFileSync(path, readFileSync(file(from)), { mode: 0o600 });
    chownSync(path, uid, gid);
  }
  const admin = openAdmin(server.url);
  await admin`alter system set ssl = on`;
  await admin`alter system set ssl_ca_file = 'root.crt'`;
  await admin`select pg_reload_conf()`;
  await admin.end();
}

beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), 'arcadia-tls-'));
  makeAuthority('ca');
  makeAuthority('stranger');
  makeCertificate('for-localhost', 'localhost', 'DNS:localhost');
  makeCertificate('for-address', '127.0.0.1', 'IP:127.0.0.1,IP:::1');
  makeCertificate('client', 'certified', 'DNS:client');
  [server, plain] = await Promise.all([startPrivatePostgres(), startPrivatePostgres()]);
  await present('for-localhost');
  const admin = openAdmin(server.url);
  await admin`create role certified login superuser`;
  const hba = join(server.dataDir, 'pg_hba.conf');
  writeFileSync(hba, `hostssl all certified 127.0.0.1/32 cert\n${readFileSync(hba, 'utf8')}`);
  await admin`select pg_reload_conf()`;
  await admin.end();
  await migrateQueues({ kind: 'postgres', databaseUrl: server.url });
  other = new URL(server.url);
  relays = [await relayTo(server.port, { host: '::1', port: server.port, ipv6Only: true }), await relayTo(server.port, { path: file(`.s.PGSQL.${server.port}`) })];
});
afterAll(async () => {
  for (const relay of relays) relay.close();
  await Promise.all([server.stop(), plain.stop()]);
  await rm(folder, { recursive: true, force: true });
});

/** The server listens on 127.0.0.1 alone: what it is reached by otherwise leads there. */
async function relayTo(port: number, where: ListenOptions): Promise<Server> {
  const relay = createServer((client) => {
    const upstream = connect(port, '127.0.0.1');
    client.pipe(upstream).pipe(client);
    for (const socket of [client, upstream]) socket.on('error', () => undefined);
  });
  relay.listen(where);
  await once(relay, 'listening');
  return relay;
}

/** The server's URL by this host name, with these parameters; `FOLDER` is where the certificates are. */
function urlOf(host: string, query: string, from = other): string {
  const { username, password, port, pathname } = from;
  return `postgres://${username}:${password}@${host === 'SOCKET' ? encodeURIComponent(folder) : host}:${port}${pathname}?${query.replaceAll('FOLDER', folder)}`;
}

/** Whether postgres.js's connection is encrypted. */
async function viaPostgresJs(url: string): Promise<boolean> {
  const db = openDatabase(url, { max: 1 });
  try {
    const [row] = await db.run('test', (sql) => sql<{ ssl: boolean }[]>`select ssl from pg_stat_ssl where pid = pg_backend_pid()`);
    return row?.ssl === true;
  } finally {
    await db.close();
  }
}

/** Whether node-postgres's connection is encrypted. */
async function viaPg(url: string): Promise<boolean> {
  const connection = openQueueConnection({ kind: 'postgres', databaseUrl: url }, silentLog);
  const admin = openAdmin(server.url);
  try {
    await connection.check('test/x');
    const rows = await admin<{ ssl: boolean }[]>`select ssl from pg_stat_ssl join pg_stat_activity using (pid) where application_name = 'arcadia-queues' order by backend_start desc limit 1`;
    return rows[0]?.ssl === true;
  } finally {
    await admin.end();
    await connection.close();
  }
}

const drivers = [['postgres.js', viaPostgresJs], ['node-postgres', viaPg]] as const;

test('sslrootcert=system takes the authorities of Node where the system has none', () => {
  expect(countSystemCertificates({ SSL_CERT_FILE: file('none.pem'), SSL_CERT_DIR: file('none') })).toBeGreaterThan(50);
  expect(countSystemCertificates({ SSL_CERT_FILE: file('ca.pem'), SSL_CERT_DIR: file('none') })).toBe(1);
});

describe.each(drivers)('%s', (_name, via) => {
  test.each([
    ['127.0.0.1', '', false],
    ['127.0.0.1', 'sslmode=disable', false],
    // As libpq: without a root certificate, nobody looks at the server's.
    ['127.0.0.1', 'sslmode=require', true],
    ['localhost', 'sslmode=require&channel_binding=require', true],
    ['localhost', 'ssl=true', true],
    ['127.0.0.1', 'sslmode=require&sslrootcert=FOLDER/ca.pem', true],
    ['127.0.0.1', 'sslmode=verify-ca&sslrootcert=FOLDER/ca.pem', true],
    ['localhost', 'sslmode=verify-full&sslrootcert=FOLDER/ca.pem', true],
    ['localhost', 'sslmode=verify-full&sslrootcert=FOLDER/ca.pem&sslnegotiation=direct', true],
    ['localhost', 'sslmode=verify-full&sslrootcert=FOLDER/ca.pem&ssl_min_protocol_version=TLSv1.3&keepalives_idle=5&connect_timeout=4', true],
    ['127.0.0.1', 'sslmode=require&user=certified&sslcert=FOLDER/client.pem&sslkey=FOLDER/client.key', true],
    ['[::1]', '', false],
    ['[::1]', 'sslmode=require', true],
    ['SOCKET', '', false],
    ['', 'host=FOLDER&sslmode=verify-full', false],
  ])('%s ?%s: encrypted: %s', async (host, query, encrypted) => {
    expect(await via(urlOf(host, query))).toBe(encrypted);
  });

  test.each([
    ['127.0.0.1', 'sslmode=require&sslrootcert=FOLDER/stranger.pem', 'certificate is not trusted; sslrootcert names'],
    ['127.0.0.1', 'sslmode=verify-ca&sslrootcert=FOLDER/stranger.pem', 'certificate is not trusted'],
    ['localhost', 'sslmode=verify-full', 'certificate is not trusted'],
    ['localhost', 'sslrootcert=system', 'certificate is not trusted'],
    ['127.0.0.1', 'sslmode=verify-full&sslrootcert=FOLDER/ca.pem', 'certificate is not for the host in the URL'],
    ['localhost', 'sslmode=verify-full&sslrootcert=FOLDER/none.pem', 'DATABASE_URL: sslrootcert: the file cannot be read (ENOENT)'],
    ['localhost', 'sslmode=require&sslcert=FOLDER/ca.ext&sslkey=FOLDER/client.ext', 'DATABASE_URL: sslcert: the file cannot be read'],
    ['localhost', 'sslmode=require&sslcert=FOLDER/client.pem&sslkey=FOLDER/ca.key', 'PEM files that belong together'],
  ])('refuses %s ?%s', async (host, query, message) => {
    const refused = via(urlOf(host, query));
    await expect(refused).rejects.toThrow(ConfigError);
    await expect(refused).rejects.toThrow(message);
  });

  test('never goes on without encryption where it was asked for', async () => {
    await expect(via(urlOf('127.0.0.1', 'sslmode=require', new URL(plain.url)))).rejects.toThrow(/offer TLS/);
  });

  test('holds the certificate against an IP address where the URL names one', async () => {
    await present('for-address');
    onTestFinished(() => present('for-localhost'));
    expect(await via(urlOf('127.0.0.1', 'sslmode=verify-full&sslrootcert=FOLDER/ca.pem'))).toBe(true);
    expect(await via(urlOf('[::1]', 'sslmode=verify-full&sslrootcert=FOLDER/ca.pem'))).toBe(true);
    await expect(via(urlOf('localhost', 'sslmode=verify-full&sslrootcert=FOLDER/ca.pem'))).rejects.toThrow('certificate is not for the host');
  });
});

test('several hosts are tried in turn, and refused by name where queues are in Postgres', async () => {
  const { username, password, port, pathname } = other;
  const url = `postgres://${username}:${password}@127.0.0.1:1,127.0.0.1:${port}${pathname}?target_session_attrs=read-write`;
  expect(await viaPostgresJs(url)).toBe(false);
  await expect(viaPg(url)).rejects.toThrow('DATABASE_URL: host: queues in Postgres need a single host');
});

test.each([
  ['migrate', 'schema=public&connection_limit=5', 'DATABASE_URL: schema: a parameter of Prisma'],
  ['worker', 'sslmode=verify-full&sslrootcert=FOLDER/stranger.pem', "DATABASE_URL: sslmode: the server's certificate is not trusted"],
  ['migrate', 'sslmode=verify-full&sslrootcert=FOLDER/none.pem', 'DATABASE_URL: sslrootcert: the file cannot be read (ENOENT)'],
])('%s with ?%s ends with 78 and says why', async (command, query, message) => {
  const ended = await runCommand([command], { PATH: process.env['PATH'], DATABASE_URL: urlOf('localhost', query), DIGITALOCEAN_TOKEN: 'sandbox' });
  expect([ended.code, ended.stderr]).toEqual([78, expect.stringContaining(message)]);
  expect(ended.stderr).not.toContain(other.password);
});
