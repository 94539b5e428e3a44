// Postgres and Redis of one run of the tests, from containers of the official images, where a Docker engine answers.
// TEST_POSTGRES_VERSION chooses the tag of `postgres`, TEST_REDIS_IMAGE the whole image, such as valkey/valkey:8.
// A guard process keeps each container, and removes it when the run ends, however it ends: services-container-guard.ts.

import { fork } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { request } from 'node:http';
import { fileURLToPath } from 'node:url';
import type { ContainerPlan, ContainerReply } from './services-container-guard.ts';

type Service = { readonly url: string; readonly stop: () => Promise<void> };

const PROBE_MS = 2_000;

/** Whether a Docker engine answers: the one that DOCKER_HOST names, else the one of the usual socket. `limitMs` is how long one may take to answer. */
export async function hasEngine(environment: NodeJS.ProcessEnv = process.env, limitMs = PROBE_MS): Promise<boolean> {
  const given = environment['DOCKER_HOST'] ?? '';
  const address = given === '' ? 'unix:///var/run/docker.sock' : given;
  const url = URL.canParse(address) ? new URL(address) : null;
  if (url?.protocol === 'unix:') return answers({ socketPath: url.pathname }, limitMs);
  if (url?.protocol === 'tcp:' || url?.protocol === 'http:') return answers({ host: url.hostname.replace(/^\[|\]$/g, ''), port: url.port === '' ? 2375 : Number(url.port) }, limitMs);
  return false;
}

/** Takes Postgres from the official image, in a version such as `15` or `17-alpine`. Throws where the container does not start. */
export async function startPostgresContainer(version: string, settings: Readonly<Record<string, string>>): Promise<Service> {
  const password = randomBytes(24).toString('base64url');
  const { host, port, stop } = await startContainer({
    image: `postgres:${version}`,
    port: 5432,
    // As the embedded Postgres: sorted by code point, and no shared memory in the small /dev/shm of a container.
    environment: { POSTGRES_USER: 'arcadia', POSTGRES_PASSWORD: password, POSTGRES_DB: 'arcadia', LANG: 'C.UTF-8', POSTGRES_INITDB_ARGS: '--encoding=UTF8 --locale=C.UTF-8' },
    command: ['postgres', ...Object.entries({ max_connections: '200', timezone: 'UTC', dynamic_shared_memory_type: 'mmap', ...settings }).flatMap(([name, value]) => ['-c', `${name}=${value}`])],
    // The first time it says so to its own set-up, over a socket.
    readyText: 'ready to accept connections',
    readyTimes: 2,
  });
  return { url: `postgres://arcadia:${password}@${host}:${port}/arcadia`, stop };
}

/** Takes Redis, or what is like it, from an image with a `redis-server`. Throws where the container does not start. */
export async function startRedisContainer(image: string): Promise<Service> {
  const { host, port, stop } = await startContainer({
    image,
    port: 6379,
    environment: {},
    command: ['redis-server', '--save', '', '--appendonly', 'no', '--maxmemory-policy', 'noeviction', '--protected-mode', 'no'],
    readyText: 'Ready to accept connections',
    readyTimes: 1,
  });
  return { url: `redis://${host}:${port}`, stop };
}

async function answers(where: { socketPath: string } | { host: string; port: number }, limitMs: number): Promise<boolean> {
  const probe = request({ ...where, path: '/_ping', signal: AbortSignal.timeout(limitMs) });
  probe.end();
  try {
    const [response] = await once(probe, 'response');
    response.resume();
    return response.statusCode === 200;
  } catch {
    return false;
  }
}

async function startContainer(plan: ContainerPlan): Promise<{ host: string; port: number; stop: () => Promise<void> }> {
  const guard = fork(fileURLToPath(new URL('services-container-guard.ts', import.meta.url)), [JSON.stringify(plan)], {
    // A session of its own, out of reach of the terminal's Ctrl-C.
    detached: true,
    execArgv: [],
    stdio: ['ignore', 'ignore', 'inherit', 'ipc'],
  });
  const exit = once(guard, 'exit');
  const stop = async (): Promise<void> => {
    if (guard.connected) guard.disconnect();
    await exit;
  };
  const reply: ContainerReply = await Promise.race([once(guard, 'message').then(([message]) => message), exit.then(() => ({ error: 'the guard of the container ended' }))]);
  if ('error' in reply) {
    await stop();
    throw new Error(`no container of ${plan.image}: ${reply.error}`);
  }
  return { ...reply, stop };
}
