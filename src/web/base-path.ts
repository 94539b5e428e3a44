// A base path, such as /arcadia, under which a proxy serves the application next to others. Internal URLs start at the
// root. This module removes the base path from incoming URLs and adds it to outgoing ones.
import type { IncomingMessage } from 'node:http';
import type { App } from './app.ts';

/**
 * For Fastify's `rewriteUrl`: removes the base path. A URL without it stays unchanged: a proxy may have removed it
 * already, and probes and scrapers bypass the proxy.
 */
export function withoutBasePath(basePath: string): (request: Pick<IncomingMessage, 'url'>) => string {
  return ({ url = '/' }) => {
    if (basePath === '' || !url.startsWith(basePath)) return url;
    const rest = url.slice(basePath.length);
    if (rest.startsWith('/')) return rest;
    return rest === '' || rest.startsWith('?') ? `/${rest}` : url;
  };
}

/** Adds the base path to every `Location` header. */
export function addBasePath(app: App, basePath: string): void {
  app.decorate('basePath', basePath);
  if (basePath === '') return;
  app.addHook('onSend', async (_request, reply) => {
    const location = reply.getHeader('location');
    if (typeof location === 'string' && isFromRoot(location)) reply.header('location', `${basePath}${location}`);
    await Promise.resolve();
  });
}

/** Adds the base path to every URL in a page. */
export function withBasePath(page: string, basePath: string): string {
  // Quotation marks in text are escaped, so every match is a real attribute.
  return basePath === '' ? page : page.replaceAll(/(\s(?:href|src|action|formaction|data-(?:back|events|href|src|url))=")(?=\/(?!\/))/g, `$1${basePath}`);
}

function isFromRoot(address: string): boolean {
  return address.startsWith('/') && !address.startsWith('//');
}
