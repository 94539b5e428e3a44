// Requests that DigitalOcean authorizes like all others of their kind, but that cannot have an effect. They show whether a
// refusal is over, without a saga that has to announce a real one.
import type { JsonObject } from '../platform/json.ts';
import type { Method } from './outcome.ts';

const NIL = '00000000-0000-0000-0000-000000000000';

// A field counts only if it is used.
const values: JsonObject = { ssh_keys: [1], volumes: [NIL], vpc_uuid: NIL, user_data: '#' };

/**
 * Returns such a request; null: none is known.
 *
 * A create without a name, a size and an image is none: DigitalOcean requires them, and answers 422. A droplet list that is
 * empty tags nothing. Source: https://docs.digitalocean.com/reference/api/.
 *
 * @param request such as `POST /v2/droplets`
 * @param fields optional fields of the request
 */
export function harmlessRequest(request: string, fields: readonly string[]): { method: Method; path: string; json: JsonObject } | null {
  if (request === 'POST /v2/droplets') return { method: 'POST', path: '/v2/droplets', json: Object.fromEntries(fields.map((field) => [field, values[field] ?? true])) };
  if (request === 'POST /v2/tags/{name}/resources') return { method: 'POST', path: '/v2/tags/managed-by-arcadia-cloud/resources', json: { resources: [] } };
  return null;
}
