// A worker's small HTTP server for operations: /metrics for Prometheus and /healthz for an orchestrator's probes. It
// shows no sagas and changes nothing.
import { once } from 'node:events';
import { createServer } from 'node:http';
import type { Server, ServerResponse } from 'node:http';
import { Counter, Registry, collectDefaultMetrics } from 'prom-client';
import type { ApiToken } from '../platform/api-tokens.ts';
import { knownSecrets } from '../platform/known-secrets.ts';
import { listenFailure } from '../platform/listen-failure.ts';
import type { Log } from '../platform/log.ts';
import { toMetricsText } from '../platform/metrics-text.ts';
import { onceInAWhile } from '../platform/once-in-a-while.ts';

// The counter includes every refusal.
const REFUSED_LOG_EVERY_MS = 60_000;

/**
 * Listens until closed.
 *
 * @param options.readers tokens that may read /metrics; null: it requires no token. /healthz requires none, because
 *   probes have none
 * @param options.metrics the worker's metrics; those of the process are added
 * @throws {Error} with code `EADDRINUSE` if the port is in use
 * @throws {ConfigError} if the host or the port cannot be listened on
 */
export async function startWorkerHttp(options: { host: string; port: number; readers: readonly ApiToken[] | null; metrics: () => Promise<string>; log: Log }): Promise<{ url: string; close: () => void }> {
  const ofProcess = new Registry();
  collectDefaultMetrics({ register: ofProcess });
  const refused = new Counter({ name: 'arcadia_refused_credentials_total', help: 'Wrong credentials that this worker refused', labelNames: ['kind'], registers: [ofProcess] });
  if (options.readers !== null) refused.inc({ kind: 'bearer' }, 0);
  const tellRefused = onceInAWhile(REFUSED_LOG_EVERY_MS, (address: string | null) => options.log.warn({ address, kind: 'bearer', path: '/metrics' }, 'wrong credentials were refused'));
  const mayRead = readerCheck(options.readers);
  const server = createServer((request, response) => {
    const path = request.url?.split('?', 1)[0];
    if (request.method !== 'GET' && request.method !== 'HEAD') answer(response, 405, 'only GET is answered here\n');
    // The process is alive. A worker with a stuck job loop ends itself.
    else if (path === '/healthz') answer(response, 200, 'ok\n');
    else if (path === '/metrics' && !mayRead(request.headers.authorization)) {
      if (request.headers.authorization !== undefined) {
        refused.inc({ kind: 'bearer' });
        tellRefused(request.socket.remoteAddress ?? null);
      }
      response.setHeader('www-authenticate', 'Bearer realm="arcadia-cloud"');
      answer(response, 401, 'a bearer token with the scope read is needed (API_TOKENS)\n');
    } else if (path === '/metrics') void tellMetrics(response);
    else answer(response, 404, 'there is /metrics and /healthz\n');
  });
  const tellMetrics = async (response: ServerResponse): Promise<void> => {
    try {
      const documents = await Promise.all([options.metrics(), ofProcess.metrics()]);
      answer(response, 200, toMetricsText(documents), Registry.PROMETHEUS_CONTENT_TYPE);
    } catch (error) {
      options.log.warn({ err: error }, 'metrics could not be read');
      answer(response, 500, 'could not be read\n');
    }
  };
  server.requestTimeout = 10_000;
  server.listen(options.port, options.host);
  try {
    await once(server, 'listening');
  } catch (error) {
    const whatToDo = 'Set WORKER_METRICS_PORT to another one for each worker on this machine, or leave it out.';
    throw listenFailure(error, { host: options.host, port: options.port, settings: { port: 'WORKER_METRICS_PORT', host: 'HOST' }, whatToDo });
  }
  return {
    url: urlOf(server, options.host),
    close: () => {
      server.close();
      server.closeAllConnections();
    },
  };
}

function readerCheck(readers: readonly ApiToken[] | null): (authorization: string | undefined) => boolean {
  if (readers === null) return () => true;
  const find = knownSecrets(readers);
  return (authorization) => {
    const given = /^Bearer (\S{1,1000})$/i.exec(authorization ?? '')?.[1];
    return given !== undefined && find(given) !== null;
  };
}

function answer(response: ServerResponse, status: number, text: string, type = 'text/plain; charset=utf-8'): void {
  response.writeHead(status, { 'content-type': type, 'cache-control': 'no-store', 'x-content-type-options': 'nosniff' }).end(text);
}

function urlOf(server: Server, host: string): string {
  const address = server.address();
  const port = typeof address === 'object' ? address?.port : null;
  return `http://${host.includes(':') ? `[${host}]` : host}:${port}`;
}
