import { describe, expect, test } from 'vitest';
import { ConfigError } from '../../src/platform/config-error.ts';
import { readDatabaseUrl } from '../../src/platform/database-url.ts';

const read = (url: string) => readDatabaseUrl(url, {});

describe('readDatabaseUrl', () => {
  test.each([
    ['postgres://u:p@h/db', { hosts: [{ host: 'h', port: 5432 }], user: 'u', password: 'p', database: 'db', tls: null, isPooled: null }],
    ['postgresql://u@h:6432/', { hosts: [{ host: 'h', port: 6432 }], user: 'u', password: null, database: 'u' }],
    ['postgres://u%40corp:p%2Fw%3A%40@h/d%20b', { user: 'u@corp', password: 'p/w:@', database: 'd b' }],
    ['postgres://u:a:b@c@h/db', { hosts: [{ host: 'h', port: 5432 }], user: 'u', password: 'a:b@c' }],
    ['postgres://u:p@[::1]:5433/db', { hosts: [{ host: '::1', port: 5433 }] }],
    ['postgres://u:p@[2001:db8::1]/db', { hosts: [{ host: '2001:db8::1', port: 5432 }] }],
    ['postgres:///db?host=/var/run/postgresql', { hosts: [{ host: '/var/run/postgresql', port: 5432 }], database: 'db' }],
    ['postgres://u@%2Fvar%2Frun%2Fpostgresql:5433/db', { hosts: [{ host: '/var/run/postgresql', port: 5433 }] }],
    ['postgres://u@/db?host=%2Ftmp&port=5555&sslmode=verify-full', { hosts: [{ host: '/tmp', port: 5555 }], tls: null }],
    ['postgres://h/?user=u&password=p%26w&dbname=db&port=1', { hosts: [{ host: 'h', port: 1 }], user: 'u', password: 'p&w', database: 'db' }],
    ['postgres://u@one:5432,two:5433/db?target_session_attrs=read-write', { hosts: [{ host: 'one', port: 5432 }, { host: 'two', port: 5433 }], isPrimaryOnly: true }],
    ['postgres://u@one,two:5433/db', { hosts: [{ host: 'one', port: 5432 }, { host: 'two', port: 5433 }], isPrimaryOnly: false }],
    ['postgres://u:p@h/db?pgbouncer=true', { isPooled: true }],
    ['postgres://u:p@h/db?pgbouncer=false&sslmode=require', { isPooled: false, tls: expect.objectContaining({ mode: 'require', rootCert: null }) }],
    ['postgres://u:p@h/db?sslmode=disable', { tls: null }],
    ['postgres://u:p@h/db?ssl=true', { tls: expect.objectContaining({ mode: 'require' }) }],
    ['postgres://u:p@h/db?sslrootcert=system', { tls: expect.objectContaining({ mode: 'verify-full', rootCert: 'system' }) }],
    ['postgres://u:p@h/db?sslmode=verify-full&sslrootcert=/ca.pem&sslcert=c&sslkey=k&sslnegotiation=direct', { tls: expect.objectContaining({ mode: 'verify-full', rootCert: '/ca.pem', cert: 'c', key: 'k', negotiation: 'direct' }) }],
    // As Neon, RDS, DigitalOcean, Heroku and psycopg's users write it.
    ['postgresql://u:p@ep-x-pooler.eu-central-1.aws.neon.tech/db?sslmode=require&channel_binding=require&pgbouncer=true', { isPooled: true, wantsChannelBinding: true }],
    ['postgres://u:p@x.rds.amazonaws.com:5432/db?sslmode=verify-full&sslrootcert=/etc/rds/global-bundle.pem', { tls: expect.objectContaining({ rootCert: '/etc/rds/global-bundle.pem' }) }],
    ['postgresql://doadmin:p@x.db.ondigitalocean.com:25060/defaultdb?sslmode=require', { hosts: [{ host: 'x.db.ondigitalocean.com', port: 25060 }] }],
    ['postgres://u:p@h/db?keepalives=1&keepalives_idle=30&keepalives_interval=10&keepalives_count=5&connect_timeout=7&application_name=mine', { keepAliveS: 30, connectTimeoutS: 7, applicationName: 'mine' }],
    ['postgres://u:p@h/db?options=-c%20geqo%3Doff', { options: '-c geqo=off' }],
  ])('reads %s', (url, expected) => {
    expect(read(url)).toMatchObject(expected);
  });

  test('takes what the URL leaves open from the environment, as libpq does', () => {
    expect(readDatabaseUrl('postgres://', { PGHOST: 'h', PGPORT: '6', PGUSER: 'u', PGPASSWORD: 'p', PGDATABASE: 'd' })).toMatchObject({ hosts: [{ host: 'h', port: 6 }], user: 'u', password: 'p', database: 'd' });
  });

  test.each([
    ['pgbouncer=1', 'DATABASE_URL: pgbouncer: expected true or false'],
    ['pgbouncer=', 'DATABASE_URL: pgbouncer: expected true or false'],
    ['pgbouncer=true?x=y', 'DATABASE_URL: pgbouncer: expected true or false'],
    ['schema=hunter2', 'DATABASE_URL: schema: a parameter of Prisma, unknown here; remove it'],
    ['connection_limit=5', 'DATABASE_URL: connection_limit: a parameter of Prisma'],
    ['statement_timeout=5', 'DATABASE_URL: statement_timeout: unknown parameter'],
    ['toString=hunter2', 'DATABASE_URL: toString: unknown parameter'],
    ['hunter2%20is%20secret=1', 'DATABASE_URL: a parameter: unknown parameter'],
    ['passfile=hunter2', 'DATABASE_URL: passfile: not supported'],
    ['sslmode=prefer', 'DATABASE_URL: sslmode: allow and prefer may send everything unencrypted'],
    ['sslmode=no-verify', 'DATABASE_URL: sslmode: expected require'],
    ['sslmode=hunter2', 'DATABASE_URL: sslmode: expected disable, require, verify-ca or verify-full'],
    ['sslmode=verify-ca', 'DATABASE_URL: sslrootcert: not set'],
    ['sslmode=require&sslcert=x', 'DATABASE_URL: sslkey: not set'],
    ['sslrootcert=x', 'DATABASE_URL: sslmode: not set, though sslrootcert is'],
    ['sslrootcert=system&sslmode=require', 'DATABASE_URL: sslmode: expected verify-full'],
    ['sslnegotiation=direct', 'DATABASE_URL: sslmode: not set'],
    ['channel_binding=require', 'DATABASE_URL: channel_binding: require needs an encrypted connection'],
    ['target_session_attrs=standby', 'DATABASE_URL: target_session_attrs: expected any, read-write or primary'],
    ['connect_timeout=soon', 'DATABASE_URL: connect_timeout: expected a whole number'],
    ['client_encoding=LATIN1', 'DATABASE_URL: client_encoding: expected UTF8'],
    ['port=70000', 'DATABASE_URL: port: expected a whole number from 1 to 65535'],
    ['host=/a,/b', 'DATABASE_URL: host: a Unix socket cannot be one of several hosts'],
    ['port=1,2', 'DATABASE_URL: port: expected one port, or one for each host'],
    ['options=%zz', 'DATABASE_URL: expected %25 where a % is meant'],
  ])('refuses ?%s by name, without a value', (query, message) => {
    const refused = () => read(`postgres://u:hunter2@h/db?${query}`);
    expect(refused).toThrow(ConfigError);
    expect(refused).toThrow(message);
    expect(refused).not.toThrow('hunter2');
  });

  test('names every parameter that it refuses', () => {
    expect(() => read('postgres://u:p@h/db?schema=public&connection_limit=5&sslmode=require')).toThrow(/DATABASE_URL: schema: .*\nDATABASE_URL: connection_limit: /);
  });

  test.each(['mysql://u:hunter2@h/db', 'hunter2', 'postgres://u:hunter2@h:port/db', 'postgres://u:hunter2@::1/db'])('refuses %s', (url) => {
    expect(() => read(url)).toThrow(ConfigError);
    expect(() => read(url)).toThrow('DATABASE_URL: expected postgres://user:password@host:port/database');
    expect(() => read(url)).not.toThrow('hunter2');
  });
});
