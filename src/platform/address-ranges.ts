// The addresses that a process may connect to when others name them: public internet addresses, and ranges that the
// configuration also allows. A provider, or an attacker in its place, must not direct us at our own network.
import { BlockList, isIP } from 'node:net';

/** A set of address ranges. */
export type AddressRanges = Readonly<{
  /** Whether an address, as text, is in one of the ranges. False for host names. */
  contains(address: string): boolean;
  isEmpty: boolean;
}>;

// From IANA's special-purpose registries: addresses outside the public internet or leading elsewhere (NAT64, 6to4,
// Teredo). Ranges for documentation and benchmarks are omitted: they lead nowhere.
const notPublicV4 = ['0.0.0.0/8', '10.0.0.0/8', '100.64.0.0/10', '127.0.0.0/8', '169.254.0.0/16', '172.16.0.0/12', '192.0.0.0/24', '192.88.99.0/24', '192.168.0.0/16', '224.0.0.0/4', '240.0.0.0/4'];
const publicV6 = rangesOf(['2000::/3']);
const notPublicV6 = ['2001::/32', '2002::/16'];
const notPublic = rangesOf([...notPublicV4, ...notPublicV6]);

/**
 * Parses addresses and CIDRs, such as `127.0.0.1` and `10.0.0.0/8`.
 *
 * @throws {Error} for any other text
 */
export function rangesOf(texts: readonly string[]): AddressRanges {
  const list = new BlockList();
  for (const text of texts) {
    const [address = '', prefix] = text.split('/');
    const family = familyOf(address);
    if (prefix === undefined) list.addAddress(address, family);
    else list.addSubnet(address, Number(prefix), family);
  }
  return {
    contains: (address) => {
      const plain = unmapped(address);
      return isIP(plain) !== 0 && list.check(plain, familyOf(plain));
    },
    isEmpty: texts.length === 0,
  };
}

/** Whether an address, as text, belongs to the public internet. False for a host name, because its address is unknown. */
export function isPublicAddress(address: string): boolean {
  const plain = unmapped(address);
  // An address with a zone (`fe80::1%eth0`) is link-local.
  if (isIP(plain) === 0 || plain.includes('%') || notPublic.contains(plain)) return false;
  return isIP(plain) === 4 || publicV6.contains(plain);
}

function familyOf(address: string): 'ipv4' | 'ipv6' {
  return isIP(address) === 6 ? 'ipv6' : 'ipv4';
}

/** Converts an IPv4 address written as IPv6 (`::ffff:127.0.0.1`) to IPv4, because the system connects to that one. */
function unmapped(address: string): string {
  if (isIP(address) !== 6 || address.includes('%')) return address;
  const canonical = new URL(`http://[${address}]`).hostname.slice(1, -1);
  const [, high, low] = /^::ffff:([0-9a-f]{1,4}):([0-9a-f]{1,4})$/.exec(canonical) ?? [];
  if (high === undefined || low === undefined) return address;
  const bits = Number.parseInt(high, 16) * 65_536 + Number.parseInt(low, 16);
  return [24, 16, 8, 0].map((shift) => Math.floor(bits / 2 ** shift) % 256).join('.');
}
