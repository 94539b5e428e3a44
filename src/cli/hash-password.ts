// `arcadia hash-password`: makes a line of DASHBOARD_USERS_FILE.
import { createInterface } from 'node:readline/promises';
import { Writable } from 'node:stream';
import { text } from 'node:stream/consumers';
import { SHORTEST_SECRET } from '../platform/closed-ports.ts';
import type { Role } from '../platform/config-fields.ts';
import { hashPassword } from '../platform/passwords.ts';
import { isUserName } from '../web/users.ts';
import { UsageError } from './usage-error.ts';

/**
 * Reads a password and prints its hash, or with `user` the whole line.
 *
 * @returns the exit code
 * @throws {UsageError} for a name that cannot be one, or a password that is too short
 */
export async function hashPasswordCommand({ user, role }: { user?: string; role: Role }): Promise<number> {
  if (user !== undefined && !isUserName(user)) throw new UsageError('--user: expected a name of at most 100 characters, without colons, commas and blanks at its ends');
  const password = process.stdin.isTTY ? await ask() : (await text(process.stdin)).replace(/\r?\n$/, '');
  if (password.length < SHORTEST_SECRET) throw new UsageError(`expected a password of at least ${SHORTEST_SECRET} characters; \`openssl rand -base64 24\` makes one`);
  const hash = await hashPassword(password);
  process.stdout.write(`${user === undefined ? hash : `${user}:${role}:${hash}`}\n`);
  return 0;
}

/** Asks twice on the terminal, without showing what is typed. */
async function ask(): Promise<string> {
  const nowhere = new Writable({ write: (_chunk, _encoding, done) => done() });
  const terminal = createInterface({ input: process.stdin, output: nowhere, terminal: true });
  const closed = new AbortController();
  terminal.once('close', () => closed.abort());
  // The terminal is in raw mode: it sends no signal itself.
  terminal.once('SIGINT', () => process.kill(process.pid, 'SIGINT'));
  const question = async (words: string) => {
    process.stderr.write(words);
    try {
      return await terminal.question('', { signal: closed.signal });
    } catch {
      throw new UsageError('no password was given');
    } finally {
      process.stderr.write('\n');
    }
  };
  try {
    const password = await question('Password: ');
    if ((await question('Again: ')) === password) return password;
    throw new UsageError('the passwords differ');
  } finally {
    terminal.close();
  }
}
