// The lives of a saga that the crash matrix interrupts. Together they run every step and every compensation, which
// recording.ts checks. Each takes the same I/Os in the same order every time: a poll that is too early is scripted, not
// a matter of time.

import type { Faults } from '../../src/sandbox/server.ts';
import { queueNames } from '../../src/queues/jobs.ts';
import { startSaga } from '../../src/saga/start.ts';
import { catalog } from '../../src/steps/catalog.ts';
import { startAndEnqueue } from '../../src/queues/start-and-enqueue.ts';
import { keyRing } from '../support/keys.ts';
import { silentLog } from '../../src/platform/log.ts';
import type { Expectation } from '../support/at-rest.ts';
import type { Chain } from './boundaries.ts';
import type { Stage } from './stage.ts';
import { listSagas } from '../support/list-sagas.ts';
import { waitFor } from '../support/wait-for.ts';

export type Scenario = {
  readonly name: string;
  /** Whose I/Os are interrupted. */
  readonly chain: Chain;
  /** Only from the first I/O of this name on: what comes before is another scenario's. */
  readonly from?: string;
  readonly faults?: Partial<Faults>;
  readonly settings?: Readonly<Record<string, string>>;
  /** Statuses with which droplets answer over HTTP first; 200 from then on. None where left out: they answer nothing. */
  readonly machineStatuses?: readonly number[];
  /** What has to be there before; with an ordinary worker. */
  readonly prepare?: (stage: Stage) => Promise<void>;
  /** How many sagas `prepare` leaves behind; none where left out. */
  readonly preparedSagas?: number;
  /** Name of the saga that is looked at, where it is not there from the start; the newest one, whatever its name, where left out. */
  readonly saga?: string;
  /** Asks for the saga. No worker runs yet. */
  readonly start: (stage: Stage) => Promise<void>;
  /** Everybody's sagas are cancelled right after the I/O of this name. */
  readonly cancelAfter?: string;
  readonly expected: Expectation;
};

/** The sandbox has a droplet of this name that is not ours. */
export const DROPLET_NAME = 'web-1';
export const USER_DATA = '#cloud-config canary-5e1f';

const provisionInput = { name: DROPLET_NAME, region: 'fra1', size: 's-1vcpu-1gb', image: 'debian-12-x64', user_data: USER_DATA };
const readsOfDroplet = { method: 'GET', path: String.raw`^/v2/droplets/\d+$` } as const;
const exactlyOne = [1, 1] as const;
const none = [0, 0] as const;

export const scenarios: readonly Scenario[] = [
  {
    name: 'provision, after one poll',
    chain: 'job',
    faults: { rules: [{ match: readsOfDroplet, times: 1, effect: { status: 404 } }] },
    start: (stage) => ask(stage, 'provision_droplet', provisionInput),
    expected: { status: 'completed', posts: exactlyOne, made: exactlyOne },
  },
  {
    name: 'provision with a key by name, into a project, protected',
    chain: 'job',
    from: 'GET /v2/account/keys',
    prepare: async (stage) => {
      await post(stage, '/v2/account/keys', { name: 'work-laptop', public_key: 'ssh-ed25519 d29yay1sYXB0b3A=' });
      await post(stage, '/v2/projects', { name: 'web', purpose: 'Service or API' });
      stage.sandbox.clearLedger();
    },
    start: (stage) => ask(stage, 'provision_droplet', { ...provisionInput, ssh_keys: ['work-laptop'], project: 'web', protected: true }),
    expected: { status: 'completed', posts: exactlyOne, made: exactlyOne },
  },
  {
    name: 'provision, ready after one check, cancelled while it registers',
    chain: 'job',
    from: 'check http',
    // The machine answers 503 once.
    machineStatuses: [503],
    cancelAfter: 'inventory.register',
    start: (stage) => ask(stage, 'provision_droplet', { ...provisionInput, ready: { http: { port: stage.machinePort, path: '/healthz' } } }),
    expected: { status: 'compensated', posts: exactlyOne, made: exactlyOne },
  },
  {
    name: 'provision, never active',
    chain: 'job',
    from: 'move to delayed',
    faults: { neverActive: true },
    settings: { WAIT_MAX_POLLS: '1', WAIT_POLL_INTERVAL_MS: '300' },
    start: (stage) => ask(stage, 'provision_droplet', provisionInput),
    expected: { status: 'compensated', posts: exactlyOne, made: exactlyOne },
  },
  {
    name: 'provision, refused',
    chain: 'job',
    from: 'POST /v2/droplets',
    faults: { dropletLimit: 0 },
    start: (stage) => ask(stage, 'provision_droplet', provisionInput),
    // A refusal that was not written down is asked for again.
    expected: { status: 'compensated', posts: [1, 2], made: none },
  },
  {
    name: 'destroy',
    chain: 'job',
    prepare: (stage) => provisionOne(stage),
    preparedSagas: 1,
    start: async (stage) => {
      const [provisioned] = await listSagas(stage.db, { limit: 1 });
      await ask(stage, 'destroy_droplet', { droplet_id: Number(provisioned?.context['droplet_id']) });
    },
    expected: { status: 'completed', posts: none, made: none },
  },
  {
    name: 'destroy, not ours',
    chain: 'job',
    start: (stage) => ask(stage, 'destroy_droplet', { droplet_id: Number(stage.foreign[0]) }),
    expected: { status: 'compensated', posts: none, made: none },
  },
  {
    name: 'adopt',
    chain: 'job',
    from: 'POST /v2/tags',
    start: (stage) => ask(stage, 'adopt_droplet', { droplet_id: Number(stage.foreign[0]) }),
    expected: { status: 'completed', posts: none, made: none },
  },
  {
    name: 'adopt, cancelled while it registers',
    chain: 'job',
    from: 'inventory.register',
    cancelAfter: 'inventory.register',
    start: (stage) => ask(stage, 'adopt_droplet', { droplet_id: Number(stage.foreign[0]) }),
    expected: { status: 'compensated', posts: none, made: none },
  },
  {
    name: 'a lease that ended',
    chain: 'lease',
    prepare: (stage) => provisionOne(stage, { lease: { ttl_s: 3_600 } }),
    preparedSagas: 1,
    saga: 'destroy_droplet',
    start: async (stage) => {
      await stage.db.sql`update arcadia.cloud_provisioned set lease_until = clock_timestamp() - interval '1 s'`;
    },
    expected: { status: 'completed', posts: none, made: none },
  },
  {
    name: 'intake of a plain job',
    chain: 'intake',
    start: async (stage) => {
      const queue = stage.queues.queue(queueNames.intake);
      // No input stays in a job that was taken in.
      await queue.add('provision_droplet', { input: provisionInput, requestedBy: 'another backend' });
      await queue.close();
    },
    expected: { status: 'completed', posts: exactlyOne, made: exactlyOne, secrets: [USER_DATA] },
  },
  {
    name: 'a row without a job',
    chain: 'reconciler',
    start: async (stage) => {
      await startSaga(stage.db, catalog, { name: 'provision_droplet', input: provisionInput }, 0, keyRing);
    },
    expected: { status: 'completed', posts: exactlyOne, made: exactlyOne },
  },
];

async function ask(stage: Stage, name: string, input: object): Promise<void> {
  await startAndEnqueue({ name, input }, { catalog, db: stage.db, queues: stage.stepQueues, keyRing, reconcileGraceMs: stage.config.reconcileIntervalMs, log: silentLog });
}

async function post(stage: Stage, path: string, body: object): Promise<void> {
  const response = await fetch(`${stage.sandbox.url}${path}`, { method: 'POST', headers: { authorization: 'Bearer prepare' }, body: JSON.stringify(body) });
  if (!response.ok) throw new Error(`POST ${path} was answered ${response.status}`);
}

async function provisionOne(stage: Stage, more: object = {}): Promise<void> {
  await ask(stage, 'provision_droplet', { ...provisionInput, ...more });
  const worker = await stage.startWorker();
  await waitFor(async () => (await listSagas(stage.db, { limit: 1 }))[0]?.status === 'completed', { what: 'the droplet to be provisioned' });
  await worker.close();
  stage.sandbox.clearLedger();
}
