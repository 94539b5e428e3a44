// Completion in the shell: what the script that the shell sources is answered.
import { expect, test } from 'vitest';
import { runCommand } from '../support/fleet.ts';

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
