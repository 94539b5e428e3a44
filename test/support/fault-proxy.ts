// A TCP proxy in front of a test's server. Its connections can be cut, frozen (half open: both ends seem connected, and nothing
// passes), or lose one response.

import { once } from 'node:events';
import { connect, createServer } from 'node:net';
import type { Socket } from 'node:net';

export type TcpProxy = {
  readonly port: number;
  /** Cuts all connections; new ones pass. */
  readonly cut: () => void;
  /** All connections go silent for good, and stay open; new ones pass. */
  readonly freeze: () => void;
  /** From now on connections on which the client sends `text` go silent for good. Without it: no connection any more. */
  readonly freezeOn: (text?: string) => void;
  /** Lets nothing pass, neither on old connections nor on new ones, until `thaw`; what was sent meanwhile arrives then. */
  readonly hold: () => void;
  readonly thaw: () => void;
  /** Takes away the next answer that `isIt` picks, and cuts its connection: the work is done, the reply is lost. */
  readonly loseAnswer: (isIt: (answer: Buffer) => boolean) => void;
  /** Answers lost so far. */
  readonly lost: () => number;
  readonly close: () => Promise<void>;
  readonly [Symbol.asyncDispose]: () => Promise<void>;
};

type Link = { readonly client: Socket; readonly server: Socket; isDead: boolean };

/** Starts a proxy on a free port of 127.0.0.1, in front of a port of this machine. */
export async function startTcpProxy(targetPort: number): Promise<TcpProxy> {
  const links = new Set<Link>();
  let isHeld = false;
  let deadlyText: string | undefined;
  let wanted: ((answer: Buffer) => boolean) | undefined;
  let lost = 0;

  const end = (link: Link): void => {
    links.delete(link);
    link.client.destroy();
    link.server.destroy();
  };
  const listener = createServer((client) => {
    const link: Link = { client, server: connect(targetPort, '127.0.0.1'), isDead: false };
    links.add(link);
    for (const socket of [link.client, link.server]) {
      socket.setNoDelay(true);
      socket.on('error', () => undefined);
      socket.on('close', () => {
        // One that is half open does not tell of its other end's fate.
        if (!link.isDead) end(link);
      });
      if (isHeld) socket.pause();
    }
    client.on('data', (chunk) => {
      if (deadlyText !== undefined && chunk.includes(deadlyText)) link.isDead = true;
      if (!link.isDead) link.server.write(chunk);
    });
    link.server.on('data', (chunk) => {
      if (link.isDead) return;
      if (wanted?.(chunk) === true) {
        wanted = undefined;
        lost += 1;
        end(link);
        return;
      }
      client.write(chunk);
    });
  });
  listener.listen(0, '127.0.0.1');
  await once(listener, 'listening');
  const address = listener.address();
  if (address === null || typeof address === 'string') throw new Error('the system gave no port');

  const setHeld = (held: boolean): void => {
    isHeld = held;
    for (const { client, server } of links) {
      for (const socket of [client, server]) {
        if (held) socket.pause();
        else socket.resume();
      }
    }
  };
  const close = async (): Promise<void> => {
    if (!listener.listening) return;
    for (const link of links) end(link);
    listener.close();
    await once(listener, 'close');
  };
  return {
    port: address.port,
    cut: () => {
      for (const link of links) end(link);
    },
    freeze: () => {
      for (const link of links) link.isDead = true;
    },
    freezeOn: (text) => {
      deadlyText = text;
    },
    hold: () => setHeld(true),
    thaw: () => setHeld(false),
    loseAnswer: (isIt) => {
      wanted = isIt;
    },
    lost: () => lost,
    close,
    [Symbol.asyncDispose]: close,
  };
}

/** The same URL, by way of the proxy. */
export function throughProxy(url: string, proxy: Pick<TcpProxy, 'port'>): string {
  const through = new URL(url);
  through.hostname = '127.0.0.1';
  through.port = String(proxy.port);
  return through.href;
}
