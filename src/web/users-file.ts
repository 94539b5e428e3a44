// Keeps the people of DASHBOARD_USERS_FILE up to date while the web runs. It reads the file every second: watching it would miss
// files that a mount replaces, as Kubernetes does with secrets.
import { ConfigError, inOneLine } from '../platform/config-error.ts';
import type { Log } from '../platform/log.ts';
import type { User } from './users.ts';
import { parseUsers, readUsersText } from './users.ts';

/** Why the file cannot be used, and since when this process knows. */
export type BrokenUsersFile = Readonly<{ message: string; since: Date }>;

export type UsersFile = Readonly<{
  /** The people of the last version of the file that could be used. It is another array after each change. */
  users(): readonly User[];
  /** Null: the file is in use as it stands. */
  broken(): BrokenUsersFile | null;
  close(): void;
}>;

const EVERY_MS = 1_000;

/** There is no file. */
export const noUsersFile: UsersFile = { users: () => [], broken: () => null, close: () => undefined };

/**
 * Reads the file, and again every second. A change counts once two reads in a row show the same text, so that a file that is being written
 * is not taken for the whole. A file that cannot be used changes nothing.
 *
 * @param taken names that other credentials have
 * @throws {ConfigError} if the file cannot be used at the start
 */
export async function openUsersFile(file: string, taken: readonly string[], log: Log): Promise<UsersFile> {
  let used = await readUsersText(file);
  let users: readonly User[] = parseUsers(used, taken);
  let broken: BrokenUsersFile | null = null;
  let last: string | null = used;

  const take = (text: string): void => {
    const changed = parseUsers(text, taken);
    if (text !== used) log.info({ file, ...differenceOf(users, changed) }, 'the users file was read again');
    else log.info({ file }, 'the users file is as it was before');
    users = changed;
    used = text;
    broken = null;
  };
  const look = async (): Promise<void> => {
    try {
      const text = await readUsersText(file);
      const isSettled = text === last;
      last = text;
      if (isSettled && (text !== used || broken !== null)) take(text);
    } catch (error) {
      const message = error instanceof ConfigError ? inOneLine(error) : String(error);
      if (broken?.message !== message) log.error({ file, problem: message }, 'the users file cannot be used: the people of its last version stay valid');
      broken = { message, since: broken?.since ?? new Date(Date.now()) };
    }
  };
  let running: Promise<void> | null = null;
  const timer = setInterval(() => {
    running ??= look().finally(() => {
      running = null;
    });
  }, EVERY_MS);
  timer.unref();
  return { users: () => users, broken: () => broken, close: () => clearInterval(timer) };
}

/** Names of the people who changed. */
function differenceOf(before: readonly User[], after: readonly User[]): Readonly<{ added: string[]; removed: string[]; changed: string[] }> {
  const old = new Map(before.map((user) => [user.name, user]));
  const names = new Set(after.map(({ name }) => name));
  const isOther = (user: User) => {
    const known = old.get(user.name);
    return known !== undefined && (known.role !== user.role || hashText(known) !== hashText(user));
  };
  return {
    added: after.filter(({ name }) => !old.has(name)).map(({ name }) => name),
    removed: before.filter(({ name }) => !names.has(name)).map(({ name }) => name),
    changed: after.filter(isOther).map(({ name }) => name),
  };
}

function hashText({ hash }: User): string | null {
  return hash === null ? null : hash.hash.toString('base64');
}
