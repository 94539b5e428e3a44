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

export type Scenario = {
  readonly name: string;
  /** Whose I/Os are interrupted. */
  readonly chain: Chain;
  /** Only from the first I/O of this name on: what comes before is another scenario's. */
  readonly from?: string;
  readonly faults?: Partial<Faults>;
  readonly settings?: Readonly<Record<string, string>>;
  /** What has to be there before; with an ordinary worker. */
  readonly prepare?: (stage: Stage) => Promise<void>;
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
    name: 'provision, cancelled while it registers',
    chain: 'job',
    from: 'inventory.register',
    cancelAfter: 'inventory.register',
    start: (stage) => ask(stage, 'provision_droplet', provisionInput),
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
    prepare: provisionOne,
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

async function provisionOne(stage: Stage): Promise<void> {
  await ask(stage, 'provision_droplet', provisionInput);
  const worker = await stage.startWorker();
  await stage.untilAtRest();
  await worker.close();
  stage.sandbox.clearLedger();
}
