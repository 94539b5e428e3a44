// The DigitalOcean API, as far as droplets need it: typed calls, each a single HTTP request (a list: one a page), each with
// its priority in the fleet's request budget. It neither repeats a request nor waits, and knows nothing of why it is asked.

import { z } from 'zod';
import { directIo, type Io } from '../platform/io.ts';
import { unlimitedBudget, type Priority, type RequestBudget } from './budget.ts';
import { createCaller, type Call, type Caller } from './call.ts';
import { endingOf, noCircuits, type Circuits } from './circuits.ts';
import { DigitalOceanError } from './errors.ts';
import { createExchanger } from './exchange.ts';
import type { ObservedAnswer } from './observed-answer.ts';
import { readPages, type ListOptions } from './pages.ts';
import { createReservations, type Reservation } from './reservations.ts';
import {
  accountBody,
  actionBody,
  createDropletBody,
  dropletBody,
  dropletSchema,
  type Account,
  type Action,
  type CreateDropletRequest,
  type Droplet,
} from './schemas.ts';

/**
 * Calls to the API. Each rejects with a `DigitalOceanError`, whose `kind` says what is known about the request, and with
 * nothing else, but for a RangeError or TypeError when an argument must not be sent at all.
 * Source: https://docs.digitalocean.com/reference/api/.
 */
export type DigitalOceanClient = {
  /** The same client, whose requests (but for creates) are drawn from the budget with this priority. */
  at(priority: Priority): DigitalOceanClient;
  /**
   * Draws this create from the budget, before it is announced; rejects as `throttled` when there is none, and as
   * `unauthorized` while a circuit holds it.
   */
  reserveCreate(request: CreateDropletRequest): Promise<Reservation>;
  /**
   * Asks for a droplet. It has no network addresses yet, and may still fail to be placed: follow the action, where
   * there is one. There is no idempotency key, so after an `ambiguous` error the droplet may exist.
   *
   * @param reservation what {@link reserveCreate} returned for it: the create is drawn from the budget once, there
   */
  createDroplet(request: CreateDropletRequest, reservation: Reservation): Promise<{ droplet: Droplet; actionId: number | null }>;
  /** Null when there is no such droplet, or when it was created a moment ago. */
  getDroplet(id: number): Promise<Droplet | null>;
  /** Every droplet with the tag; a droplet gets its tags a while after it was created. */
  listDropletsByTag(tag: string): Promise<Droplet[]>;
  /** Every droplet, or those of this name (in any case of letters), or of this type. Without one, GPU droplets are left out. */
  listDroplets(filter?: DropletFilter): Promise<Droplet[]>;
  /** Destroys the droplet, or finds it absent. While it is still being created, DigitalOcean may refuse (`later`). */
  destroyDroplet(id: number): Promise<'destroyed' | 'absent'>;
  /** Null when there is no such action. */
  getAction(id: number): Promise<Action | null>;
  /** The account of the token: the cheapest way to check one. */
  getAccount(): Promise<Account>;
  /**
   * Every item of a list, such as `/v2/sizes` with the key `sizes`. Asks for 200 a page, repeating `params` on every
   * page. One item that does not fit `itemSchema` fails the whole list.
   */
  listPaginated<T>(path: string, key: string, options: ListOptions<T>): Promise<T[]>;
  /** The same, page by page, for lists that need not be held in memory. */
  pages<T>(path: string, key: string, options: ListOptions<T>): AsyncGenerator<T[], void>;
};

/** `name` and `type` cannot be combined. */
export type DropletFilter = { readonly name?: string } | { readonly type?: 'droplets' | 'gpus' };

export type DigitalOceanClientOptions = {
  /** `https://api.digitalocean.com`, or where else the API answers. No request ever goes to another origin. */
  readonly apiUrl: string;
  readonly token: string;
  /** For each request, from its start to the last byte of the answer. */
  readonly timeoutMs: number;
  readonly io?: Io;
  readonly userAgent?: string;
  /** Told about each request as soon as it is over, answered or not; what it throws is ignored. */
  readonly onAnswer?: (answer: ObservedAnswer) => void;
  /** Null: requests are not counted. For tools and tests that make a few. */
  readonly budget: RequestBudget | null;
  /** What holds requests that DigitalOcean refuses; those that cannot be put off (`now`) are made all the same. */
  readonly circuits?: Circuits;
};

/** Makes a client. Throws a TypeError when the URL or the token cannot be used; its message holds neither. */
export function createDigitalOceanClient(options: DigitalOceanClientOptions): DigitalOceanClient {
  const { token, timeoutMs, io = directIo, userAgent = 'arcadia-cloud', onAnswer = () => {}, circuits = noCircuits } = options;
  const budget = options.budget ?? unlimitedBudget;
  checkToken(token);
  const baseUrl = readBaseUrl(options.apiUrl);
  const exchange = createExchanger({ token, timeoutMs, userAgent });
  const tell = (answer: ObservedAnswer) => {
    budget.answered(answer);
    onAnswer(answer);
  };
  const askAccount = () => endingOf(() => clientAt('now', caller).getAccount());
  const caller = createCaller({ baseUrl, token, timeoutMs, exchange, io, onAnswer: tell }, createReservations({ budget, circuits, askAccount }));
  return clientAt(null, caller);
}

/** `priority`: that of all requests but creates; null: each has its own. */
function clientAt(priority: Priority | null, caller: Caller): DigitalOceanClient {
  const priorityOr = (own: Priority) => priority ?? own;

  const pages = <T>(path: string, key: string, list: ListOptions<T>) => {
    checkPath(path);
    return readPages(
      {
        readPage: (params, schema) => sendPresent(caller, { method: 'GET', path, params, schema, priority: priorityOr(params['page'] === 1 ? 'read' : 'page') }),
        invalidAnswer: (why) => invalidAnswer(path, 200, why),
      },
      key,
      list,
    );
  };
  const listPaginated = <T>(path: string, key: string, list: ListOptions<T>) => collect(pages(path, key, list));

  return {
    at: (other) => clientAt(other, caller),

    reserveCreate: async (request) => caller.reserve(createOf(request)),

    pages,
    // Async, so that an argument that must not be sent is a rejection here too.
    listPaginated: async (path, key, list) => listPaginated(path, key, list),

    createDroplet: async (request, reservation) => sendPresent(caller, createOf(request), reservation),

    async getDroplet(id) {
      checkId('droplet', id);
      const result = await caller.send({ method: 'GET', path: `/v2/droplets/${id}`, schema: dropletBody(id), priority: priorityOr('read') });
      return result.kind === 'absent' ? null : result.value.droplet;
    },

    async listDropletsByTag(tag) {
      checkTag(tag);
      return listPaginated('/v2/droplets', 'droplets', { params: { tag_name: tag }, itemSchema: dropletSchema });
    },

    async listDroplets(filter = {}) {
      if ('name' in filter) checkName(filter.name);
      return listPaginated('/v2/droplets', 'droplets', { params: { ...filter }, itemSchema: dropletSchema });
    },

    async destroyDroplet(id) {
      checkId('droplet', id);
      const result = await caller.send({ method: 'DELETE', path: `/v2/droplets/${id}`, schema: z.unknown(), priority: priorityOr('destroy') });
      return result.kind === 'absent' ? 'absent' : 'destroyed';
    },

    async getAction(id) {
      checkId('action', id);
      const result = await caller.send({ method: 'GET', path: `/v2/actions/${id}`, schema: actionBody(id), priority: priorityOr('read') });
      return result.kind === 'absent' ? null : result.value.action;
    },

    async getAccount() {
      const { account } = await sendPresent(caller, { method: 'GET', path: '/v2/account', schema: accountBody, priority: priorityOr('read') });
      return account;
    },
  };
}

function createOf(request: CreateDropletRequest) {
  return { method: 'POST', path: '/v2/droplets', json: request, schema: createDropletBody, priority: 'create' } as const;
}

// A list or an account cannot be absent. Whoever says so is not the API, and must not be taken for "no droplets".
async function sendPresent<T>(caller: Caller, call: Call<T>, reservation?: Reservation): Promise<T> {
  const result = await caller.send(call, reservation);
  if (result.kind === 'done') return result.value;
  throw invalidAnswer(call.path, 404, 'what is always there is said to be absent; is the API URL right?');
}

function invalidAnswer(path: string, status: number, why: string): DigitalOceanError {
  return new DigitalOceanError(`GET ${path} was answered ${status}: ${why}`, {
    kind: 'later',
    code: 'invalid_answer',
    status,
    requestId: null,
    retryAfterMs: null,
    method: 'GET',
    path,
  });
}

async function collect<T>(pages: AsyncIterable<T[]>): Promise<T[]> {
  const items: T[] = [];
  for await (const page of pages) items.push(...page);
  return items;
}

function readBaseUrl(apiUrl: string): string {
  const url = URL.parse(apiUrl);
  if (url === null || !['http:', 'https:'].includes(url.protocol)) {
    throw new TypeError('the API URL must be an http or https URL');
  }
  if (url.username !== '' || url.password !== '' || url.search !== '' || url.hash !== '') {
    throw new TypeError('the API URL must have no user, password, query or fragment');
  }
  return url.origin + url.pathname.replace(/\/+$/, '');
}

function checkToken(token: string): void {
  if (!/^[\u0021-\u007e]+$/.test(token)) {
    throw new TypeError('the API token must be printable ASCII without spaces, and not empty');
  }
}

// A wrong id in a URL could name another droplet, and `/v2/droplets/` without any, followed by a query, all of a tag.
function checkId(what: string, id: number): void {
  if (!Number.isSafeInteger(id) || id <= 0) {
    throw new RangeError(`${what} id must be a positive safe integer, not ${typeof id === 'number' ? id : typeof id}`);
  }
}

function checkTag(tag: string): void {
  if (!/^[a-zA-Z0-9_\-:]{1,255}$/.test(tag)) {
    throw new RangeError('a tag must be 1 to 255 letters, digits, dashes, underscores and colons');
  }
}

// An empty name is no filter: it would list every droplet there is.
function checkName(name: string | undefined): void {
  if (name === undefined || name === '') throw new RangeError('the name to list droplets by must not be empty');
}

function checkPath(path: string): void {
  if (!/^(?:\/[a-zA-Z0-9_-]+)+$/.test(path)) {
    throw new TypeError('the path of a list must be like /v2/droplets');
  }
}
