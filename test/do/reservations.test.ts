// Each request is reserved before it is sent: drawn from the request budget once, with the priority that its call names.

import { describe, expect, test } from 'vitest';
import { z } from 'zod';
import { createLocalBudgetStore } from '../../src/do/budget-local.ts';
import { createRequestBudget, type Priority, type RequestBudget } from '../../src/do/budget.ts';
import { createCaller, type Call } from '../../src/do/call.ts';
import type { CircuitStore, OpenCircuit } from '../../src/do/circuit-store.ts';
import { createCircuits, noCircuits, type Circuits, type Passage } from '../../src/do/circuits.ts';
import { createExchanger } from '../../src/do/exchange.ts';
import { createReservations } from '../../src/do/reservations.ts';
import { directIo } from '../../src/platform/io.ts';
import { silentLog } from '../../src/platform/log.ts';
import { clientOf, createDroplet, dropletJson, errorOf, sendJson, startServer, TOKEN, type TestServer } from './support.ts';

const createRequest = { name: 'web-1', region: 'nyc3', size: 's-1vcpu-1gb', image: 'ubuntu-24-04-x64' };
const powerOff = { method: 'POST', path: '/v2/droplets/7/actions', json: { type: 'power_off' }, schema: z.unknown() } as const;
const circuit: OpenCircuit = {
  id: '1', cause: '401', kind: 'token_refused', request: null, fields: [], subject: null, openedAt: new Date(), detail: {}, relapses: 1, isInvited: false, probeInMs: 0,
};
const everyPriority: Priority[] = ['now', 'destroy', 'create', 'page', 'read', 'sync'];

/** A real budget of one process, and what was drawn from it. */
function createBudget(perMinute = 100): { budget: RequestBudget; drawn: string[] } {
  const budget = createRequestBudget({ store: createLocalBudgetStore(), perMinute, perHour: 1_000, io: directIo, log: silentLog });
  const drawn: string[] = [];
  const draw: RequestBudget['draw'] = async (priority, request) => {
    drawn.push(`${priority}: ${request.method} ${request.path}`);
    return budget.draw(priority, request);
  };
  return { budget: { ...budget, draw }, drawn };
}

const neverAsked = async () => Promise.reject(new Error('no request is refused in this test'));

/** What the client sends its calls with. */
function callerOf(server: TestServer, budget: RequestBudget, circuits: Circuits = noCircuits) {
  const options = { baseUrl: server.url, token: TOKEN, timeoutMs: 2_000, io: directIo, onAnswer: budget.answered };
  return createCaller({ ...options, exchange: createExchanger({ ...options, userAgent: 'test' }) }, createReservations({ budget, circuits, askAccount: neverAsked }));
}

const answering = async () => startServer(({ method }, response) => (method === 'DELETE' ? response.writeHead(204).end() : sendJson(response, 200, {})));

describe('a call of any endpoint', () => {
  test.each(['POST', 'GET', 'DELETE'] as const)('that is a %s is drawn once, with its own priority', async (method) => {
    const server = await answering();
    for (const priority of everyPriority) {
      const { budget, drawn } = createBudget();
      await callerOf(server, budget).send({ method, path: '/v2/droplets/7/actions', schema: z.unknown(), priority });
      expect(drawn).toEqual([`${priority}: ${method} /v2/droplets/{id}/actions`]);
      expect(budget.left()).toEqual({ minute: 99, hour: 999 });
    }
    expect(server.received).toHaveLength(everyPriority.length);
  });

  test('sends its body as JSON, whatever the body holds', async () => {
    const server = await answering();
    const json = { type: 'resize', disk: true, size: 's-2vcpu-2gb', nested: [{ size: 1 }] };
    await callerOf(server, createBudget().budget).send({ ...powerOff, json, priority: 'create' });
    expect(JSON.parse(server.received[0]?.body ?? '')).toEqual(json);
  });

  test('that a circuit holds gives up the turn of whoever waits', async () => {
    const withdrawn: unknown[] = [];
    const { budget } = createBudget();
    const circuits: Circuits = { ...noCircuits, admit: async () => Promise.reject(new Error('held')) };
    const { reserve } = createReservations({ budget: { ...budget, withdraw: async (waiter) => Promise.resolve(void withdrawn.push(waiter)) }, circuits, askAccount: async () => Promise.reject(new Error('unused')) });
    const waiter = { id: 'saga', requester: null, priority: 'normal', since: new Date(0) } as const;
    await expect(reserve({ method: 'POST', path: '/v2/droplets', fields: [], subject: 'web-1' }, 'create', waiter)).rejects.toThrow('held');
    expect(withdrawn).toEqual([waiter]);
  });

  test('is not sent if the budget has no room for its priority, and gives its probe back', async () => {
    const server = await answering();
    const { budget } = createBudget(1);
    await callerOf(server, budget).send({ ...powerOff, priority: 'destroy' });
    const passage: Passage = { circuit, lease: 'a', isInvited: false };
    const givenBack: unknown[] = [];
    const circuits: Circuits = { ...noCircuits, admit: async () => Promise.resolve(passage), giveBack: async (back) => Promise.resolve(void givenBack.push(back)) };
    const error = await errorOf(callerOf(server, budget, circuits).send({ ...powerOff, priority: 'create' }));
    expect(error).toMatchObject({ kind: 'throttled', code: 'request_budget', method: 'POST', path: '/v2/droplets/{id}/actions' });
    expect(givenBack).toEqual([passage]);
    expect(server.received).toHaveLength(1);
  });

  test('keeps its user_data out of the error', async () => {
    const server = await startServer(({ body }, response) => sendJson(response, 422, { message: `bad: ${body}` }));
    const json = { type: 'rebuild', user_data: '#cloud-config\nuser-data-canary-78' };
    const error = await errorOf(callerOf(server, createBudget().budget).send({ ...powerOff, json, priority: 'create' }));
    expect(error.message).toBe('DigitalOcean returned 422 for POST /v2/droplets/7/actions: it does not say why');
  });

  test('does not compile without a priority', () => {
    // @ts-expect-error -- each call names its priority
    const call: Call<unknown> = powerOff;
    // @ts-expect-error -- and it is one that the budget knows
    const other: Call<unknown> = { ...powerOff, priority: 'urgent' };
    expect([call, other]).toHaveLength(2);
  });
});

/** Answers as DigitalOcean does; a list has two pages. */
const listing = async () =>
  startServer(({ method, url }, response) => {
    if (method === 'DELETE') return response.writeHead(204).end();
    if (url.pathname === '/v2/account') return sendJson(response, 200, { account: { uuid: 'a' } });
    if (url.pathname.startsWith('/v2/actions/')) return sendJson(response, 200, { action: { id: 5 } });
    if (method === 'POST' || url.pathname.endsWith('/7')) return sendJson(response, method === 'POST' ? 202 : 200, { droplet: dropletJson(7) });
    const next = url.searchParams.get('page') === '1' ? `${url.origin}/v2/droplets?page=2` : null;
    return sendJson(response, 200, { droplets: [], links: { pages: { next } } });
  });

describe('a client', () => {
  test('draws each of its calls with the priority of what the call does', async () => {
    const { budget, drawn } = createBudget();
    const client = clientOf(await listing(), { budget });
    await createDroplet(client, createRequest);
    await client.getDroplet(7);
    await client.listDroplets();
    await client.destroyDroplet(7);
    await client.getAction(5);
    await client.getAccount();
    expect(drawn).toEqual([
      'create: POST /v2/droplets',
      'read: GET /v2/droplets/{id}',
      'read: GET /v2/droplets',
      'page: GET /v2/droplets',
      'destroy: DELETE /v2/droplets/{id}',
      'read: GET /v2/actions/{id}',
      'read: GET /v2/account',
    ]);
    expect(budget.left()?.hour).toBe(1_000 - drawn.length);
  });

  test.each(everyPriority)('with the priority %s draws everything but creates with it', async (priority) => {
    const { budget, drawn } = createBudget();
    const client = clientOf(await listing(), { budget }).at(priority);
    await client.getDroplet(7);
    await client.listDropletsByTag('web');
    await client.destroyDroplet(7);
    await createDroplet(client, createRequest);
    expect(drawn.map((line) => line.split(':')[0])).toEqual([priority, priority, priority, priority, 'create']);
  });

  test('draws a create when it is reserved, before it is sent, and not again', async () => {
    const server = await listing();
    const { budget, drawn } = createBudget();
    const client = clientOf(server, { budget });
    const reservation = await client.reserveCreate(createRequest);
    expect([drawn.length, server.received.length]).toEqual([1, 0]);
    await client.createDroplet(createRequest, reservation);
    expect([drawn.length, server.received.length]).toEqual([1, 1]);
  });

  test('cannot create without a reservation: it does not compile, and would be drawn all the same', async () => {
    const { budget, drawn } = createBudget();
    // @ts-expect-error -- the reservation is missing
    await clientOf(await listing(), { budget }).createDroplet(createRequest);
    expect(drawn).toEqual(['create: POST /v2/droplets']);
  });
});

const askedOf = (method: 'GET' | 'DELETE' | 'POST', path: string) => ({ method, path, fields: [], subject: path });

describe('a refusal for want of a scope', () => {
  const refusal = { outcome: 'unauthorized', status: 403, message: '403' } as const;

  test('opens no circuit where nothing depends on it but tidiness, and one for anything else', async () => {
    const refused: string[] = [];
    const store: CircuitStore = {
      listOpen: () => Promise.resolve([]),
      refuse: ({ cause }) => Promise.resolve(void refused.push(cause)).then(() => ({ ...circuit, cause, kind: 'request_refused' })),
      lease: () => Promise.resolve(null),
      giveBack: () => Promise.resolve(),
      close: () => Promise.resolve(),
      goOn: () => Promise.resolve(),
      invite: () => Promise.resolve(),
      hasten: () => Promise.resolve(),
      takeWaking: () => Promise.resolve(false),
      hurry: () => Promise.resolve(),
      prune: () => Promise.resolve(),
    };
    const circuits = createCircuits({ store, leaseMs: 1_000, holdMs: 1_000, log: silentLog });
    for (const one of [askedOf('GET', '/v2/tags/{name}'), askedOf('DELETE', '/v2/tags/{name}')]) expect(await circuits.settle(one, null, refusal, neverAsked)).toBeNull();
    expect(await circuits.settle(askedOf('POST', '/v2/projects/{id}/resources'), null, refusal, neverAsked)).not.toBeNull();
    expect(refused).toEqual(['403 POST /v2/projects/{id}/resources']);
  });
});
