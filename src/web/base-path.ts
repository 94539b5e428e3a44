// A base path, such as /arcadia, where a proxy serves the web beside others. Inside, all addresses are written from the
// root; here, the base path is taken off what comes in, and put before what goes out.
import type { IncomingMessage } from 'node:http';
import type { App } from './app.ts';

/**
 * For Fastify's `rewriteUrl`: the address without the base path. One without it stays as it is: a proxy may have taken it
 * off, and probes and scrapers come past the proxy.
 */
export function withoutBasePath(basePath: string): (request: Pick<IncomingMessage, 'url'>) => string {
  return ({ url = '/' }) => {
    if (basePath === '' || !url.startsWith(basePath)) return url;
    const rest = url.slice(basePath.length);
    if (rest.startsWith('/')) return rest;
    return rest === '' || rest.startsWith('?') ? `/${rest}` : url;
  };
}

/** Puts the base path before the `Location` of every answer. */
export function addBasePath(app: App, basePath: string): void {
  app.decorate('basePath', basePath);
  if (basePath === '') return;
  app.addHook('onSend', async (_request, reply) => {
    const location = reply.getHeader('location');
    if (typeof location === 'string' && isFromRoot(location)) reply.header('location', `${basePath}${location}`);
    await Promise.resolve();
  });
}

/** Puts the base path before every address in a page. */
export function withBasePath(page: string, basePath: string): string {
  // A quotation mark in a text is an entity there: what looks like an attribute is one.
  return basePath === '' ? page : page.replaceAll(/(\s(?:href|src|action|formaction|data-(?:events|href|src|url))=")(?=\/(?!\/))/g, `$1${basePath}`);
}

function isFromRoot(address: string): boolean {
  return address.startsWith('/') && !address.startsWith('//');
}
