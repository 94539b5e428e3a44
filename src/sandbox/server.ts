// The sandbox: a server that behaves like DigitalOcean's API for what this project uses, with its state in memory and
// with faults to order. It is for tests, demos and development, and knows nothing of the client that calls it.
import Fastify, { type FastifyInstance } from 'fastify';
import { notFound } from './answer.ts';
import { getAccount, getImage, listImages, listRegions, listSizes } from './catalog-routes.ts';
import {
  addControlRoutes,
  addForeignDroplet,
  type DropletEdit,
  editDroplet,
  type ForeignDroplet,
  readFaults,
  readState,
  resetWorld,
  type StateFilter,
} from './control-routes.ts';
import {
  createDroplets,
  deleteDroplet,
  deleteDropletsByTag,
  getAction,
  getDroplet,
  getDropletAction,
  listActions,
  listDropletActions,
  listDroplets,
} from './droplet-routes.ts';
import { createStore } from './droplet-store.ts';
import type { DropletLine } from './droplet-view.ts';
import { createFaultBox, type Faults, mergeFaults, resetFaults, SandboxInputError } from './faults.ts';
import { clearLedger, createLedger, type LedgerEntry, type LedgerSummary, readLedger, summarizeLedger } from './ledger.ts';
import type { MsOrRange } from './random.ts';
import { serveCall, type Work } from './serve-call.ts';
import { createTag, deleteTag, getTag, listTags } from './tag-routes.ts';
import type { World } from './world.ts';

export type { DropletEdit, ForeignDroplet, StateFilter } from './control-routes.ts';
export type { DropletLine } from './droplet-view.ts';
export type { Effect, Faults, Rule } from './faults.ts';
export { SandboxInputError } from './faults.ts';
export type { LedgerEntry, LedgerStatus, LedgerSummary } from './ledger.ts';

/** How a sandbox starts. */
export type SandboxOptions = {
  /** 0, the default, takes any free port. */
  readonly port?: number;
  /** Default 127.0.0.1. */
  readonly host?: string;
  /** The token that is accepted; without it, any that is not empty. */
  readonly token?: string;
  /** How long a droplet stays `new`, in milliseconds; drawn for each droplet from a range. Default 3000. */
  readonly activateAfterMs?: MsOrRange;
  /** Droplets that the account may have. Default 25,000. */
  readonly dropletLimit?: number;
  /** Requests a rolling minute, for each token; null is no limit. Default 250. */
  readonly ratePerMinute?: number | null;
  /** Requests a rolling hour, for each token; null is no limit. Default 5000. */
  readonly ratePerHour?: number | null;
  /** Faults from the start. */
  readonly faults?: Partial<Faults>;
};

/** A running sandbox. All but `close` can be had over HTTP too, under /sandbox. */
export type Sandbox = {
  /** Such as http://127.0.0.1:4000, without a path; the API is at `${url}/v2`. */
  readonly url: string;
  /** Stops at once: open connections are cut. */
  close(): Promise<void>;
  /** Sets the faults that are present, leaves the others. Throws SandboxInputError for what does not fit. */
  setFaults(faults: Partial<Faults>): void;
  faults(): ReturnType<typeof readFaults>;
  /** Turns every fault off, those of the options too. */
  resetFaults(): void;
  /** All droplets there ever were, oldest first. */
  state(filter?: StateFilter): DropletLine[];
  /** Makes a droplet as if by somebody else's hand and returns it as the API shows it. */
  addForeignDroplet(droplet: ForeignDroplet): { readonly id: number } & Record<string, unknown>;
  /** Changes a droplet out of band; undefined when there is none of that id. */
  editDroplet(id: number, edit: DropletEdit): DropletLine | undefined;
  /** API requests in the order of arrival, from sequence number `since` on; the last 200,000 are kept. */
  ledger(since?: number): LedgerEntry[];
  ledgerSummary(): LedgerSummary;
  clearLedger(): void;
  /** Moves the sandbox's clock on: droplets age, rate windows roll. Waits that have begun are not shortened. */
  advanceClock(ms: number): void;
  /** Forgets droplets, tags, ledger, rate windows and faults. */
  reset(): void;
};

const apiRoutes: readonly (readonly ['GET' | 'POST' | 'DELETE', string, Work])[] = [
  ['POST', '/v2/droplets', createDroplets],
  ['GET', '/v2/droplets', listDroplets],
  ['DELETE', '/v2/droplets', deleteDropletsByTag],
  ['GET', '/v2/droplets/:id', getDroplet],
  ['DELETE', '/v2/droplets/:id', deleteDroplet],
  ['GET', '/v2/droplets/:id/actions', listDropletActions],
  ['GET', '/v2/droplets/:id/actions/:actionId', getDropletAction],
  ['GET', '/v2/actions', listActions],
  ['GET', '/v2/actions/:actionId', getAction],
  ['GET', '/v2/account', getAccount],
  ['GET', '/v2/regions', listRegions],
  ['GET', '/v2/sizes', listSizes],
  ['GET', '/v2/images', listImages],
  ['GET', '/v2/images/:key', getImage],
  ['GET', '/v2/tags', listTags],
  ['POST', '/v2/tags', createTag],
  ['GET', '/v2/tags/:name', getTag],
  ['DELETE', '/v2/tags/:name', deleteTag],
];

/** Starts a sandbox and resolves when it listens. Throws SandboxInputError for faults that do not fit. */
export async function startSandbox(options: SandboxOptions = {}): Promise<Sandbox> {
  const closing = new AbortController();
  const world = createWorld(options, closing.signal);
  const app = createServer(world);
  const host = options.host ?? '127.0.0.1';
  const url = await app.listen({ port: options.port ?? 0, host });
  return {
    url,
    close: async () => {
      closing.abort();
      await app.close();
    },
    setFaults: (faults) => mergeFaults(world.faultBox, faults),
    faults: () => readFaults(world.faultBox),
    resetFaults: () => resetFaults(world.faultBox),
    state: (filter) => readState(world, filter),
    addForeignDroplet: (droplet) => addForeignDroplet(world, droplet),
    editDroplet: (id, edit) => editDroplet(world, id, edit),
    ledger: (since) => readLedger(world.ledger, since),
    ledgerSummary: () => summarizeLedger(world.ledger),
    clearLedger: () => clearLedger(world.ledger),
    advanceClock: (ms) => {
      world.clock.advancedMs += ms;
    },
    reset: () => resetWorld(world),
  };
}

function createWorld(options: SandboxOptions, closing: AbortSignal): World {
  return {
    settings: {
      token: options.token,
      activateAfterMs: options.activateAfterMs ?? 3000,
      dropletLimit: options.dropletLimit ?? 25_000,
      ratePerMinute: options.ratePerMinute === undefined ? 250 : options.ratePerMinute,
      ratePerHour: options.ratePerHour === undefined ? 5000 : options.ratePerHour,
    },
    clock: { advancedMs: 0 },
    store: createStore(),
    faultBox: createFaultBox(options.faults ?? {}),
    ledger: createLedger(),
    rates: new Map(),
    closing,
  };
}

function createServer(world: World): FastifyInstance {
  const app = Fastify({
    routerOptions: { ignoreTrailingSlash: true, maxParamLength: 300 },
    bodyLimit: 16 * 1024 * 1024,
    exposeHeadRoutes: false,
    // close() must not wait for requests that hang on purpose.
    forceCloseConnections: true,
  });
  // Clients differ in the content type they send, if any, and broken JSON is answered in the API's words: bodies arrive as text.
  app.removeAllContentTypeParsers();
  app.addContentTypeParser('*', { parseAs: 'string' }, (_request, body, done) => done(null, body));
  for (const [method, path, work] of apiRoutes) {
    app.route({ method, url: path, handler: (request, reply) => serveCall(world, `${method} ${path}`, work, request, reply) });
  }
  addControlRoutes(app, world);
  app.setNotFoundHandler((request, reply) => serveCall(world, `${request.method} *`, (_world, call) => notFound(call), request, reply));
  app.setErrorHandler(async (error: Error & { statusCode?: number }, _request, reply) => {
    const status = error instanceof SandboxInputError ? 422 : (error.statusCode ?? 500);
    const id = status === 422 ? 'unprocessable_entity' : 'server_error';
    await reply.code(status).send({ id, message: error.message });
  });
  return app;
}
