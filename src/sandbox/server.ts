// The sandbox: a server that behaves like the part of DigitalOcean's API that this project uses, with its state in memory
// and with configurable faults. It is for tests, demos and development, and does not depend on the client.
import Fastify, { type FastifyInstance } from 'fastify';
import { actOnDroplet, actOnDropletsByTag, getAction, getDropletAction, listActions, listDropletActions } from './action-routes.ts';
import { createActionStore } from './action-store.ts';
import type { Answer, Call } from './answer.ts';
import { notFound, notImitated } from './answer.ts';
import { getAccount, getImage, listImages, listRegions, listSizes, listVolumes } from './catalog-routes.ts';
import {
  addControlRoutes,
  addForeignDroplet,
  type DropletEdit,
  editDroplet,
  type ForeignDroplet,
  readFaults,
  readState,
  readUserData,
  resetWorld,
  type StateFilter,
} from './control-routes.ts';
import { createDroplets, deleteDroplet, deleteDropletsByTag, getDroplet, listDroplets } from './droplet-routes.ts';
import { createStore } from './droplet-store.ts';
import type { DropletLine } from './droplet-view.ts';
import { createFaultBox, type Faults, mergeFaults, resetFaults, SandboxInputError } from './faults.ts';
import { clearLedger, createLedger, type LedgerEntry, type LedgerSummary, readLedger, summarizeLedger } from './ledger.ts';
import { assignResources, createProject, getProject, listProjectResources, listProjects } from './project-routes.ts';
import { createProjectStore } from './project-store.ts';
import type { MsOrRange } from './random.ts';
import { serveCall, type Work } from './serve-call.ts';
import { deleteSnapshot, getSnapshot, listAssociated, listDropletSnapshots, listSnapshots } from './snapshot-routes.ts';
import { createSshKey, deleteSshKey, getSshKey, listSshKeys, updateSshKey } from './ssh-key-routes.ts';
import { createSshKeyStore } from './ssh-key-store.ts';
import { createTag, deleteTag, getTag, listTags, tagResources, untagResources } from './tag-routes.ts';
import { createVpc, deleteVpc, getVpc, listVpcMembers, listVpcs, updateVpc } from './vpc-routes.ts';
import { createVpcs } from './vpc-store.ts';
import type { World } from './world.ts';

export type { DropletEdit, ForeignDroplet, StateFilter } from './control-routes.ts';
export type { DropletLine } from './droplet-view.ts';
export type { Effect, Faults, Rule } from './faults.ts';
export type { LedgerEntry, LedgerStatus, LedgerSummary } from './ledger.ts';

/** The options of a sandbox. */
export type SandboxOptions = {
  /** Default 0: any free port. */
  readonly port?: number;
  /** Default 127.0.0.1. */
  readonly host?: string;
  /** The accepted token; by default any nonempty token. */
  readonly token?: string;
  /** How long a droplet stays `new`, in milliseconds; a range is drawn from for each droplet. Default 3000. */
  readonly activateAfterMs?: MsOrRange;
  /** How long an action on a droplet takes, in milliseconds; a range is drawn from for each action. Default 1000. */
  readonly actionMs?: MsOrRange;
  /** The account's droplet limit. Default 25,000. */
  readonly dropletLimit?: number;
  /** Droplets have unique public IPv4 addresses in 127.0.0.0/8, so that tests can listen there. Default false. */
  readonly loopbackAddresses?: boolean;
  /** Requests per rolling minute and token; null: no limit. Default 250. */
  readonly ratePerMinute?: number | null;
  /** Requests per rolling hour and token; null: no limit. Default 5000. */
  readonly ratePerHour?: number | null;
  /** The initial faults. */
  readonly faults?: Partial<Faults>;
};

/** A running sandbox. All functions except `close` are also available over HTTP, under /sandbox. */
export type Sandbox = {
  /** For example http://127.0.0.1:4000, without a path. The API is at `${url}/v2`. */
  readonly url: string;
  /** Stops at once and cuts open connections. */
  close(): Promise<void>;
  /** Sets the given faults and keeps the others. Throws SandboxInputError for invalid ones. */
  setFaults(faults: Partial<Faults>): void;
  faults(): ReturnType<typeof readFaults>;
  /** Turns every fault off, including those from the options. */
  resetFaults(): void;
  /** Returns all droplets that ever existed, oldest first. */
  state(filter?: StateFilter): DropletLine[];
  /** Creates a droplet as if another program had done so. Returns it in the API's format. */
  addForeignDroplet(droplet: ForeignDroplet): { readonly id: number } & Record<string, unknown>;
  /** Changes a droplet out of band. Returns undefined for an unknown id. */
  editDroplet(id: number, edit: DropletEdit): DropletLine | undefined;
  /** Returns a droplet's user data, as its cloud-init reads it; undefined for an unknown id. */
  userData(id: number): string | undefined;
  /** Returns API requests in order of arrival, from sequence number `since` on. The last 200,000 are kept. */
  ledger(since?: number): LedgerEntry[];
  ledgerSummary(): LedgerSummary;
  clearLedger(): void;
  /** Advances the sandbox's clock: droplets age and rate windows roll. Waits in progress are not shortened. */
  advanceClock(ms: number): void;
  /** Deletes droplets, tags, SSH keys, projects, actions, snapshots, VPCs, ledger entries, rate windows and faults. */
  reset(): void;
};

/** The calls that the sandbox imitates. It answers every other call with 501. */
export const apiRoutes: readonly (readonly ['GET' | 'POST' | 'PUT' | 'PATCH' | 'DELETE', string, Work])[] = [
  ['POST', '/v2/droplets', createDroplets],
  ['GET', '/v2/droplets', listDroplets],
  ['DELETE', '/v2/droplets', deleteDropletsByTag],
  ['GET', '/v2/droplets/:id', getDroplet],
  ['DELETE', '/v2/droplets/:id', deleteDroplet],
  ['GET', '/v2/droplets/:id/actions', listDropletActions],
  ['GET', '/v2/droplets/:id/actions/:actionId', getDropletAction],
  ['POST', '/v2/droplets/:id/actions', actOnDroplet],
  ['POST', '/v2/droplets/actions', actOnDropletsByTag],
  ['GET', '/v2/droplets/:id/snapshots', listDropletSnapshots],
  ['GET', '/v2/droplets/:id/destroy_with_associated_resources', listAssociated],
  ['GET', '/v2/actions', listActions],
  ['GET', '/v2/actions/:actionId', getAction],
  ['GET', '/v2/account', getAccount],
  ['GET', '/v2/account/keys', listSshKeys],
  ['POST', '/v2/account/keys', createSshKey],
  ['GET', '/v2/account/keys/:key', getSshKey],
  ['PUT', '/v2/account/keys/:key', updateSshKey],
  ['DELETE', '/v2/account/keys/:key', deleteSshKey],
  ['GET', '/v2/projects', listProjects],
  ['POST', '/v2/projects', createProject],
  ['GET', '/v2/projects/:project', getProject],
  ['GET', '/v2/projects/:project/resources', listProjectResources],
  ['POST', '/v2/projects/:project/resources', assignResources],
  ['GET', '/v2/regions', listRegions],
  ['GET', '/v2/sizes', listSizes],
  ['GET', '/v2/images', listImages],
  ['GET', '/v2/images/:key', getImage],
  ['GET', '/v2/snapshots', listSnapshots],
  ['GET', '/v2/snapshots/:snapshotId', getSnapshot],
  ['DELETE', '/v2/snapshots/:snapshotId', deleteSnapshot],
  ['GET', '/v2/volumes', listVolumes],
  ['GET', '/v2/vpcs', listVpcs],
  ['POST', '/v2/vpcs', createVpc],
  ['GET', '/v2/vpcs/:vpcId', getVpc],
  ['PUT', '/v2/vpcs/:vpcId', updateVpc],
  ['PATCH', '/v2/vpcs/:vpcId', updateVpc],
  ['DELETE', '/v2/vpcs/:vpcId', deleteVpc],
  ['GET', '/v2/vpcs/:vpcId/members', listVpcMembers],
  ['GET', '/v2/tags', listTags],
  ['POST', '/v2/tags', createTag],
  ['GET', '/v2/tags/:name', getTag],
  ['DELETE', '/v2/tags/:name', deleteTag],
  ['POST', '/v2/tags/:name/resources', tagResources],
  ['DELETE', '/v2/tags/:name/resources', untagResources],
];

/** Starts a sandbox and resolves when it listens. Throws SandboxInputError for invalid faults. */
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
    userData: (id) => readUserData(world, id),
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
      actionMs: options.actionMs ?? 1000,
      dropletLimit: options.dropletLimit ?? 25_000,
      loopbackAddresses: options.loopbackAddresses ?? false,
      ratePerMinute: options.ratePerMinute === undefined ? 250 : options.ratePerMinute,
      ratePerHour: options.ratePerHour === undefined ? 5000 : options.ratePerHour,
    },
    clock: { advancedMs: 0 },
    store: createStore(),
    sshKeys: createSshKeyStore(),
    actions: createActionStore(),
    snapshots: { byId: new Map(), made: 0 },
    vpcs: createVpcs(),
    projects: createProjectStore(Date.now()),
    faultBox: createFaultBox(options.faults ?? {}),
    ledger: createLedger(),
    rates: new Map(),
    closing,
  };
}

// A resource type that the API has but the sandbox does not simulate must not look like a missing resource.
function answerUnknown(_world: World, call: Call): Answer {
  if (!call.path.startsWith('/v2/')) return notFound(call);
  const imitated = [...new Set(apiRoutes.map(([, path]) => path))].join(', ');
  return notImitated(call, `${call.method} ${call.path}`, imitated);
}

function createServer(world: World): FastifyInstance {
  const app = Fastify({
    routerOptions: { ignoreTrailingSlash: true, maxParamLength: 300 },
    bodyLimit: 16 * 1024 * 1024,
    exposeHeadRoutes: false,
    // close() must not wait for requests that hang on purpose.
    forceCloseConnections: true,
  });
  // Clients send different content types, or none, and the response to invalid JSON uses the API's wording. So bodies are
  // parsed as text.
  app.removeAllContentTypeParsers();
  app.addContentTypeParser('*', { parseAs: 'string' }, (_request, body, done) => done(null, body));
  for (const [method, path, work] of apiRoutes) {
    app.route({ method, url: path, handler: (request, reply) => serveCall(world, `${method} ${path}`, work, request, reply) });
  }
  addControlRoutes(app, world);
  app.setNotFoundHandler((request, reply) => serveCall(world, `${request.method} *`, answerUnknown, request, reply));
  app.setErrorHandler(async (error: Error & { statusCode?: number }, _request, reply) => {
    const status = error instanceof SandboxInputError ? 422 : (error.statusCode ?? 500);
    const id = status === 422 ? 'unprocessable_entity' : 'server_error';
    await reply.code(status).send({ id, message: error.message });
  });
  return app;
}
