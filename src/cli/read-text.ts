// Reads a file that an option names: as a text, up to a limit, and without waiting for a pipe that nobody writes into.
import { constants } from 'node:fs';
import type { FileHandle } from 'node:fs/promises';
import { open } from 'node:fs/promises';
import { Socket } from 'node:net';

// No input may be larger.
const MOST_BYTES = 1_048_576;

/**
 * Reads a file, or a pipe such as `<(command)`.
 *
 * @param file its path; `-` for stdin
 * @throws {Error} if it cannot be read, is larger than 1 MiB, is no file and no pipe, or is a pipe that nobody writes into
 */
export async function readText(file: string): Promise<string> {
  if (file === '-') return collect(process.stdin);
  // Without O_NONBLOCK, to open a pipe waits for its writer, and nothing can end that.
  const handle = await open(file, constants.O_RDONLY | constants.O_NONBLOCK);
  try {
    const stats = await handle.stat();
    if (stats.isFile()) return await collect(handle.createReadStream({ autoClose: false, highWaterMark: 65_536 }));
    if (stats.isFIFO()) return await readPipe(handle);
    throw new Error(stats.isDirectory() ? 'it is a directory' : 'it is neither a file nor a pipe');
  } finally {
    await handle.close().catch(() => undefined);
  }
}

async function readPipe(handle: FileHandle): Promise<string> {
  const socket = new Socket({ fd: handle.fd, readable: true, writable: false });
  const text = await collect(socket);
  if (text === '') throw new Error('nobody writes into this pipe');
  return text;
}

async function collect(stream: AsyncIterable<unknown>): Promise<string> {
  const chunks: Buffer[] = [];
  let size = 0;
  for await (const chunk of stream) {
    const bytes = Buffer.isBuffer(chunk) ? chunk : Buffer.from(String(chunk));
    size += bytes.length;
    if (size > MOST_BYTES) throw new Error(`it is larger than ${MOST_BYTES} bytes`);
    chunks.push(bytes);
  }
  return Buffer.concat(chunks).toString('utf8');
}
