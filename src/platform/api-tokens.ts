// The bearer tokens of the HTTP API: their scopes, and how API_TOKENS writes them.
import { z } from 'zod';

/**
 * Scopes of a bearer token: read, start sagas, start sagas that destroy, and operate (cancel and retry sagas, operate
 * queues).
 */
export type Scope = 'read' | 'start' | 'destroy' | 'operate';

export const scopes: readonly Scope[] = ['read', 'start', 'destroy', 'operate'];

/** One entry of API_TOKENS. The name is for the audit trail and for revoking the token. */
export type ApiToken = Readonly<{ name: string; scopes: readonly Scope[]; secret: string }>;

const API_TOKEN_SYNTAX =
  'expected bearer tokens separated by commas, each either a secret (which may do everything) or name:scopes:secret, ' +
  'with scopes of read, start, destroy and operate joined by +, such as billing:read+start:…; names of a-z, 0-9, - and _, each once; ' +
  'secrets without blanks and commas';

/** The variable API_TOKENS. */
export const apiTokens = z
  .string()
  .transform((value) => value.split(',').map((entry, index) => parseApiToken(entry.trim(), index)))
  .refine((tokens) => tokens.every((token) => token !== null), API_TOKEN_SYNTAX)
  .transform((tokens) => tokens.filter((token) => token !== null))
  .refine((tokens) => new Set(tokens.map(({ name }) => name)).size === tokens.length, API_TOKEN_SYNTAX);

const secretPattern = /^[\x21-\x7e]+$/;

function parseApiToken(entry: string, index: number): ApiToken | null {
  if (!entry.includes(':')) return secretPattern.test(entry) ? { name: `token-${index + 1}`, scopes, secret: entry } : null;
  const [, name = '', list = '', secret = ''] = /^([a-z0-9][a-z0-9_-]*):([a-z+]+):(.+)$/.exec(entry) ?? [];
  const granted = list.split('+');
  const known = scopes.filter((scope) => granted.includes(scope));
  return name !== '' && known.length === granted.length && secretPattern.test(secret) ? { name, scopes: known, secret } : null;
}

/** Whether a token may start `destroy_droplet` only because it may start sagas: before the scope `destroy` existed, that was enough. */
export function impliesDestroy({ scopes: granted }: ApiToken): boolean {
  return granted.includes('start') && !granted.includes('destroy');
}
