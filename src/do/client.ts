// The part of the DigitalOcean API that droplets need. Each typed call is a single HTTP request (a list: one request per
// page) with its own priority in the fleet's request budget. The client never retries and never waits.

import { z } from 'zod';
import { directIo, type Io } from '../platform/io.ts';
import { checkId, checkImage, checkName, checkPath, checkTag, checkToken, checkUuid, readBaseUrl } from './arguments.ts';
import { unlimitedBudget, type Priority, type RequestBudget, type Waiter } from './budget.ts';
import { createCaller, type Call, type Caller } from './call.ts';
import { endingOf, noCircuits, type Circuits } from './circuits.ts';
import { DigitalOceanError, returned } from './errors.ts';
import { createExchanger } from './exchange.ts';
import type { ObservedAnswer } from './observed-answer.ts';
import { harmlessRequest } from './harmless-request.ts';
import { readPages, type ListOptions } from './pages.ts';
import { createReservations, type Reservation } from './reservations.ts';
import {
  accountBody,
  assignmentBody,
  associatedBody,
  actionBody,
  countBody,
  createDropletBody,
  createdTagBody,
  dropletBody,
  dropletSchema,
  imageBody,
  imageSchema,
  projectSchema,
  regionSchema,
  sizeSchema,
  sshKeySchema,
  tagBody,
  vpcSchema,
  type Account,
  type Action,
  type AssociatedResource,
  type CreateDropletRequest,
  type Droplet,
  type Image,
  type Project,
  type Region,
  type Size,
  type SshKey,
  type Tag,
  type Vpc,
} from './schemas.ts';

/**
 * Calls to the API. Each rejects only with a `DigitalOceanError`, whose `kind` says what is known about the request, or
 * with a RangeError or TypeError if an argument must not be sent at all.
 * Source: https://docs.digitalocean.com/reference/api/.
 */
export type DigitalOceanClient = {
  /** Returns the same client, but its requests (except creates) use this priority. */
  at(priority: Priority): DigitalOceanClient;
  /** Returns the same client, but its creates and what else takes turns in the budget wait for their turns as this waiter. */
  for(waiter: Waiter): DigitalOceanClient;
  /** Gives up the turn of a waiter that will send no create. Never throws. */
  withdraw(waiter: Waiter): Promise<void>;
  /**
   * Draws this create from the budget before it is announced. Rejects as `throttled` if the budget has no room, and as
   * `unauthorized` while a circuit holds the request.
   */
  reserveCreate(request: CreateDropletRequest): Promise<Reservation>;
  /**
   * Creates a droplet. The droplet has no network addresses yet and may still fail to be placed: poll the action, if
   * there is one. DigitalOcean has no idempotency key, so after an `ambiguous` error the droplet may exist.
   *
   * @param reservation the reservation that {@link reserveCreate} returned; it already drew the create from the budget
   */
  createDroplet(request: CreateDropletRequest, reservation: Reservation): Promise<{ droplet: Droplet; actionId: number | null }>;
  /** Null if the droplet does not exist or was created a moment ago. */
  getDroplet(id: number): Promise<Droplet | null>;
  /** Lists every droplet with the tag. A new droplet gets its tags with a delay. */
  listDropletsByTag(tag: string): Promise<Droplet[]>;
  /** Lists every droplet, or those with this name (ignoring case) or of this type. Without a filter, omits GPU droplets. */
  listDroplets(filter?: DropletFilter): Promise<Droplet[]>;
  /** Destroys the droplet. DigitalOcean may refuse while the droplet is still being created (`later`). */
  destroyDroplet(id: number): Promise<'destroyed' | 'absent'>;
  /** What stays, and costs money, when the droplet is destroyed. Null when there is no such droplet. */
  listAssociatedResources(dropletId: number): Promise<AssociatedResource[] | null>;
  /** Null when there is no such tag, in this spelling. */
  readTag(name: string): Promise<Tag | null>;
  /** Deletes the tag. Resources that carry the tag lose it, so read its count first. */
  deleteTag(name: string): Promise<'deleted' | 'absent'>;
  /** Makes a tag, or finds it: DigitalOcean keeps the spelling in which a tag was first used. Safe to repeat, so that no error of it is `ambiguous`. */
  createTag(name: string): Promise<Pick<Tag, 'name'>>;
  /** Draws this tagging from the budget before it is announced. Rejects like {@link reserveCreate}. */
  reserveTagging(tag: string, dropletId: number): Promise<Reservation>;
  /**
   * Puts an existing tag on a droplet. Safe to repeat, so that no error of it is `ambiguous`. `absent`: there is no such droplet, or tag.
   *
   * @param reservation the reservation that {@link reserveTagging} returned, if any
   */
  tagDroplet(tag: string, dropletId: number, reservation?: Reservation): Promise<'tagged' | 'absent'>;
  /** Takes a tag off a droplet. `absent`: there is no such droplet, or tag. */
  untagDroplet(tag: string, dropletId: number): Promise<'untagged' | 'absent'>;
  /** Counts the droplets of the account: one request. Without a type, omits GPU droplets. A new droplet is counted with a delay. */
  countDroplets(type?: 'droplets' | 'gpus'): Promise<number>;
  listRegions(): Promise<Region[]>;
  listSizes(): Promise<Size[]>;
  /** Lists every image that the account can use, public ones and its own. */
  listImages(): Promise<Image[]>;
  /** Null if the account can use no such image. */
  getImage(slugOrId: string | number): Promise<Image | null>;
  listVpcs(): Promise<Vpc[]>;
  /** The SSH keys of the account. */
  listSshKeys(): Promise<SshKey[]>;
  /** Lists the projects of the account. */
  listProjects(): Promise<Project[]>;
  /**
   * Moves a droplet into a project, out of its current one. Safe to repeat, so its errors are never `ambiguous`.
   *
   * @returns DigitalOcean's status for the droplet; null: none
   */
  assignToProject(projectId: string, dropletId: number): Promise<string | null>;
  /** Null if the action does not exist. */
  getAction(id: number): Promise<Action | null>;
  /**
   * Sends a request of a kind that DigitalOcean authorizes like every other one of it, but that has no effect.
   *
   * @param request such as `POST /v2/droplets`
   * @param fields the optional fields that it uses
   * @throws {TypeError} if no such request is known of this kind: see {@link harmlessRequest}
   */
  tryOut(request: string, fields: readonly string[]): Promise<void>;
  /** Reads the account of the token. This is the cheapest way to check a token. */
  getAccount(): Promise<Account>;
  /**
   * Lists every item of a list, such as `/v2/sizes` with the key `sizes`. Requests 200 items per page and sends `params`
   * with every page. A single item that does not match `itemSchema` fails the whole list.
   */
  listPaginated<T>(path: string, key: string, options: ListOptions<T>): Promise<T[]>;
  /** Like {@link listPaginated}, but page by page, for lists that need not be held in memory. */
  pages<T>(path: string, key: string, options: ListOptions<T>): AsyncGenerator<T[], void>;
};

/** `name` and `type` cannot be combined. */
export type DropletFilter = { readonly name?: string } | { readonly type?: 'droplets' | 'gpus' };

export type DigitalOceanClientOptions = {
  /** `https://api.digitalocean.com`, or another base URL of the API. No request ever goes to another origin. */
  readonly apiUrl: string;
  readonly token: string;
  /** Deadline of each request, from its start to the last byte of the response. */
  readonly timeoutMs: number;
  readonly io?: Io;
  readonly userAgent?: string;
  /** Called as soon as a request is over, with or without a response. Its errors are ignored. */
  readonly onAnswer?: (answer: ObservedAnswer) => void;
  /** Null: requests are not counted. For tools and tests that make a few. */
  readonly budget: RequestBudget | null;
  /** Circuits that hold requests which DigitalOcean refuses. Requests with priority `now` bypass them. */
  readonly circuits?: Circuits;
};

/**
 * Creates a client.
 *
 * @throws {TypeError} if the URL or the token is unusable; the message contains neither
 */
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

/** `priority` applies to all requests except creates; null: each request has its own. */
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

    for: (waiter) =>
      clientAt(priority, {
        ...caller,
        reserve: (call) => caller.reserve({ ...call, waiter }),
        send: (call, reservation) => caller.send({ ...call, waiter }, reservation),
      }),

    withdraw: async (waiter) => caller.withdraw(waiter),

    reserveCreate: async (request) => caller.reserve(createOf(request)),

    pages,
    // Async, so that an invalid argument causes a rejection here too.
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

    async listAssociatedResources(dropletId) {
      checkId('droplet', dropletId);
      const result = await caller.send({ method: 'GET', path: `/v2/droplets/${dropletId}/destroy_with_associated_resources`, schema: associatedBody, priority: priorityOr('destroy') });
      return result.kind === 'absent' ? null : result.value;
    },

    async readTag(name) {
      checkTag(name);
      const result = await caller.send({ method: 'GET', path: `/v2/tags/${name}`, schema: tagBody(name), priority: priorityOr('read') });
      return result.kind === 'absent' ? null : result.value.tag;
    },

    async deleteTag(name) {
      checkTag(name);
      const result = await caller.send({ method: 'DELETE', path: `/v2/tags/${name}`, schema: z.unknown(), priority: priorityOr('sync') });
      return result.kind === 'absent' ? 'absent' : 'deleted';
    },

    async createTag(name) {
      checkTag(name);
      const { tag } = await repeatable(sendPresent(caller, { method: 'POST', path: '/v2/tags', json: { name }, schema: createdTagBody(name), priority: priorityOr('create') }));
      return tag;
    },

    reserveTagging: async (tag, dropletId) => caller.reserve(taggingOf('POST', tag, dropletId, priorityOr('create'))),

    async tagDroplet(tag, dropletId, reservation) {
      try {
        await repeatable(caller.send(taggingOf('POST', tag, dropletId, priorityOr('create')), reservation));
        return 'tagged';
      } catch (error) {
        if (error instanceof DigitalOceanError && error.status === 404) return 'absent';
        throw error;
      }
    },

    async untagDroplet(tag, dropletId) {
      const result = await caller.send(taggingOf('DELETE', tag, dropletId, priorityOr('destroy')));
      return result.kind === 'absent' ? 'absent' : 'untagged';
    },

    async countDroplets(type) {
      const { meta } = await sendPresent(caller, { method: 'GET', path: '/v2/droplets', params: { ...(type === undefined ? {} : { type }), per_page: 1 }, schema: countBody, priority: priorityOr('read') });
      return meta.total;
    },

    listRegions: async () => listPaginated('/v2/regions', 'regions', { itemSchema: regionSchema }),

    listSizes: async () => listPaginated('/v2/sizes', 'sizes', { itemSchema: sizeSchema }),

    listImages: async () => listPaginated('/v2/images', 'images', { itemSchema: imageSchema }),

    async getImage(slugOrId) {
      checkImage(slugOrId);
      const result = await caller.send({ method: 'GET', path: `/v2/images/${slugOrId}`, schema: imageBody, priority: priorityOr('read') });
      return result.kind === 'absent' ? null : result.value.image;
    },

    listVpcs: async () => listPaginated('/v2/vpcs', 'vpcs', { itemSchema: vpcSchema }),

    listSshKeys: async () => listPaginated('/v2/account/keys', 'ssh_keys', { itemSchema: sshKeySchema }),

    listProjects: async () => listPaginated('/v2/projects', 'projects', { itemSchema: projectSchema }),

    async assignToProject(projectId, dropletId) {
      checkUuid(projectId);
      checkId('droplet', dropletId);
      const urn = `do:droplet:${dropletId}`;
      const path = `/v2/projects/${projectId}/resources`;
      return repeatable(sendPresent(caller, { method: 'POST', path, json: { resources: [urn] }, schema: assignmentBody(urn), priority: priorityOr('create') }));
    },

    async getAction(id) {
      checkId('action', id);
      const result = await caller.send({ method: 'GET', path: `/v2/actions/${id}`, schema: actionBody(id), priority: priorityOr('read') });
      return result.kind === 'absent' ? null : result.value.action;
    },

    async tryOut(request, fields) {
      const harmless = harmlessRequest(request, fields);
      if (harmless === null) throw new TypeError(`${request} cannot be tried without an effect`);
      await caller.send({ ...harmless, schema: z.unknown(), priority: priorityOr('create'), isTrial: true });
    },

    async getAccount() {
      const { account } = await sendPresent(caller, { method: 'GET', path: '/v2/account', schema: accountBody, priority: priorityOr('read') });
      return account;
    },
  };
}

function taggingOf(method: 'POST' | 'DELETE', tag: string, dropletId: number, priority: Priority) {
  checkTag(tag);
  checkId('droplet', dropletId);
  return { method, path: `/v2/tags/${tag}/resources`, json: { resources: [{ resource_id: String(dropletId), resource_type: 'droplet' }] }, schema: z.unknown(), priority } as const;
}

/** Of a POST that may be sent twice, no end is unknown: it is sent again. */
async function repeatable<T>(sent: Promise<T>): Promise<T> {
  try {
    return await sent;
  } catch (error) {
    throw error instanceof DigitalOceanError && error.kind === 'ambiguous' ? error.as('later') : error;
  }
}

function createOf(request: CreateDropletRequest) {
  return { method: 'POST', path: '/v2/droplets', json: request, schema: createDropletBody, priority: 'create' } as const;
}

// A list or an account cannot be absent. A server that returns 404 for one is not the API, and its response must not be
// read as "no droplets".
async function sendPresent<T>(caller: Caller, call: Call<T>, reservation?: Reservation): Promise<T> {
  const result = await caller.send(call, reservation);
  if (result.kind === 'done') return result.value;
  throw invalidAnswer(call.path, 404, 'what is always there is said to be absent; is the API URL right?');
}

/** Creates the error for a response that cannot be true. */
export function invalidAnswer(path: string, status: number, why: string): DigitalOceanError {
  return new DigitalOceanError(returned(status, `GET ${path}`, why), {
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
