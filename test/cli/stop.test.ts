// Being stopped: at any moment, by the signals that service managers, containers and terminals send.
import { once } from 'node:events';
import { chmod, mkdtemp, readdir, rm } from 'node:fs/promises';
import { createServer } from 'node:net';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, onTestFinished, test } from 'vitest';
import { openFleet, web as droplet } from '../support/fleet.ts';
import { canBeProcessOne, startAsProcessOne } from '../support/process-one.ts';
import { waitFor } from '../support/wait-for.ts';

const { PATH, HOME } = process.env;
const base = { PATH, HOME, DIGITALOCEAN_TOKEN: 'sandbox', DIGITALOCEAN_API_URL: 'http://127.0.0.1:9', PORT: '0' };
const nowhere = { ...base, DATABASE_URL: 'postgres://arcadia:secret@127.0.0.1:9/arcadia' };

// Whoever stops a process waits some ten seconds before it kills.
const PROMPT_MS = 8_000;

/** A server that takes connections and never says a word, as a Postgres that hangs. */
async function openSilentServer() {
  const server = createServer();
  let connections = 0;
  server.on('connection', (socket) => {
    connections += 1;
    socket.on('error', () => undefined);
    onTestFinished(() => void socket.destroy());
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  onTestFinished(() => void server.close());
  const { port } = server.address() as AddressInfo; // oxlint-disable-line typescript/no-unsafe-type-assertion
  return { url: `postgres://arcadia:secret@127.0.0.1:${port}/arcadia`, isConnected: () => connections > 0 };
}

async function makeTempFolder(): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), 'arcadia-test-'));
  onTestFinished(() => rm(folder, { recursive: true, force: true }));
  // Where we are root, Postgres is somebody else.
  await chmod(folder, 0o755);
  return folder;
}

/** How a process ended that was told to, and that it did so in time. */
async function endOf({ ended, output }: Awaited<ReturnType<typeof startAsProcessOne>>, withinMs = PROMPT_MS) {
  const late = new Promise<string>((resolve) => void setTimeout(() => resolve(`still running after ${withinMs} ms`), withinMs).unref());
  return { end: await Promise.race([ended, late]), stack: /^\s+at .*$/m.exec(output())?.[0] };
}

describe('as process 1, that has no default action for signals', () => {
  const servers = [['worker'], ['web'], ['sandbox', '--port', '0'], ['dev', '--data-dir', '/nowhere']];
  const commands = [['migrate'], ['sagas'], ['provision', '--name', 'x', '--region', 'x', '--size', 'x', '--image', 'x'], ['sync'], ['demo']];

  test.each([...servers.map((args) => ({ args, code: 0 })), ...commands.map((args) => ({ args, code: 143 }))])(
    '$args.0 that gets SIGTERM while it is loaded ends: $code',
    async ({ args, code }) => {
      await using one = await startAsProcessOne(args, nowhere);
      one.signal('SIGTERM');
      const { end, stack } = await endOf(one);
      // Any other process has its default action until our code listens.
      expect(canBeProcessOne ? [code] : [code, 'SIGTERM']).toContain(end);
      expect(stack).toBeUndefined();
    },
  );

  test.each([
    { command: 'worker', signal: 'SIGTERM', code: 0, says: '"why":"SIGTERM","msg":"worker stopped before it was ready"' },
    { command: 'worker', signal: 'SIGINT', code: 0, says: '"why":"SIGINT","msg":"worker stopped before it was ready"' },
    { command: 'web', signal: 'SIGTERM', code: 0, says: '"why":"SIGTERM","msg":"web stopped before it was ready"' },
    { command: 'dev', signal: 'SIGTERM', code: 0, says: '' },
    { command: 'migrate', signal: 'SIGTERM', code: 143, says: '' },
    { command: 'sagas', signal: 'SIGINT', code: 130, says: '' },
    { command: 'sync', signal: 'SIGTERM', code: 143, says: '' },
  ] as const)('$command that gets $signal while Postgres does not answer ends: $code', async ({ command, signal, code, says }) => {
    const postgres = await openSilentServer();
    await using one = await startAsProcessOne([command], { ...base, DATABASE_URL: postgres.url });
    await waitFor(postgres.isConnected, { what: 'a connection', everyMs: 10 });
    one.signal(signal);
    expect(await endOf(one, 4_000)).toEqual({ end: code, stack: undefined });
    expect(one.output()).toContain(says);
  });

  test.each([
    { command: 'demo', code: 143 },
    { command: 'dev', code: 0 },
  ])('$command that gets SIGTERM while its Postgres starts leaves nothing behind, and ends: $code', async ({ command, code }) => {
    const TMPDIR = await makeTempFolder();
    await using one = await startAsProcessOne([command], { PATH, HOME, TMPDIR, PORT: '0' });
    await waitFor(async () => (await readdir(TMPDIR)).length > 0, { what: 'its folder', everyMs: 5 });
    one.signal('SIGTERM');
    expect(await endOf(one)).toEqual({ end: code, stack: undefined });
    expect(await readdir(TMPDIR)).toEqual([]);
  });

  test('demo that gets SIGTERM while its workers start leaves nothing behind', async () => {
    const TMPDIR = await makeTempFolder();
    await using one = await startAsProcessOne(['demo'], { PATH, HOME, TMPDIR });
    await waitFor(() => one.output().includes('starting two worker processes'), { what: 'the workers', everyMs: 5, deadlineMs: 20_000 });
    one.signal('SIGTERM');
    expect(await endOf(one)).toEqual({ end: 143, stack: undefined });
    expect(await readdir(TMPDIR)).toEqual([]);
  });

  test('a worker in the middle of a step finishes it at the first signal, and ends at once at the second', async () => {
    await using fleet = await openFleet('redis');
    fleet.sandbox.setFaults({ rules: [{ match: { method: 'POST', path: '/v2/droplets' }, effect: { holdAnswerMs: 2_000 } }] });
    await using one = await startAsProcessOne(['worker'], fleet.environment());
    await waitFor(() => one.output().includes('worker ready'), { what: 'the worker', deadlineMs: 20_000 });
    await fleet.client.provisionDroplet(droplet);
    await waitFor(() => fleet.sandbox.state().length > 0, { what: 'the droplet', everyMs: 10 });
    one.signal('SIGTERM');
    await waitFor(() => one.output().includes('worker stopping'), { what: 'the worker to stop', everyMs: 5 });
    expect(one.output()).not.toContain('worker stopped');
    one.signal('SIGINT');
    expect(await endOf(one, 1_000)).toEqual({ end: 130, stack: undefined });
  });
});
