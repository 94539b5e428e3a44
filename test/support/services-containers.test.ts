// How a run detects a Docker engine. script/test-containers runs the tests on containers.

import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { createServer } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, onTestFinished, test } from 'vitest';
import { hasEngine } from './services-containers.ts';

/** Answers pings like an engine, or with another status, or never; on a socket and on a port. */
async function startEngine(status: number | null): Promise<{ socket: string; port: number }> {
  const folder = mkdtempSync(join(tmpdir(), 'arcadia-engine-'));
  const servers = [0, join(folder, 'docker.sock')].map((where) =>
    createServer((request, response) => {
      if (status !== null) response.writeHead(request.url === '/_ping' ? status : 404).end('OK');
    }).listen(where),
  );
  await Promise.all(servers.map((server) => once(server, 'listening')));
  onTestFinished(() => {
    for (const server of servers) server.close().closeAllConnections();
    rmSync(folder, { recursive: true, force: true });
  });
  const address = servers[0]?.address();
  if (typeof address !== 'object' || address === null) throw new Error('it listens on no port');
  return { socket: join(folder, 'docker.sock'), port: address.port };
}

test('an engine that answers is found by its socket and by its port', async () => {
  const { socket, port } = await startEngine(200);
  expect(await hasEngine({ DOCKER_HOST: `unix://${socket}` })).toBe(true);
  expect(await hasEngine({ DOCKER_HOST: `tcp://localhost:${port}` })).toBe(true);
});

test('no engine is found where nothing listens, where something else answers, and where the address makes no sense', async () => {
  const { socket, port } = await startEngine(503);
  for (const DOCKER_HOST of [`unix://${socket}`, `tcp://localhost:${port}`, 'unix:///nowhere/docker.sock', 'ssh://somebody@somewhere', 'nonsense']) {
    expect(await hasEngine({ DOCKER_HOST })).toBe(false);
  }
});

test('an engine that hangs is given up soon', async () => {
  const { socket } = await startEngine(null);
  expect(await hasEngine({ DOCKER_HOST: `unix://${socket}` }, 100)).toBe(false);
});
