// The folder in which the smoke test keeps its state and its database between calls, and the lock that one call holds on
// it.
import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { chmod, lstat, mkdir, realpath, unlink } from 'node:fs/promises';
import { connect, createServer } from 'node:net';
import type { Server } from 'node:net';
import { tmpdir, userInfo } from 'node:os';
import { join } from 'node:path';
import { errorCodeOf } from '../../platform/error-code.ts';
import { UsageError } from '../../cli/usage-error.ts';

/** Returns this user's folder for an account: `<tmp>/arcadia-smoke-<uid>-<hash>`. */
export function defaultFolder(apiUrl: string, account: string): string {
  const hash = createHash('sha256').update(`${apiUrl}\n${account}`).digest('hex').slice(0, 12);
  return join(tmpdir(), `arcadia-smoke-${process.getuid?.() ?? userInfo().username}-${hash}`);
}

/**
 * Creates the folder if it does not exist, and returns its real path.
 *
 * @throws {UsageError} if another user owns it, who could read and change its contents
 */
export async function openFolder(path: string): Promise<string> {
  await mkdir(path, { recursive: true, mode: 0o700 });
  const folder = await lstat(path);
  if (!folder.isDirectory() || (process.getuid !== undefined && folder.uid !== process.getuid())) {
    throw new UsageError(`--state-dir: ${path} is not a folder of your own. Name another one.`);
  }
  // If root starts Postgres, it runs as another user, who must be able to pass through. Only root can read the contents.
  if (process.getuid?.() === 0) await chmod(path, 0o711);
  return realpath(path);
}

/**
 * Locks a folder for this process. The lock ends with the process, however the process ends.
 *
 * @returns a function that releases the lock
 * @throws {UsageError} if another process holds the lock
 */
export async function lockFolder(folder: string): Promise<() => Promise<void>> {
  const hash = createHash('sha256').update(folder).digest('hex').slice(0, 24);
  // On Linux, an abstract socket without a file, which the kernel removes with the process.
  const address = process.platform === 'linux' ? `\0arcadia-smoke-${hash}` : join(tmpdir(), `arcadia-smoke-${hash}.sock`);
  const server = (await listen(address)) ?? ((await isStale(address)) ? await listen(address) : null);
  if (server === null) throw new UsageError(`Another \`arcadia smoke\` is running in ${folder}. Wait for it, or name another folder with --state-dir.`);
  server.unref();
  return async () => {
    server.close();
    await once(server, 'close');
  };
}

/** Null: another process listens on the address, or did. */
async function listen(address: string): Promise<Server | null> {
  const server = createServer((socket) => socket.destroy());
  try {
    server.listen(address);
    await once(server, 'listening');
    return server;
  } catch (error) {
    if (errorCodeOf(error) === 'EADDRINUSE') return null;
    throw error;
  }
}

/** Removes the socket of a dead process. */
async function isStale(address: string): Promise<boolean> {
  if (address.startsWith('\0')) return false;
  const socket = connect(address);
  try {
    await once(socket, 'connect');
    return false;
  } catch {
    await unlink(address).catch(() => undefined);
    return true;
  } finally {
    socket.destroy();
  }
}
