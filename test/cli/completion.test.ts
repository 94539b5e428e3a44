// Completion in the shell: what the script that the shell sources is answered, and what a person sees who presses Tab.
import { chmod, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { runCommand } from '../support/fleet.ts';
import type { Typed } from '../support/terminal.ts';
import { arcadia as program, plain, startShell } from '../support/terminal.ts';
import { waitFor } from '../support/wait-for.ts';

const arcadia = (...args: string[]) => runCommand(args, { PATH: process.env['PATH'] });

/** What is offered for the last word; the first column, as the second tells people what it is for. */
async function offered(...words: string[]): Promise<string[]> {
  const ended = await arcadia('complete', '--', ...words);
  expect([ended.code, ended.stderr]).toEqual([0, '']);
  return ended.stdout.trimEnd().split('\n').slice(0, -1).map((line) => line.split('\t', 1)[0] ?? '');
}

test('commands, options and statuses are offered', async () => {
  expect(await Promise.all([offered('sa'), offered('saga', '--fo'), offered('sagas', '--status', 'comp')])).toEqual([
    ['sagas', 'saga', 'sandbox'],
    ['--follow'],
    ['completed', 'compensating', 'compensated'],
  ]);
});

test('there is a script for bash, and none for a shell that nobody knows', async () => {
  const [bash, tcsh] = await Promise.all([arcadia('complete', 'bash'), arcadia('complete', 'tcsh')]);
  expect([bash.code, bash.stderr]).toEqual([0, '']);
  expect(bash.stdout).toContain('arcadia complete --');
  expect([tcsh.code, tcsh.stdout]).toEqual([2, '']);
});

/** Resolves with what is new on the terminal once it shows all of these. */
async function typed(terminal: Typed, text: string, shows: readonly string[]): Promise<string> {
  const from = terminal.output().length;
  terminal.type(text);
  const added = () => plain(terminal.output().slice(from));
  return waitFor(() => shows.every((one) => added().includes(one)) && added(), { what: `${JSON.stringify(text)} to show ${shows.join(', ')}` }).catch((error: unknown) => {
    throw new Error(`the terminal shows ${JSON.stringify(terminal.output())}`, { cause: error });
  });
}

describe('in a shell', () => {
  let folder: string;
  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), 'arcadia-test-'));
    await writeFile(join(folder, 'arcadia'), `#!/bin/sh\nexec ${program} "$@"\n`);
    await chmod(join(folder, 'arcadia'), 0o755);
  });
  afterAll(() => rm(folder, { recursive: true, force: true }));

  const shells = [
    { shell: 'bash', command: 'bash --norc -i', prepare: 'unset -f _get_comp_words_by_ref; source <(arcadia complete bash); source <(arcadia complete bash)' },
    { shell: 'zsh', command: 'zsh -f -i', prepare: 'autoload -Uz compinit; compinit -D -u; source <(arcadia complete zsh); source <(arcadia complete zsh)' },
  ];

  // Ctrl-U empties the line.
  const CLEAR = '\u0015';

  test.each(shells)('$shell completes commands, options and values on Tab, without any other package, and is silent about being sourced twice', async ({ command, prepare }) => {
    const { PATH, HOME } = process.env;
    const terminal = startShell(`stty rows 40 cols 120; exec ${command}`, { PATH: `${folder}:${PATH}`, HOME, TERM: 'xterm', SHELL: '/bin/sh' }, 'script', ['-q', '-f', '-e', '/dev/null', '-c']);
    const sourced = await typed(terminal, `${prepare}; echo "sourced: $?"\n`, ['sourced: 0']);
    expect(sourced).not.toMatch(/readonly|not found/);
    await typed(terminal, 'arcadia sa\t\t', ['saga ', 'sagas ', 'sandbox']);
    await typed(terminal, `${CLEAR}arcadia saga --fo\t`, ['--follow']);
    await typed(terminal, `${CLEAR}arcadia sagas --status comp\t\t`, ['compensated', 'compensating', 'completed']);
    terminal.type(`${CLEAR}exit\n`);
    await terminal.ended;
    expect(terminal.output()).not.toMatch(/command not found|readonly variable/);
  });
});
