// The people who may use the web: their roles, and the file that lists them (DASHBOARD_USERS_FILE).
import { readFile } from 'node:fs/promises';
import type { Scope } from '../platform/api-tokens.ts';
import type { Config } from '../platform/config.ts';
import { ConfigError, inOneLine, refusal } from '../platform/config-error.ts';
import type { Role } from '../platform/config-fields.ts';
import { roles } from '../platform/config-fields.ts';
import type { PasswordHash } from '../platform/passwords.ts';
import { parsePasswordHash } from '../platform/passwords.ts';

/** A person. `hash` null: only the proxy of AUTH_PROXY_HEADER can log them in. */
export type User = Readonly<{ name: string; role: Role; hash: PasswordHash | null }>;

const VARIABLE = 'DASHBOARD_USERS_FILE';

const scopesOfRole: Readonly<Record<Role, readonly Scope[]>> = {
  read: ['read'],
  start: ['read', 'start'],
  operate: ['read', 'start', 'destroy', 'operate'],
};

/** What a role allows. */
export function scopesOf(role: Role): readonly Scope[] {
  return scopesOfRole[role];
}

/** Names that no user may have, because other credentials have them. */
export function takenNames({ tokens, person }: Pick<Config['web'], 'tokens' | 'person'>): string[] {
  return [...tokens.map(({ name }) => name), ...(person === null ? [] : [person.user])];
}

/**
 * Reads the file.
 *
 * @param taken names that other credentials have
 * @throws {ConfigError} naming each bad line, without quoting it
 */
export async function readUsers(file: string, taken: readonly string[]): Promise<User[]> {
  return parseUsers(await readUsersText(file), taken);
}

/** What is wrong with DASHBOARD_USERS_FILE; null: nothing, or there is none. */
export async function problemOfUsersFile(web: Pick<Config['web'], 'usersFile' | 'tokens' | 'person'>): Promise<string | null> {
  if (web.usersFile === null) return null;
  try {
    await readUsers(web.usersFile, takenNames(web));
    return null;
  } catch (error) {
    if (error instanceof ConfigError) return inOneLine(error);
    throw error;
  }
}

/**
 * Reads the file's text.
 *
 * @throws {ConfigError}
 */
export async function readUsersText(file: string): Promise<string> {
  try {
    return await readFile(file, 'utf8');
  } catch (error) {
    throw new ConfigError(`${VARIABLE}: ${file} cannot be read (${error instanceof Error && 'code' in error ? String(error.code) : String(error)})`);
  }
}

/**
 * Parses the lines of the file: `name:role:hash`, or `name:role` for people that a proxy logs in. Empty lines and lines
 * that begin with # are left out.
 *
 * @throws {ConfigError}
 */
export function parseUsers(text: string, taken: readonly string[] = []): User[] {
  const users: User[] = [];
  const problems: string[] = [];
  for (const [index, line] of text.split(/\r?\n/).entries()) {
    if (line.trim() === '' || line.startsWith('#')) continue;
    const parsed = parseLine(line.trim());
    const isTaken = typeof parsed !== 'string' && [...taken, ...users.map(({ name }) => name)].includes(parsed.name);
    if (typeof parsed === 'string') problems.push(`${VARIABLE}: line ${index + 1}: ${parsed}`);
    else if (isTaken) problems.push(`${VARIABLE}: line ${index + 1}: the name ${parsed.name} is taken, by another line, DASHBOARD_USER or one of API_TOKENS; the audit tells them apart by their names`);
    else users.push(parsed);
  }
  if (users.length === 0 && problems.length === 0) problems.push(`${VARIABLE}: the file lists nobody; expected lines of name:role:hash`);
  if (problems.length > 0) throw refusal(problems);
  return users;
}

function parseLine(line: string): User | string {
  const [name = '', role = '', hash, ...rest] = line.split(':');
  const known = roles.find((one) => one === role);
  if (!isUserName(name) || known === undefined || rest.length > 0) return `expected name:role:hash with a role of ${roles.join(', ')}; \`arcadia hash-password\` makes the hash`;
  if (hash === undefined) return { name, role: known, hash: null };
  const parsed = parsePasswordHash(hash);
  return parsed === null ? 'expected a hash made by `arcadia hash-password`' : { name, role: known, hash: parsed };
}

/** Names go into the audit, logs and pages. */
export function isUserName(name: string): boolean {
  return name.length >= 1 && name.length <= 100 && /^[^:,\p{C}\s](?:[^:,\p{C}]*[^:,\p{C}\s])?$/u.test(name);
}
