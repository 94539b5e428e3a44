// wait_droplet_ready: a saga that asks for `ready` is completed once its droplet answers, and not before; all others do not
// have the step.
import { createServer as createHttpServer } from 'node:http';
import type { RequestListener } from 'node:http';
import { createServer } from 'node:net';
import type { AddressInfo, Server } from 'node:net';
import { describe, expect, onTestFinished, test } from 'vitest';
import { rangesOf } from '../../src/platform/address-ranges.ts';
import type { JsonObject } from '../../src/platform/json.ts';
import { textOf } from '../../src/platform/json.ts';
import { problemsOf, sentenceOf } from '../../src/platform/request-problems.ts';
import { catalog } from '../../src/steps/catalog.ts';
import { provisionContract } from '../../src/steps/contract.ts';
import { provisionDropletInput } from '../../src/steps/inputs.ts';
import type { Finding } from '../../src/steps/probe.ts';
import { alive, at, useStepStage, web } from './stage.ts';
import type { Bench, BenchOptions } from './stage.ts';

const openBench = useStepStage();
const HOUR_MS = 3_600_000;
const patient = { pollIntervalMs: 20_000, maxPolls: 5, adoptionGraceMs: HOUR_MS };

/** A bench on which droplets have addresses of this machine, with a saga that waits for its droplet to be ready. */
async function waitingSaga(ready: JsonObject, options: BenchOptions & { input?: JsonObject } = {}) {
  const bench = await openBench({ loopbackAddresses: true, settings: patient, ...options });
  const saga = await bench.provision({ ready, ...options.input });
  const waiting = await bench.drive(saga.id, at('wait_droplet_ready'));
  return { bench, saga: waiting, address: textOf(waiting.context['public_ipv4']) };
}

async function listen(server: Server, host: string, port = 0): Promise<number> {
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject).listen(port, host, resolve);
  });
  onTestFinished(() => void server.close());
  const { port: bound } = server.address() as AddressInfo; // oxlint-disable-line typescript/no-unsafe-type-assertion -- it listens on TCP
  return bound;
}

const serveHttp = (host: string, answer: RequestListener, port = 0) => listen(createHttpServer(answer), host, port);

/** A port on which nobody listens. */
async function freePort(host: string): Promise<number> {
  const server = createServer();
  const port = await listen(server, host);
  await new Promise((resolve) => void server.close(resolve));
  return port;
}

async function look(bench: Bench, sagaId: string): Promise<{ note: string; delayMs: number }> {
  const verdict = await bench.step(sagaId);
  if (verdict.kind !== 'postpone') throw new Error(`expected a wait, found ${verdict.kind}`);
  return { note: verdict.note, delayMs: verdict.delayMs };
}

const described = (steps: readonly { name: string; onlyWith?: string }[]) => steps.map(({ name, onlyWith }) => [name, onlyWith ?? null]);

/** A check that finds this, and tells which addresses were checked. */
function seen(answers: Finding) {
  const addresses: string[] = [];
  const probe = async ({ address }: { address: string }) => {
    addresses.push(address);
    return Promise.resolve(answers);
  };
  return { addresses, probe };
}

const v4 = (address: string, type: string) => ({ ip_address: address, netmask: '255.255.0.0', gateway: 'nil', type });

describe('which sagas have the step', () => {
  test('those whose input has `ready`, and no others', async () => {
    const bench = await openBench();
    const withReady = await bench.provision({ ready: { tcp: 22 } });
    const without = await bench.provision();
    expect(withReady.steps).toEqual(['create_droplet', 'wait_droplet_active', 'wait_droplet_ready', 'register_droplet']);
    expect(without.steps).toEqual(['create_droplet', 'wait_droplet_active', 'register_droplet']);
  });

  test.each([[{ tcp: 22 }, 4], [undefined, 3], [null, 3]] as const)('started by SQL too: with ready %j, %i steps', async (ready, count) => {
    const bench = await openBench();
    const input = { ...web, ...(ready === undefined ? {} : { ready }) };
    const [row] = await bench.db.sql<{ steps: string[] }[]>`
      with started as (select arcadia.start_saga('provision_droplet', ${JSON.stringify(input)}::text::jsonb) as id) select id from started`;
    const [saga] = await bench.db.sql<{ steps: string[] }[]>`select steps from arcadia.sagas`;
    expect([row === undefined, saga?.steps.length]).toEqual([false, count]);
  });

  test('the list that clients know is that of the saga', () => {
    expect(described(provisionContract.steps)).toEqual(described(catalog.provision_droplet.steps));
  });

  test('one that was started with the list of an older version is refused before anything is created', async () => {
    const bench = await openBench();
    const saga = await bench.provision({ ready: { tcp: 22 } });
    await bench.db.sql`update arcadia.sagas set steps = array['create_droplet', 'wait_droplet_active', 'register_droplet'] where id = ${saga.id}`;
    expect(await bench.drive(saga.id)).toMatchObject({ status: 'compensated', error: { code: 'ready_without_step' } });
    expect(bench.sandbox.state()).toEqual([]);
  });

  test('nor is one made whose lease, or protection, no step would carry out', async () => {
    const bench = await openBench();
    for (const more of [{ lease: { ttl_s: 60 } }, { protected: true }]) {
      const saga = await bench.provision(more);
      await bench.db.sql`update arcadia.sagas set steps = array['create_droplet', 'wait_droplet_active'] where id = ${saga.id}`;
      expect(await bench.drive(saga.id)).toMatchObject({ status: 'compensated', error: { code: 'input_without_step' } });
    }
    expect(bench.sandbox.state()).toEqual([]);
  });

  test('a saga under way without `ready` goes on with the three steps that it started with', async () => {
    const bench = await openBench();
    const saga = await bench.provision();
    expect(await bench.drive(saga.id)).toMatchObject({ status: 'completed', steps: ['create_droplet', 'wait_droplet_active', 'register_droplet'] });
  });
});

describe('tcp', () => {
  test('waits until the port takes connections, and says what it waits for', async () => {
    const port = await freePort('127.0.0.1');
    const { bench, saga, address } = await waitingSaga({ tcp: port });
    expect(await look(bench, saga.id)).toEqual({ note: 'last check: connection refused', delayMs: 20_000 });
    await look(bench, saga.id);
    expect(bench.memo(saga.id)).toEqual({ polls: 2 });
    await listen(createServer(), address, port);
    const after = await bench.drive(saga.id);
    expect(after).toMatchObject({ status: 'completed', context: { public_ipv4: address } });
    const told = (await bench.events(saga.id)).map(({ detail }) => textOf(detail['note']));
    expect(told).toContainEqual(`droplet ${Number(after.context['droplet_id'])} is ready: port ${port} of ${address} answered after 3 checks`);
  });

  test('no request to DigitalOcean is spent on it', async () => {
    const { bench, saga, address } = await waitingSaga({ tcp: await freePort('127.0.0.1') });
    const before = bench.sandbox.ledger().length;
    for (let checks = 0; checks < 5; checks += 1) await look(bench, saga.id);
    expect(bench.sandbox.ledger()).toHaveLength(before);
    expect(address).toMatch(/^127\./);
  });

  test('an endless handshake ends a check at its deadline', async () => {
    const silent: Finding = { answered: false, why: 'no answer within 3 s' };
    const { bench, saga } = await waitingSaga({ tcp: 22 }, { readiness: { probe: async () => Promise.resolve(silent) } });
    expect((await look(bench, saga.id)).note).toBe('last check: no answer within 3 s');
  });
});

describe('http', () => {
  test.each<[string, JsonObject, RequestListener, boolean]>([
    ['200, any success asked for', {}, (_request, response) => void response.writeHead(200).end(), true],
    ['204, any success asked for', {}, (_request, response) => void response.writeHead(204).end(), true],
    ['503, any success asked for', {}, (_request, response) => void response.writeHead(503).end(), false],
    ['503, which was asked for', { status: 503 }, (_request, response) => void response.writeHead(503).end(), true],
    ['200, another status asked for', { status: 204 }, (_request, response) => void response.writeHead(200).end(), false],
    ['a redirect', {}, (_request, response) => void response.writeHead(302, { location: 'http://169.254.169.254/' }).end(), false],
    ['a redirect that was asked for, and is not followed', { status: 302 }, (_request, response) => void response.writeHead(302, { location: 'http://169.254.169.254/' }).end(), true],
    ['an endless body after a success', {}, (_request, response) => void response.writeHead(200).write('x'.repeat(1_000_000)), true],
    ['headers without end', {}, (_request, response) => void response.writeHead(200, { 'x-long': 'x'.repeat(100_000) }).end(), false],
    ['no HTTP', {}, (request) => void request.socket.end('SSH-2.0-OpenSSH\r\n'), false],
    ['nothing, and the connection is closed', {}, (request) => void request.socket.destroy(), false],
    ['nothing at all', {}, () => undefined, false],
  ])('answered with %s', async (_how, more, answer, isReady) => {
    const port = await serveHttp('127.0.0.1', answer);
    const { bench, saga, address } = await waitingSaga({ http: { port, path: '/healthz', ...more } }, { activateAfterMs: 0 });
    await serveHttp(address, answer, port);
    const verdict = await bench.step(saga.id);
    expect([verdict.kind, verdict.note.startsWith('last check: ')]).toEqual([isReady ? 'next' : 'postpone', !isReady]);
  });

  test('asks for the path, by the address, and shows no credentials', async () => {
    const asked: object[] = [];
    const port = await freePort('127.0.0.1');
    const { bench, saga, address } = await waitingSaga({ http: { port, path: '/up?full=1' } });
    await serveHttp(address, ({ method, url, headers }, response) => {
      asked.push({ method, url, headers });
      response.end();
    }, port);
    await bench.drive(saga.id);
    expect(asked).toEqual([{ method: 'GET', url: '/up?full=1', headers: { 'user-agent': 'arcadia-cloud', accept: '*/*', connection: 'close', host: `${address}:${port}` } }]);
  });
});

describe('not ready', () => {
  test('in time: rolled back with code droplet_not_ready, and with what was seen', async () => {
    const port = await freePort('127.0.0.1');
    const { bench, saga, address } = await waitingSaga({ tcp: port, within_s: 60 });
    await look(bench, saga.id);
    await bench.ageStep(saga.id, 60_000);
    const after = await bench.drive(saga.id);
    expect(after).toMatchObject({ status: 'compensated', error: { code: 'droplet_not_ready', step: 'wait_droplet_ready' } });
    expect(after.error?.message).toBe(
      `droplet ${Number(saga.context['droplet_id'])} is not ready: port ${port} of ${address} did not answer as expected within 1 min 0 s (2 checks; the last one: connection refused)`,
    );
    expect(alive(bench.sandbox)).toEqual([]);
  });

  test('ten minutes are the limit where none is given', async () => {
    const { bench, saga } = await waitingSaga({ tcp: await freePort('127.0.0.1') });
    await look(bench, saga.id);
    await bench.ageStep(saga.id, 590_000);
    expect((await look(bench, saga.id)).delayMs).toBeLessThanOrEqual(10_000);
    await bench.ageStep(saga.id, 10_000);
    expect((await bench.drive(saga.id)).error?.code).toBe('droplet_not_ready');
  });

  test('a first check that comes late, after a pause of the queue, does not end the wait', async () => {
    const port = await freePort('127.0.0.1');
    const { bench, saga, address } = await waitingSaga({ tcp: port, within_s: 10 });
    await bench.ageStep(saga.id, HOUR_MS);
    await look(bench, saga.id);
    await listen(createServer(), address, port);
    expect((await bench.drive(saga.id)).status).toBe('completed');
  });

  test('a cancel ends the wait, and nothing is left', async () => {
    const { bench, saga } = await waitingSaga({ tcp: await freePort('127.0.0.1') });
    await look(bench, saga.id);
    await bench.cancel(saga.id);
    expect(await bench.drive(saga.id)).toMatchObject({ status: 'compensated', error: { code: 'cancelled' } });
    expect(alive(bench.sandbox)).toEqual([]);
  });

  test('while other droplets are checked: waits for its turn, and no check is counted, also after the time is over', async () => {
    const { bench, saga } = await waitingSaga({ tcp: 22, within_s: 1 }, { readiness: { probe: async () => Promise.resolve({ retryMs: 700 }) } });
    await bench.ageStep(saga.id, HOUR_MS);
    for (let checks = 0; checks < 4; checks += 1) expect(await look(bench, saga.id)).toEqual({ note: 'waiting for its turn: other droplets are being checked', delayMs: 700 });
    expect(bench.memo(saga.id)).toEqual({});
  });

  test('trouble of the worker itself fails no check', async () => {
    const error = Object.assign(new Error('too many open files'), { code: 'EMFILE' });
    const { bench, saga } = await waitingSaga({ tcp: 22, within_s: 1 }, { readiness: { probe: async () => Promise.resolve({ answered: false, why: 'connection failed (EMFILE)', error }) } });
    await bench.ageStep(saga.id, HOUR_MS);
    for (let checks = 0; checks < 4; checks += 1) expect((await look(bench, saga.id)).note).toBe('could not check: connection failed (EMFILE)');
  });
});

describe('which address is checked', () => {
  const six = { ip_address: '2604:a880::7', netmask: 64, gateway: '2604:a880::1', type: 'public' };

  test.each([
    ['the public IPv4', [v4('10.1.2.3', 'private'), v4('8.8.4.4', 'public')], [six], '8.8.4.4'],
    ['the public IPv6 where there is no public IPv4', [v4('10.1.2.3', 'private')], [six], '2604:a880::7'],
    ['the private IPv4 where there is no other, and it is allowed', [v4('10.1.2.3', 'private')], [], '10.1.2.3'],
  ])('%s', async (_which, ipv4, ipv6, expected) => {
    const { addresses, probe } = seen({ answered: true });
    const bench = await openBench({ activateAfterMs: HOUR_MS, readiness: { probe, allowed: rangesOf(['10.0.0.0/8']) }, settings: patient });
    const saga = await bench.provision({ ready: { tcp: 22 }, public_networking: false });
    const waiting = await bench.drive(saga.id, at('wait_droplet_active'));
    bench.sandbox.editDroplet(Number(waiting.context['droplet_id']), { status: 'active', networks: { v4: ipv4, v6: ipv6 } });
    expect((await bench.drive(saga.id)).status).toBe('completed');
    expect(addresses).toEqual([expected]);
  });

  test.each(['127.0.0.1', '10.1.2.3', '169.254.169.254', '::ffff:127.0.0.1', 'localhost', '2130706433'])('never %s, unless READY_PROBE_ALLOW names it', async (address) => {
    const { addresses, probe } = seen({ answered: true });
    const bench = await openBench({ activateAfterMs: HOUR_MS, readiness: { probe, allowed: rangesOf([]) }, settings: patient });
    const saga = await bench.provision({ ready: { tcp: 22 } });
    const waiting = await bench.drive(saga.id, at('wait_droplet_active'));
    bench.sandbox.editDroplet(Number(waiting.context['droplet_id']), { status: 'active', networks: { v4: [v4(address, 'public')], v6: [] } });
    const after = await bench.drive(saga.id);
    expect(after).toMatchObject({ status: 'compensated', error: { code: 'droplet_not_ready', message: expect.stringContaining('READY_PROBE_ALLOW') } });
    expect(addresses).toEqual([]);
  });
});

describe('input', () => {
  test.each<[JsonObject, string]>([
    [{ ready: {} }, 'ready: expected exactly one of tcp, http and callback'],
    [{ ready: { tcp: 22, callback: true } }, 'ready: expected exactly one of tcp, http and callback'],
    [{ ready: { tcp: 0 } }, 'ready.tcp: expected a port: 1 to 65535'],
    [{ ready: { tcp: 65_536 } }, 'ready.tcp: expected a port: 1 to 65535'],
    [{ ready: { tcp: '22' } }, 'ready.tcp: expected a port: a whole number from 1 to 65535'],
    [{ ready: { udp: 22 } }, 'ready.udp: unknown field'],
    [{ ready: { callback: false } }, 'ready.callback: expected true, or no callback'],
    [{ ready: { http: { port: 80, path: 'healthz' } } }, 'ready.http.path: expected a path that begins with /'],
    [{ ready: { http: { port: 80, path: '/a b' } } }, 'ready.http.path: expected a path that begins with /'],
    [{ ready: { http: { port: 80, path: '/\r\nHost: x' } } }, 'ready.http.path: expected a path that begins with /'],
    [{ ready: { http: { port: 80, status: 100 } } }, 'ready.http.status: expected a status from 200 to 599'],
    [{ ready: { http: { port: 80, host: 'x' } } }, 'ready.http.host: unknown field'],
    [{ ready: { tcp: 22, within_s: 0 } }, 'ready.within_s: expected at least 1 second'],
    [{ ready: { tcp: 22, within_s: 86_401 } }, 'ready.within_s: expected at most 86400 seconds (a day)'],
    [{ wait_s: 0.5 }, 'wait_s: expected whole seconds, 1 to 86400'],
    [{ wait_s: 86_401 }, 'wait_s: expected at most 86400 seconds (a day)'],
  ])('%j is refused: %s', (more, problem) => {
    const { error } = provisionDropletInput.safeParse({ ...web, ...more });
    expect(sentenceOf(problemsOf(error?.issues ?? []))).toContain(problem);
  });

  test('what is ours is not sent to DigitalOcean', async () => {
    const rules = ['ready', 'wait_s', 'name'].map((field) => ({ match: { method: 'POST' as const, field }, effect: { delayMs: 0 } }));
    const { bench } = await waitingSaga({ tcp: 22 }, { input: { wait_s: 60 }, faults: { rules } });
    expect(bench.sandbox.faults().rules.map(({ seen }) => seen)).toEqual([0, 0, 1]);
  });
});
