// The addresses that may be checked. Apart from the check itself, so that a process which checks nothing loads no HTTP client.
import { isPublicAddress } from '../platform/address-ranges.ts';
import type { AddressRanges } from '../platform/address-ranges.ts';

/** Whether checks may connect to an address: a public one, or one that the configuration allows. */
export function mayProbe(address: string, allowed: AddressRanges): boolean {
  return isPublicAddress(address) || allowed.contains(address);
}
