import { describe, expect, test } from 'vitest';
import { ConfigError } from '../src/config.ts';
import { readDatabaseUrl } from '../src/database-url.ts';

describe('readDatabaseUrl', () => {
  test.each([
    ['postgres://u:p@h/db', 'postgres://u:p@h/db', null],
    ['postgres://u:p@h/db?pgbouncer=true', 'postgres://u:p@h/db', true],
    ['postgres://u:p@h/db?pgbouncer=false&sslmode=require', 'postgres://u:p@h/db?sslmode=require', false],
    ['postgres://one:5432,two:5432/db?target_session_attrs=read-write&pgbouncer=true&options=-c%20x%3Dy', 'postgres://one:5432,two:5432/db?target_session_attrs=read-write&options=-c%20x%3Dy', true],
    ['postgres://u:p@h/db?pgbouncers=true', 'postgres://u:p@h/db?pgbouncers=true', null],
  ])('%s', (given, url, isPooled) => {
    expect(readDatabaseUrl(given)).toEqual({ url, isPooled });
  });

  test.each(['postgres://u:hunter2@h/db?pgbouncer=1', 'postgres://u:hunter2@h/db?pgbouncer=', 'postgres://u:hunter2@h/db?pgbouncer=true?x=y'])('refuses %s, without its password', (given) => {
    expect(() => readDatabaseUrl(given)).toThrow(ConfigError);
    expect(() => readDatabaseUrl(given)).toThrow('DATABASE_URL: pgbouncer: expected true or false');
    expect(() => readDatabaseUrl(given)).not.toThrow('hunter2');
  });
});
