// Which scope of a token a refused request points to. DigitalOcean does not say which one is missing.
import type { Method } from './outcome.ts';

/** A request as far as it decides which scopes it needs. `path` has `{id}` in place of ids. */
export type RequestKind = Readonly<{ method: Method; path: string; fields: readonly string[] }>;

// Source: https://docs.digitalocean.com/reference/api/scopes/
const scopeOfField: Readonly<Record<string, string>> = { ssh_keys: 'ssh_key:read', vpc_uuid: 'vpc:read', volumes: 'block_storage:read' };

// Every create carries tags, a size, a region and an image.
const scopesOfRequest: Readonly<Record<string, readonly string[]>> = {
  'POST /v2/droplets': ['droplet:create', 'tag:create', 'image:read', 'regions:read', 'sizes:read'],
  'GET /v2/droplets': ['droplet:read', 'tag:read'],
  'GET /v2/droplets/{id}': ['droplet:read'],
  'DELETE /v2/droplets/{id}': ['droplet:delete'],
  'GET /v2/actions/{id}': ['actions:read'],
  'GET /v2/account': ['account:read'],
};

/** The scopes that a token probably lacks when this request is answered 403, most likely first. Empty: not known. */
export function likelyScopes({ method, path, fields }: RequestKind): readonly string[] {
  const ofFields = fields.flatMap((field) => scopeOfField[field] ?? []);
  return ofFields.length > 0 ? ofFields : (scopesOfRequest[`${method} ${path}`] ?? []);
}

// Every create has them.
const ALWAYS: ReadonlySet<string> = new Set(['name', 'region', 'size', 'image', 'tags']);

/** The optional fields that a request's body uses, sorted. One that is empty or false asks for nothing. */
export function usedFields(body: object | undefined): readonly string[] {
  return Object.entries(body ?? {})
    .filter(([name, value]) => !ALWAYS.has(name) && isUsed(value))
    .map(([name]) => name)
    .toSorted();
}

function isUsed(value: unknown): boolean {
  return value !== undefined && value !== null && value !== false && !(Array.isArray(value) && value.length === 0);
}
