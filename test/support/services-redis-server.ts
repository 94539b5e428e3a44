// A private Redis server: the redis-server or valkey-server of this machine, on a free port of 127.0.0.1, in a temporary folder,
// without persistence. It ends with the process that started it.

import { findFreePort, findProgram, programFolders, startGuarded, tryThrice } from './services-guarded.ts';
import type { GuardedServer } from './services-guarded.ts';

export type PrivateRedis = GuardedServer & {
  readonly url: string;
  readonly port: number;
  /** Freezes the server (SIGSTOP): connections stay open, and nothing answers. */
  readonly pause: () => void;
  /** Ends a pause. */
  readonly resume: () => void;
};

/**
 * Starts a Redis server and returns when it responds. After a restart it is empty. `settings` are settings of redis.conf, in
 * addition to the defaults here. Throws if the server does not start, or is not installed; the message says what to install.
 */
export function startPrivateRedis(settings: Readonly<Record<string, string>> = {}): Promise<PrivateRedis> {
  const program = findRedisProgram();
  return tryThrice(() => start(program, settings));
}

/** Starts a Sentinel, alone its own quorum, that watches a master. Its URL is that of the Sentinel itself. */
export async function startPrivateSentinel(masterName: string, master: Pick<PrivateRedis, 'port'>): Promise<PrivateRedis> {
  const program = findRedisProgram();
  return tryThrice(async () => {
    const port = await findFreePort();
    const file = 'sentinel.conf';
    const config = [
      `port ${port}`,
      'bind 127.0.0.1',
      `sentinel monitor ${masterName} 127.0.0.1 ${master.port} 1`,
      `sentinel down-after-milliseconds ${masterName} 500`,
      `sentinel failover-timeout ${masterName} 500`,
    ];
    const server = await startGuarded({ program, args: [file, '--sentinel'], files: { [file]: `${config.join('\n')}\n` }, readyText: '+monitor master' });
    return controlled(server, port);
  });
}

/** Finds the server program of Redis or Valkey. Throws, saying what to install, where there is none. */
export function findRedisProgram(folders: readonly string[] = programFolders): string {
  const found = findProgram(['redis-server', 'valkey-server'], folders);
  if (found === undefined) {
    throw new Error('the tests need a Redis server, and neither redis-server nor valkey-server is installed: run script/setup, or set TEST_REDIS_URL');
  }
  return found;
}

async function start(program: string, settings: Readonly<Record<string, string>>): Promise<PrivateRedis> {
  const port = await findFreePort();
  const own = { port: String(port), bind: '127.0.0.1', save: '', appendonly: 'no', 'maxmemory-policy': 'noeviction' };
  const args = Object.entries({ ...own, ...settings }).flatMap(([name, value]) => [`--${name}`, value]);
  const server = await startGuarded({ program, args, files: {}, readyText: 'Ready to accept connections' });
  return controlled(server, port);
}

function controlled(server: GuardedServer, port: number): PrivateRedis {
  return {
    url: `redis://127.0.0.1:${port}`,
    port,
    get pid() {
      return server.pid;
    },
    stop: server.stop,
    kill: server.kill,
    restart: server.restart,
    pause: () => void process.kill(server.pid, 'SIGSTOP'),
    resume: () => void process.kill(server.pid, 'SIGCONT'),
  };
}
