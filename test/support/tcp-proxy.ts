// A TCP proxy between a client and its server that simulates network faults: it drops the whole link, or one response after the
// server has done its work.

import { once } from 'node:events';
import { connect, createServer } from 'node:net';
import type { Socket } from 'node:net';

export type TcpProxy = {
  readonly port: number;
  /** The given URL, by way of this proxy. */
  readonly through: (url: string) => string;
  /** Cuts the connection on which the next reply that `matches` comes, before a byte of it reaches the client. */
  readonly loseReply: (matches: (reply: Buffer) => boolean) => void;
  /** How many replies were lost that way. */
  readonly lostReplies: () => number;
  /** Cuts all connections, and every new one at once. */
  readonly down: () => void;
  /** Ends `down`. */
  readonly up: () => void;
  /** New connections lead to another server; standing ones stay where they are. */
  readonly leadTo: (target: string) => void;
  readonly [Symbol.asyncDispose]: () => Promise<void>;
};

/** Starts a proxy to the server that `target` (a URL with host and port) names. */
export async function startTcpProxy(target: string): Promise<TcpProxy> {
  let { hostname, port: targetPort } = new URL(target);
  const sockets = new Set<Socket>();
  let isDown = false;
  let isLost: ((reply: Buffer) => boolean) | undefined;
  let lost = 0;

  const server = createServer((client) => {
    if (isDown) {
      client.destroy();
      return;
    }
    const upstream = connect(Number(targetPort), hostname);
    const cut = (): void => {
      client.destroy();
      upstream.destroy();
    };
    for (const socket of [client, upstream]) {
      sockets.add(socket);
      socket.on('error', cut);
      socket.on('close', () => {
        sockets.delete(socket);
        cut();
      });
    }
    client.on('data', (bytes) => void upstream.write(bytes));
    upstream.on('data', (bytes) => {
      if (isLost?.(bytes) === true) {
        isLost = undefined;
        lost += 1;
        cut();
        return;
      }
      client.write(bytes);
    });
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const address = server.address();
  if (address === null || typeof address === 'string') throw new Error('the system gave no port');
  const cutAll = (): void => {
    for (const socket of sockets) socket.destroy();
  };
  return {
    port: address.port,
    through: (url) => {
      const proxied = new URL(url);
      proxied.hostname = '127.0.0.1';
      proxied.port = String(address.port);
      return proxied.href;
    },
    loseReply: (matches) => {
      isLost = matches;
    },
    lostReplies: () => lost,
    down: () => {
      isDown = true;
      cutAll();
    },
    up: () => {
      isDown = false;
    },
    leadTo: (other) => {
      ({ hostname, port: targetPort } = new URL(other));
    },
    [Symbol.asyncDispose]: async () => {
      cutAll();
      server.close();
      await once(server, 'close');
    },
  };
}
