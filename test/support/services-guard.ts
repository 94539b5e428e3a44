// Guards a private server: starts it, and lives as long as the guard's parent process. When the parent ends, for whatever reason,
// the channel closes, and the guard kills the server and removes its folder. It also restarts the server on request. Started by
// services-guarded.ts, never by hand.

import { spawn } from 'node:child_process';
import type { ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, writeFileSync } from 'node:fs';
import { rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

/** A server, as it is started: in a temporary folder of its own, in which it finds `files`. */
export type ServerPlan = {
  readonly program: string;
  readonly args: readonly string[];
  readonly files: Readonly<Record<string, string>>;
  /** What it prints once it takes connections. */
  readonly readyText: string;
};
export type GuardCommand = 'start' | 'kill';
/** The server's process after a start that worked, and what it printed at the start. */
export type GuardReply = { readonly pid: number | undefined; readonly output: string };

// oxlint-disable-next-line typescript/no-unsafe-type-assertion -- written by services-guarded.ts
const plan = JSON.parse(process.argv[2] ?? '') as ServerPlan;
const folder = mkdtempSync(join(tmpdir(), 'arcadia-server-'));
for (const [name, text] of Object.entries(plan.files)) writeFileSync(join(folder, name), text);

let server: ChildProcess | undefined;
let work = Promise.resolve();

/** Without ceremony: nothing is kept. */
async function end(): Promise<void> {
  if (server?.pid === undefined || server.exitCode !== null || server.signalCode !== null) return;
  const exit = once(server, 'exit');
  server.kill('SIGKILL');
  await exit;
}

/** Starts the server, and waits until it takes connections or is gone. */
async function start(): Promise<GuardReply> {
  await end();
  const child = spawn(plan.program, plan.args, { cwd: folder, stdio: ['ignore', 'pipe', 'pipe'] });
  server = child;
  let output = '';
  return new Promise((resolve) => {
    const read = (text: string): void => {
      output = (output + text).slice(-8000);
      if (output.includes(plan.readyText)) resolve({ pid: child.pid, output });
    };
    child.stdout.setEncoding('utf8').on('data', read);
    child.stderr.setEncoding('utf8').on('data', read);
    child.once('error', (error) => resolve({ pid: undefined, output: error.message }));
    child.once('close', () => resolve({ pid: undefined, output }));
  });
}

async function carryOut(command: GuardCommand): Promise<void> {
  let reply: GuardReply = { pid: undefined, output: '' };
  if (command === 'start') reply = await start();
  else await end();
  if (process.connected) process.send?.(reply, undefined, undefined, () => undefined);
}

async function leave(): Promise<void> {
  await work;
  await end();
  await rm(folder, { recursive: true, force: true });
  process.exit(0);
}

// The test runner handles Ctrl-C and ends the services in order.
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(signal, () => undefined);
process.on('disconnect', () => void leave());
process.on('message', (command: GuardCommand) => {
  work = work.then(() => carryOut(command));
});
if (!process.connected) void leave();
