// A Redis server of the test's own: the redis-server or valkey-server of this machine, on a free port of 127.0.0.1, in a
// temporary folder, without persistence. It ends with the process that started it, however that ends.

import { fork } from 'node:child_process';
import type { ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { accessSync, constants } from 'node:fs';
import { createServer } from 'node:net';
import { delimiter, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { RedisCommand, RedisReply } from './services-redis-guard.ts';

export type PrivateRedis = {
  readonly url: string;
  readonly port: number;
  /** The process id of the server as it runs now: another one after a restart. */
  readonly pid: number;
  /** Ends the server and removes its folder. May be called more than once. */
  readonly stop: () => Promise<void>;
  /** Kills the server with SIGKILL. `restart` brings it back. */
  readonly kill: () => Promise<void>;
  /** Starts the server anew on the same port, empty; kills it first where it still runs. */
  readonly restart: () => Promise<void>;
  /** Freezes the server (SIGSTOP): connections stay open, and nothing answers. */
  readonly pause: () => void;
  /** Ends a pause. */
  readonly resume: () => void;
};

/**
 * Starts a Redis server and returns when it answers. `settings` are those of redis.conf, on top of our own. Throws, saying
 * what to install, where the machine has none, and when the server does not start.
 */
export async function startPrivateRedis(settings: Readonly<Record<string, string>> = {}): Promise<PrivateRedis> {
  const program = findRedisProgram();
  for (let attempt = 1; ; attempt++) {
    try {
      return await tryStart(program, settings);
    } catch (error) {
      // Its port may have been taken since we found it free.
      if (attempt === 3) throw error;
    }
  }
}

// Debian keeps servers where the PATH of ordinary users does not look.
const usualFolders = ['/usr/local/bin', '/usr/local/sbin', '/usr/bin', '/usr/sbin', '/opt/homebrew/bin'];

/** Finds the server program of Redis or Valkey. Throws, saying what to install, where there is none. */
export function findRedisProgram(folders = [...(process.env['PATH'] ?? '').split(delimiter), ...usualFolders]): string {
  const found = folders.flatMap((folder) => [join(folder, 'redis-server'), join(folder, 'valkey-server')]).find(isExecutable);
  if (found === undefined) {
    throw new Error('the tests need a Redis server, and neither redis-server nor valkey-server is installed: run script/setup, or set TEST_REDIS_URL');
  }
  return found;
}

function isExecutable(file: string): boolean {
  try {
    accessSync(file, constants.X_OK);
    return true;
  } catch {
    return false;
  }
}

async function tryStart(program: string, settings: Readonly<Record<string, string>>): Promise<PrivateRedis> {
  const port = await findFreePort();
  const own = { port: String(port), bind: '127.0.0.1', save: '', appendonly: 'no', 'maxmemory-policy': 'noeviction' };
  const flags = Object.entries({ ...own, ...settings }).flatMap(([name, value]) => [`--${name}`, value]);
  const guard = forkGuard([program, ...flags]);
  const url = `redis://127.0.0.1:${port}`;
  let pid = 0;
  // Killed by itself, the guard could not see to its server: then we do.
  guard.once('exit', (_code, signal) => {
    if (signal !== null && pid !== 0) process.kill(pid, 'SIGKILL');
  });
  const start = async (): Promise<void> => {
    const reply = await ask(guard, 'start');
    if (reply.pid === undefined) throw new Error(`${program} did not start on port ${port}:\n${reply.output}`);
    pid = reply.pid;
  };
  let stopped: Promise<void> | undefined;
  const stop = async (): Promise<void> => {
    if (!guard.connected) return;
    const exit = once(guard, 'exit');
    guard.ref();
    guard.disconnect();
    await exit;
  };
  try {
    await start();
  } catch (error) {
    await stop();
    throw error;
  }
  return {
    url,
    port,
    get pid() {
      return pid;
    },
    stop: () => (stopped ??= stop()),
    kill: async () => void (await ask(guard, 'kill')),
    restart: start,
    pause: () => void process.kill(pid, 'SIGSTOP'),
    resume: () => void process.kill(pid, 'SIGCONT'),
  };
}

async function ask(guard: ChildProcess, command: RedisCommand): Promise<RedisReply> {
  if (!guard.connected) throw new Error('the private Redis was stopped');
  // An idle server must not keep the process alive; an open question must.
  guard.channel?.ref();
  const reply = Promise.withResolvers<RedisReply>();
  const ended = (): void => reply.reject(new Error('the guard of the private Redis ended'));
  guard.once('message', reply.resolve);
  guard.once('exit', ended);
  guard.send(command);
  try {
    return await reply.promise;
  } finally {
    guard.off('exit', ended);
    guard.channel?.unref();
  }
}

function forkGuard(args: string[]): ChildProcess {
  const guard = fork(fileURLToPath(new URL('services-redis-guard.ts', import.meta.url)), args, {
    // A session of its own, out of reach of the terminal's Ctrl-C.
    detached: true,
    execArgv: [],
    stdio: ['ignore', 'ignore', 'inherit', 'ipc'],
  });
  guard.unref();
  guard.channel?.unref();
  return guard;
}

async function findFreePort(): Promise<number> {
  const probe = createServer();
  probe.listen(0, '127.0.0.1');
  await once(probe, 'listening');
  const address = probe.address();
  probe.close();
  await once(probe, 'close');
  if (address === null || typeof address === 'string') throw new Error('the system gave no port');
  return address.port;
}
