// A private server process under a guard: it ends with the process that started it, for whatever reason that ends.

import { fork } from 'node:child_process';
import type { ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { accessSync, constants } from 'node:fs';
import { createServer } from 'node:net';
import { delimiter, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { GuardCommand, GuardReply, ServerPlan } from './services-guard.ts';

export type GuardedServer = {
  /** The process id of the server as it runs now: another one after a restart. */
  readonly pid: number;
  /** Ends the server and removes its folder. May be called more than once. */
  readonly stop: () => Promise<void>;
  /** Kills the server with SIGKILL. `restart` brings it back. */
  readonly kill: () => Promise<void>;
  /** Starts the server anew, in the same folder; kills it first where it still runs. */
  readonly restart: () => Promise<void>;
};

// Debian installs servers outside the PATH of ordinary users.
const usualFolders = ['/usr/local/bin', '/usr/local/sbin', '/usr/bin', '/usr/sbin', '/opt/homebrew/bin'];

/** Where programs are looked for. */
export const programFolders: readonly string[] = [...(process.env['PATH'] ?? '').split(delimiter), ...usualFolders];

/** Finds the first of these programs that is installed. */
export function findProgram(names: readonly string[], folders: readonly string[] = programFolders): string | undefined {
  return folders.flatMap((folder) => names.map((name) => join(folder, name))).find(isExecutable);
}

function isExecutable(file: string): boolean {
  try {
    accessSync(file, constants.X_OK);
    return true;
  } catch {
    return false;
  }
}

/** Starts a server and returns when it is ready. Throws with what it printed where it does not start. */
export async function startGuarded(plan: ServerPlan): Promise<GuardedServer> {
  const guard = forkGuard(plan);
  let pid = 0;
  // If the guard itself was killed, end its server here.
  guard.once('exit', (_code, signal) => {
    if (signal !== null && pid !== 0) process.kill(pid, 'SIGKILL');
  });
  const start = async (): Promise<void> => {
    const reply = await ask(guard, 'start');
    if (reply.pid === undefined) throw new Error(`${plan.program} did not start:\n${reply.output}`);
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
    get pid() {
      return pid;
    },
    stop: () => (stopped ??= stop()),
    kill: async () => void (await ask(guard, 'kill')),
    restart: start,
  };
}

async function ask(guard: ChildProcess, command: GuardCommand): Promise<GuardReply> {
  if (!guard.connected) throw new Error('the private server was stopped');
  // An idle server must not keep the process alive; a pending request must.
  guard.channel?.ref();
  const reply = Promise.withResolvers<GuardReply>();
  const ended = (): void => reply.reject(new Error('the guard of the private server ended'));
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

function forkGuard(plan: ServerPlan): ChildProcess {
  const guard = fork(fileURLToPath(new URL('services-guard.ts', import.meta.url)), [JSON.stringify(plan)], {
    // A session of its own, out of reach of the terminal's Ctrl-C.
    detached: true,
    execArgv: [],
    stdio: ['ignore', 'ignore', 'inherit', 'ipc'],
  });
  guard.unref();
  guard.channel?.unref();
  return guard;
}

/** A port of 127.0.0.1 that is free now. */
export async function findFreePort(): Promise<number> {
  const probe = createServer();
  probe.listen(0, '127.0.0.1');
  await once(probe, 'listening');
  const address = probe.address();
  probe.close();
  await once(probe, 'close');
  if (address === null || typeof address === 'string') throw new Error('the system gave no port');
  return address.port;
}

/** Starts a server at the third try at the latest: its port may have been taken since it was found free. */
export async function tryThrice<T>(start: () => Promise<T>): Promise<T> {
  for (let attempt = 1; ; attempt++) {
    try {
      return await start();
    } catch (error) {
      if (attempt === 3) throw error;
    }
  }
}
