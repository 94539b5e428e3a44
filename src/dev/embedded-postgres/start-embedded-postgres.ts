// Starts a real Postgres for this process from the binaries that npm installed: for `dev`, `demo` and the tests. It
// listens only on 127.0.0.1 and ends with this process, however the process ends.

import { fork } from 'node:child_process';
import type { ChildProcess } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { rm } from 'node:fs/promises';
import { resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { builtBeside } from '../../platform/built-beside.ts';
import { unlessAborted } from '../../platform/deadline.ts';
import postgres from 'postgres';
import type { GuardCommand, GuardReply, GuardRequest, ServerPlace, ShutdownMode } from './guard-messages.ts';
import { findNativeDir } from './native-binaries.ts';
import { userName } from './server-process.ts';

export type EmbeddedPostgresOptions = {
  /**
   * Keeps the data in this folder (in its subfolder `data`) between runs. Default: a temporary folder that is deleted
   * with the server.
   */
  readonly dataDir?: string;
  /** Settings of postgresql.conf, on top of ours. Durable unless turned off: `{ fsync: 'off' }`. */
  readonly settings?: Readonly<Record<string, string>>;
  /** Default: any free port. */
  readonly port?: number;
  /** Receives each line of the server's log. */
  readonly log?: (line: string) => void;
  /** Cancels the start, with its reason. After the start, use `stop`. */
  readonly signal?: AbortSignal;
  /** The folder with Postgres's `bin`, `lib` and `share`. Default: that of the installed package for this platform. */
  readonly nativeDir?: string;
};

export type EmbeddedPostgres = {
  /** `postgres://arcadia:<password>@127.0.0.1:<port>/arcadia`; the same after restarts. */
  readonly url: string;
  readonly port: number;
  /** The current process id of the server; it changes with a restart. */
  readonly pid: number;
  /** The folder of the cluster itself. */
  readonly dataDir: string;
  /** Stops the server (fast mode) and removes its temporary folder. May be called more than once. */
  readonly stop: () => Promise<void>;
  /** Stops the server in the given mode and starts it again with the same data and port. Also works after `kill`. */
  readonly restart: (mode: ShutdownMode) => Promise<void>;
  /** Kills the server with SIGKILL. `restart` brings it back. */
  readonly kill: () => Promise<void>;
};

const defaultSettings = {
  max_connections: '200',
  timezone: 'UTC',
  log_timezone: 'UTC',
  // Shared memory as files in the data folder: the small /dev/shm of a container neither fills up nor keeps leftovers.
  dynamic_shared_memory_type: 'mmap',
  log_checkpoints: 'off',
} as const;

/**
 * Starts an embedded Postgres and returns when it accepts connections, usually after about a second. It does not keep the
 * process alive. Throws if there is no Postgres for the platform, if initdb or the server fails (with their output), or
 * if the given port is in use.
 */
export async function startEmbeddedPostgres(options: EmbeddedPostgresOptions = {}): Promise<EmbeddedPostgres> {
  const found = options.nativeDir === undefined ? findNativeDir() : { nativeDir: options.nativeDir, packageName: 'given by nativeDir' };
  const password = randomBytes(24).toString('base64url');
  const guard = openGuard(options.log ?? (() => undefined));
  // initdb and the server run in their own folder, so the path must be absolute.
  const dataDir = options.dataDir === undefined ? undefined : resolve(options.dataDir);
  const start = async (): Promise<ServerPlace> => {
    const settings = { ...defaultSettings, ...options.settings };
    const started = await guard.placeAfter({
      kind: 'start',
      spec: { ...found, dataDir, port: options.port, password, settings },
    });
    await ensureDatabase(urlOf(started, password, 'postgres'));
    return started;
  };
  const { signal = new AbortController().signal } = options;
  let place: ServerPlace;
  try {
    place = await unlessAborted(signal, start());
  } catch (error) {
    await (signal.aborted ? guard.abandon() : guard.close());
    throw error;
  }
  let stopped: Promise<void> | undefined;
  return {
    url: urlOf(place, password, userName),
    port: place.port,
    dataDir: place.dataDir,
    get pid() {
      return place.pid;
    },
    stop: () => (stopped ??= guard.close()),
    restart: async (mode) => {
      place = await guard.placeAfter({ kind: 'restart', mode });
    },
    kill: async () => {
      await guard.ask({ kind: 'kill' });
    },
  };
}

function urlOf(place: ServerPlace, password: string, database: string): string {
  return `postgres://${userName}:${password}@127.0.0.1:${place.port}/${database}`;
}

async function ensureDatabase(url: string): Promise<void> {
  // Disables the query of array types: postgres.js catches none of its errors, and a server that ends at that moment
  // would end this process.
  const sql = postgres(url, { max: 1, fetch_types: false, onnotice: () => undefined });
  try {
    const found = await sql`select 1 from pg_database where datname = ${userName}`;
    if (found.length === 0) await sql`create database ${sql(userName)}`;
  } finally {
    await sql.end({ timeout: 5 });
  }
}

type Guard = {
  readonly ask: (command: GuardCommand) => Promise<ServerPlace | undefined>;
  readonly placeAfter: (command: GuardCommand) => Promise<ServerPlace>;
  readonly close: () => Promise<void>;
  /** Ends the guard in the middle of its work, and everything it started. */
  readonly abandon: () => Promise<void>;
};

type Waiting = { readonly resolve: (place: ServerPlace | undefined) => void; readonly reject: (error: Error) => void };

function openGuard(log: (line: string) => void): Guard {
  const child = forkGuard();
  const waiting = new Map<number, Waiting>();
  let lastId = 0;
  let lastPlace: ServerPlace | undefined;
  let complaints = '';

  child.stderr?.setEncoding('utf8').on('data', (text: string) => (complaints += text));
  child.on('message', (message: GuardReply) => {
    if (message.kind === 'log') {
      log(message.line);
      return;
    }
    const { resolve, reject } = waiting.get(message.id) ?? {};
    waiting.delete(message.id);
    if (message.kind === 'failed') {
      reject?.(new Error(message.message));
      return;
    }
    lastPlace = message.place ?? lastPlace;
    resolve?.(message.place);
  });
  const failAll = (error: Error): void => {
    for (const { reject } of waiting.values()) reject(error);
    waiting.clear();
  };
  child.once('error', (error) => failAll(error));
  child.once('exit', (code, signal) => {
    failAll(new Error(`the guard of the embedded Postgres ended (${signal ?? `exit code ${code}`})\n${complaints}`.trim()));
    // If the guard was killed, it could not clean up Postgres, so do it here.
    if (signal !== null && lastPlace !== undefined) void clearAway(lastPlace);
  });

  const ask = async (command: GuardCommand): Promise<ServerPlace | undefined> => {
    if (!child.connected) throw new Error('the embedded Postgres was stopped');
    const request: GuardRequest = { id: ++lastId, command };
    // An idle server must not keep the process alive; a pending request must.
    child.channel?.ref();
    try {
      return await new Promise((resolve, reject) => {
        waiting.set(request.id, { resolve, reject });
        child.send(request, (error) => {
          if (error !== null) reject(error);
        });
      });
    } finally {
      if (waiting.size === 0) child.channel?.unref();
    }
  };
  return {
    ask,
    placeAfter: async (command) => {
      const place = await ask(command);
      if (place === undefined) throw new Error(`the guard of the embedded Postgres did not say where it is after ${command.kind}`);
      return place;
    },
    close: async () => {
      if (!child.connected) return;
      const exit = once(child, 'exit');
      child.ref();
      try {
        await ask({ kind: 'stop' });
      } finally {
        if (child.connected) child.disconnect();
        await exit;
      }
    },
    abandon: async () => {
      if (!child.connected) return;
      const exit = once(child, 'exit');
      child.ref();
      child.disconnect();
      await exit;
    },
  };
}

function forkGuard(): ChildProcess {
  const { PATH, TMPDIR } = process.env;
  const child = fork(fileURLToPath(builtBeside('guard', import.meta.url)), [], {
    // A separate session: the terminal sends Ctrl-C to all processes of a group, and Postgres must outlive the parent's
    // shutdown.
    detached: true,
    execArgv: [],
    env: { PATH, ...(TMPDIR === undefined ? {} : { TMPDIR }) },
    stdio: ['ignore', 'ignore', 'pipe', 'ipc'],
  });
  child.unref();
  child.channel?.unref();
  if (child.stderr !== null && 'unref' in child.stderr && typeof child.stderr.unref === 'function') child.stderr.unref();
  return child;
}

async function clearAway({ pid, folder }: ServerPlace): Promise<void> {
  try {
    process.kill(pid, 'SIGQUIT');
  } catch {
    // It has already ended.
  }
  // There is no caller to report a failure to. The server writes in its folder until it has ended, hence the retries.
  await rm(folder, { recursive: true, force: true, maxRetries: 20, retryDelay: 50 }).catch(() => undefined);
}
