// Runs commands as people do: in a shell, with pipes, and on a terminal.
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { stripVTControlCharacters } from 'node:util';
import { onTestFinished } from 'vitest';
import { compileCache } from './compile-cache.ts';
import { programFile } from './programs.ts';

/** The program, for a line of shell. */
export const arcadia = `'${process.execPath}' '${programFile('main')}'`;

export type Typed = Readonly<{ pid: number; output(): string; errors(): string; type(text: string): void; ended: Promise<unknown> }>;

/** Runs a line of shell. */
export function startShell(line: string, environment: NodeJS.ProcessEnv, program = 'sh', options = ['-c']): Typed {
  const child = spawn(program, [...options, line], { env: { ...compileCache, ...environment }, stdio: ['pipe', 'pipe', 'pipe'] });
  onTestFinished(() => void child.kill('SIGKILL'));
  let output = '';
  let errors = '';
  child.stdout.on('data', (chunk: Buffer) => (output += chunk.toString()));
  child.stderr.on('data', (chunk: Buffer) => (errors += chunk.toString()));
  return { pid: child.pid ?? 0, output: () => output, errors: () => errors, type: (text) => void child.stdin.write(text), ended: once(child, 'close').then(() => child.exitCode) };
}

/** Runs a line of shell to its end. */
export async function runShell(line: string, environment: NodeJS.ProcessEnv) {
  const { ended, output, errors } = startShell(line, environment);
  return { code: await ended, stdout: output(), stderr: errors() };
}

/** Types a command of the program into a terminal of its own. */
export function startOnTerminal(environment: NodeJS.ProcessEnv, command: string, { rows = 40, columns = 120 } = {}): Typed {
  return startShell(`stty rows ${rows} cols ${columns}; exec ${arcadia} ${command}`, { ...environment, TERM: 'xterm', SHELL: '/bin/sh' }, 'script', ['-q', '-f', '-e', '/dev/null', '-c']);
}

/** What a person reads of it. */
export function plain(output: string): string {
  return stripVTControlCharacters(output).replaceAll('\r', '');
}
