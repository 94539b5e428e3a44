// Guesses the scope that a refused request lacks. DigitalOcean does not say which scope is missing.
import type { Method } from './outcome.ts';

/** The parts of a request that determine its scopes. `path` has `{id}` in place of ids. */
export type RequestKind = Readonly<{ method: Method; path: string; fields: readonly string[] }>;

// Source: https://docs.digitalocean.com/reference/api/scopes/
const scopeOfField: Readonly<Record<string, string>> = { ssh_keys: 'ssh_key:read', vpc_uuid: 'vpc:read', volumes: 'block_storage:read' };

// Every create has tags, a size, a region and an image.
const scopesOfRequest: Readonly<Record<string, readonly string[]>> = {
  'POST /v2/droplets': ['droplet:create', 'tag:create', 'image:read', 'regions:read', 'sizes:read'],
  'GET /v2/droplets': ['droplet:read', 'tag:read'],
  'GET /v2/droplets/{id}': ['droplet:read'],
  'GET /v2/droplets/{id}/destroy_with_associated_resources': ['droplet:read'],
  'DELETE /v2/droplets/{id}': ['droplet:delete'],
  'GET /v2/actions/{id}': ['actions:read'],
  'GET /v2/account': ['account:read'],
  'GET /v2/account/keys': ['ssh_key:read'],
  'GET /v2/projects': ['project:read'],
  'POST /v2/projects/{id}/resources': ['project:assign_resource'],
  'GET /v2/tags': ['tag:read'],
  'POST /v2/tags': ['tag:create'],
  'POST /v2/tags/{name}/resources': ['tag:create'],
  'DELETE /v2/tags/{name}/resources': ['tag:delete'],
  'GET /v2/tags/{name}': ['tag:read'],
  'DELETE /v2/tags/{name}': ['tag:delete'],
  'GET /v2/sizes': ['sizes:read'],
  'GET /v2/regions': ['regions:read'],
  'GET /v2/images': ['image:read'],
  'GET /v2/images/{id}': ['image:read'],
  'GET /v2/vpcs': ['vpc:read'],
  'GET /v2/volumes': ['block_storage:read'],
  'GET /v2/actions': ['actions:read'],
};

/**
 * Returns the scopes that a token probably lacks if DigitalOcean answers this request with 403, most likely first. Empty:
 * unknown.
 */
export function likelyScopes({ method, path, fields }: RequestKind): readonly string[] {
  const ofFields = fields.flatMap((field) => scopeOfField[field] ?? []);
  return ofFields.length > 0 ? ofFields : (scopesOfRequest[`${method} ${path}`] ?? []);
}

// Fields of every create.
const ALWAYS: ReadonlySet<string> = new Set(['name', 'region', 'size', 'image', 'tags']);

/** Whether nothing depends on a request but tidiness, or what people are told: a token that may not make it is none that a person has to mend. */
export function isDispensable({ method, path }: Pick<RequestKind, 'method' | 'path'>): boolean {
  return (path === '/v2/tags/{name}' && (method === 'GET' || method === 'DELETE')) || path === '/v2/droplets/{id}/destroy_with_associated_resources';
}

/** Returns the optional fields that a request body uses, sorted. Empty and false fields do not count. */
export function usedFields(body: object | undefined): readonly string[] {
  return Object.entries(body ?? {})
    .filter(([name, value]) => !ALWAYS.has(name) && isUsed(value))
    .map(([name]) => name)
    .toSorted();
}

function isUsed(value: unknown): boolean {
  return value !== undefined && value !== null && value !== false && !(Array.isArray(value) && value.length === 0);
}
