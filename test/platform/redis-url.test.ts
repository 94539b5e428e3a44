import { describe, expect, test } from 'vitest';
import { loadConfig } from '../../src/platform/config.ts';
import { ConfigError } from '../../src/platform/config-error.ts';
import { readRedisNodes, splitRedisUrl } from '../../src/platform/redis-url.ts';

const read = (value: string) => readRedisNodes(splitRedisUrl(value));
const nobody = { username: null, password: null };
const plain = { ...nobody, isSecure: false, database: 0, family: 0, sentinel: null };

describe('readRedisNodes', () => {
  test.each([
    ['redis://one', { ...plain, kind: 'server', hosts: [{ host: 'one', port: 6_379 }] }],
    ['redis://[::1]:7000/3?family=6', { ...plain, kind: 'server', hosts: [{ host: '::1', port: 7_000 }], database: 3, family: 6 }],
    ['rediss://ada:p%40ss@one', { ...plain, kind: 'server', hosts: [{ host: 'one', port: 6_379 }], isSecure: true, username: 'ada', password: 'p@ss' }],
    ['redis://:pass@one:1, redis://two:2/0', { ...plain, kind: 'cluster', hosts: [{ host: 'one', port: 1 }, { host: 'two', port: 2 }], password: 'pass' }],
    ['redis+sentinel://one,two:5/my-master', { ...plain, kind: 'sentinel', hosts: [{ host: 'one', port: 26_379 }, { host: 'two', port: 5 }], sentinel: { ...nobody, master: 'my-master' } }],
    [
      'rediss+sentinel://ada:p@ss@[::1]:1,two:5/my-master/2?sentinelPassword=s%26p&sentinelUsername=watch',
      { ...plain, kind: 'sentinel', hosts: [{ host: '::1', port: 1 }, { host: 'two', port: 5 }], isSecure: true, database: 2, username: 'ada', password: 'p@ss', sentinel: { master: 'my-master', username: 'watch', password: 's&p' } },
    ],
  ])('reads %s', (value, expected) => {
    expect(read(value)).toEqual(expected);
  });
});

describe('REDIS_URL', () => {
  test.each([
    ['redis://:hunter2@one?tls=true', 'the parameter tls is not supported; supported: family'],
    ['redis://:hunter2@one?family=5', 'family: expected 0, 4 or 6'],
    ['redis://:hunter2@one/main', 'expected a database number'],
    ['redis://:hunter2@one/1/2', 'expected a database number'],
    ['redis://:hunter2@one/1,redis://two', 'expected no database number: a Redis Cluster has database 0 only'],
    ['redis://:hunter2@one,rediss://two', 'expected redis:// or rediss:// for all nodes'],
    ['redis://:hunter2@one,redis://:other@two', 'expected the same user and password'],
    ['redis://:hunter2@one#2', 'expected no # in it'],
    ['redis://:hunter2%@one', 'a % in user, password or name begins no code'],
    ['unix:///run/redis.sock', 'Unix sockets are not supported'],
    ['redis+unix:///run/redis.sock', 'Unix sockets are not supported'],
    ['/run/redis.sock', 'Unix sockets are not supported'],
    ['redis+sentinel://:hunter2@one,two', 'expected the name of the master after the Sentinels'],
    ['redis+sentinel://:hunter2@one,/my-master', 'expected the Sentinels as host:port'],
    ['redis+sentinel://:hunter2@one:port/my-master', 'expected the Sentinels as host:port'],
    ['redis+sentinel://:hunter2@one/my-master/x', 'expected a database number'],
    ['redis+sentinel://:hunter2@one/my-master?role=slave', 'the parameter role is not supported'],
    ['redis-sentinel://:hunter2@one/my-master', 'expected redis://host:port'],
    ['one:6379', 'expected redis://host:port'],
  ])('refuses %s by name, and keeps the password to itself', (value, reason) => {
    const load = () => loadConfig({ REDIS_URL: value });
    expect(load).toThrow(ConfigError);
    expect(load).toThrow(`REDIS_URL: ${reason}`);
    expect(load).not.toThrow('hunter2');
  });
});
