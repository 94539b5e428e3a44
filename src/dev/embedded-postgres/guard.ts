// The guard of an embedded Postgres: a separate process that creates the temporary folder, starts Postgres in it, and
// lives exactly as long as the process that started it. When that process ends, for any reason, their channel closes. The
// guard then stops Postgres and removes the folder. Started by start-embedded-postgres.ts, never by hand.

import { mkdir, mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { GuardCommand, GuardReply, GuardRequest, ServerPlace, ServerSpec, ShutdownMode } from './guard-messages.ts';
import { prepareBinaries } from './native-binaries.ts';
import { findRunAs, giveTo } from './run-as.ts';
import { endServer, ensureCluster, findFreePort, PortTakenError, startServer } from './server-process.ts';
import type { PostgresServer, StartArgs } from './server-process.ts';

type Guarded = { readonly folder: string; readonly start: StartArgs; server: PostgresServer };

/** Another process rarely takes a port between our check and Postgres's listen. Five times in a row has another cause. */
const portTries = 5;

const abandoned = new AbortController();
let folder: string | undefined;
let guarded: Guarded | undefined;

async function start(spec: ServerSpec): Promise<ServerPlace> {
  const runAs = await findRunAs();
  folder = await mkdtemp(join(tmpdir(), 'arcadia-postgres-'));
  await giveTo(runAs, folder);
  const home = spec.dataDir ?? folder;
  if (spec.dataDir !== undefined) {
    await mkdir(spec.dataDir, { recursive: true, mode: 0o700 });
    await giveTo(runAs, spec.dataDir);
  }
  const { signal } = abandoned;
  const { nativeDir, packageName, password, settings } = spec;
  const binaries = await prepareBinaries({ nativeDir, packageName, runAs, scratchDir: folder });
  const durability = spec.dataDir === undefined ? 'disposable' : 'durable';
  const dataDir = await ensureCluster({ binaries, runAs, home, password, durability, signal });
  for (let attempt = 1; ; attempt++) {
    const port = spec.port ?? (await findFreePort());
    const args: StartArgs = { binaries, runAs, dataDir, port, settings, log, signal };
    try {
      guarded = { folder, start: args, server: await startServer(args) };
      return placeOf(guarded);
    } catch (error) {
      const another = error instanceof PortTakenError && spec.port === undefined && attempt < portTries;
      if (!another) throw error;
    }
  }
}

async function restart(mode: ShutdownMode): Promise<ServerPlace> {
  const current = running();
  await endServer(current.server, mode);
  current.server = await startServer(current.start);
  return placeOf(current);
}

async function kill(): Promise<void> {
  const { server } = running();
  server.program.kill('SIGKILL');
  await server.exited;
}

async function end(mode: ShutdownMode): Promise<void> {
  if (guarded !== undefined) await endServer(guarded.server, mode);
  // The processes of a killed server may still write here for a moment.
  if (folder !== undefined) await rm(folder, { recursive: true, force: true, maxRetries: 20, retryDelay: 100 });
}

function running(): Guarded {
  if (guarded === undefined) throw new Error('the embedded Postgres was never started');
  return guarded;
}

function placeOf({ server, start, folder }: Guarded): ServerPlace {
  return { port: start.port, pid: server.pid, dataDir: start.dataDir, folder };
}

async function carryOut(command: GuardCommand): Promise<ServerPlace | undefined> {
  switch (command.kind) {
    case 'start':
      return start(command.spec);
    case 'restart':
      return restart(command.mode);
    case 'kill':
      await kill();
      return undefined;
    case 'stop':
      await end('fast');
      return undefined;
    default:
      return command satisfies never;
  }
}

async function answer({ id, command }: GuardRequest): Promise<void> {
  try {
    reply({ kind: 'done', id, place: await carryOut(command) });
  } catch (error) {
    reply({ kind: 'failed', id, message: error instanceof Error ? error.message : String(error) });
  }
}

function log(line: string): void {
  reply({ kind: 'log', line });
}

function reply(message: GuardReply): void {
  // The channel may close at any moment. The 'disconnect' handler covers that.
  if (process.connected) process.send?.(message, undefined, undefined, () => undefined);
}

let work = Promise.resolve();

function serve(request: GuardRequest): void {
  work = work.then(() => answer(request));
}

let leaving = false;

async function leave(): Promise<void> {
  if (leaving) return;
  leaving = true;
  // Cancels the work in progress and waits for it, because it may still start something.
  abandoned.abort();
  await work;
  // Nothing will read a disposable cluster again. Any other cluster needs a clean shutdown.
  const disposable = guarded === undefined || guarded.start.dataDir.startsWith(guarded.folder);
  await end(disposable ? 'immediate' : 'fast');
  process.exit(0);
}

// The terminal's Ctrl-C and a service manager's SIGTERM are meant for the parent, which still needs Postgres to shut down
// in order.
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(signal, () => undefined);
process.on('disconnect', () => void leave());
process.on('message', serve);
if (!process.connected) void leave();
