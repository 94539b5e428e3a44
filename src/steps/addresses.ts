// The addresses of a droplet, and those that a saga requested. DigitalOcean may assign them after the droplet is active.
import type { Droplet } from '../do/schemas.ts';
import { textOf } from '../platform/json.ts';
import type { Saga } from '../saga/saga.ts';

/** The first address of each kind; null: none (yet). */
export type Addresses = Readonly<{ public_ipv4: string | null; private_ipv4: string | null; public_ipv6: string | null }>;

/** Reads a droplet's addresses. */
export function addressesOf({ networks }: Pick<Droplet, 'networks'>): Addresses {
  const first = (version: 'v4' | 'v6', type: 'public' | 'private') => networks?.[version].find((network) => network.type === type)?.ip_address ?? null;
  return { public_ipv4: first('v4', 'public'), private_ipv4: first('v4', 'private'), public_ipv6: first('v6', 'public') };
}

/**
 * Names the requested addresses that the droplet lacks, in words for people; empty: none is missing. Every droplet eventually gets a
 * private address in its default VPC. It counts as requested only with `vpc_uuid`, or if there is no public address.
 */
export function missingAddresses(droplet: Pick<Droplet, 'networks' | 'vpc_uuid'>, { input }: Pick<Saga, 'input'>): string[] {
  const { public_ipv4: publicV4, private_ipv4: privateV4, public_ipv6: publicV6 } = addressesOf(droplet);
  const isPublic = input['public_networking'] !== false;
  const vpc = textOf(input['vpc_uuid']);
  const isElsewhere = vpc !== '' && droplet.vpc_uuid !== null && droplet.vpc_uuid.toLowerCase() !== vpc.toLowerCase();
  const missing: string[] = [];
  if (isPublic && publicV4 === null) missing.push('public IPv4 address');
  if (input['ipv6'] === true && publicV6 === null) missing.push('public IPv6 address');
  if ((vpc !== '' || !isPublic) && (privateV4 === null || isElsewhere)) missing.push(`private IPv4 address${vpc === '' ? '' : ` in VPC ${vpc}`}`);
  return missing;
}
