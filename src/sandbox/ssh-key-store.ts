// Stores the account's SSH keys.

/** An SSH key in the API's format. `fingerprint` is the MD5 of the key, as 16 hexadecimal bytes separated by colons. */
export type SshKey = Readonly<{ id: number; fingerprint: string; public_key: string; name: string }>;

/** The account's SSH keys, oldest first. Ids continue after a reset. */
export type SshKeyStore = { readonly byId: Map<number, SshKey>; lastId: number };

/** Creates an account without SSH keys. */
export function createSshKeyStore(): SshKeyStore {
  return { byId: new Map(), lastId: 512_100 };
}
