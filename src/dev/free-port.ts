// Finds the port of the web before it listens: the workers need the address first, for the callbacks of droplets.
import { once } from 'node:events';
import { createServer } from 'node:net';
import { errorCodeOf } from '../platform/error-code.ts';

/**
 * Returns the port on which a server can listen now.
 *
 * @param port 0: any free one
 * @returns null if the port is in use
 */
export async function findPort({ host, port }: Readonly<{ host: string; port: number }>): Promise<number | null> {
  const server = createServer();
  server.listen(port, host);
  try {
    await once(server, 'listening');
  } catch (error) {
    if (errorCodeOf(error) === 'EADDRINUSE') return null;
    throw error;
  }
  const address = server.address();
  server.close();
  await once(server, 'close');
  return typeof address === 'object' && address !== null ? address.port : null;
}
