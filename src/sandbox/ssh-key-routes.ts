// Routes of /v2/account/keys: the SSH keys of the account.
import { createHash } from 'node:crypto';
import type { Answer, Call } from './answer.ts';
import { notFound, pageAnswer, unprocessable } from './answer.ts';
import { textIn } from './json.ts';
import type { SshKey } from './ssh-key-store.ts';
import type { World } from './world.ts';

/** GET /v2/account/keys */
export function listSshKeys(world: World, call: Call): Answer {
  return pageAnswer(call, 'ssh_keys', [...world.sshKeys.byId.values()], (key) => key, world.faultBox.settings.nextHost);
}

/** POST /v2/account/keys: a public key in OpenSSH format, once per account. */
export function createSshKey(world: World, call: Call): Answer {
  const name = textIn(call.body, 'name');
  const publicKey = textIn(call.body, 'public_key');
  if (name === '') return unprocessable(call, "Name can't be blank");
  const fingerprint = fingerprintOf(publicKey);
  if (fingerprint === null) return unprocessable(call, 'Key invalid, key should be of the format "[type] [key] [comment]"');
  if (findByFingerprint(world, fingerprint) !== undefined) return unprocessable(call, 'SSH Key is already in use on your account');
  world.sshKeys.lastId += 1;
  const key: SshKey = { id: world.sshKeys.lastId, fingerprint, public_key: publicKey, name };
  world.sshKeys.byId.set(key.id, key);
  return { status: 201, body: { ssh_key: key } };
}

/** GET /v2/account/keys/:key, by id or fingerprint. */
export function getSshKey(world: World, call: Call): Answer {
  const key = findKey(world, call);
  return key === undefined ? notFound(call) : { status: 200, body: { ssh_key: key } };
}

/** PUT /v2/account/keys/:key: renames it. */
export function updateSshKey(world: World, call: Call): Answer {
  const key = findKey(world, call);
  if (key === undefined) return notFound(call);
  const renamed: SshKey = { ...key, name: textIn(call.body, 'name') || key.name };
  world.sshKeys.byId.set(key.id, renamed);
  return { status: 200, body: { ssh_key: renamed } };
}

/** DELETE /v2/account/keys/:key. Droplets that have the key keep it. */
export function deleteSshKey(world: World, call: Call): Answer {
  const key = findKey(world, call);
  if (key === undefined) return notFound(call);
  world.sshKeys.byId.delete(key.id);
  return { status: 204 };
}

function findKey(world: World, call: Call): SshKey | undefined {
  const wanted = call.params['key'] ?? '';
  return /^\d+$/u.test(wanted) ? world.sshKeys.byId.get(Number(wanted)) : findByFingerprint(world, wanted.toLowerCase());
}

function findByFingerprint(world: World, fingerprint: string): SshKey | undefined {
  return [...world.sshKeys.byId.values()].find((key) => key.fingerprint === fingerprint);
}

/** Returns null for text that is not a public key: a type, the base64 key and usually a comment. */
function fingerprintOf(publicKey: string): string | null {
  const [, base64 = ''] = /^(?:ssh-|ecdsa-|sk-)[\w.@-]+ ([A-Za-z0-9+/]+={0,2})(?: .*)?$/u.exec(publicKey.trim()) ?? [];
  if (base64 === '') return null;
  const hex = createHash('md5').update(Buffer.from(base64, 'base64')).digest('hex');
  return hex.match(/../gu)?.join(':') ?? null;
}
