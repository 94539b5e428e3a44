// The demo: a tour of about a minute that shows the purpose of arcadia-cloud. It fails if any promised effect did not
// happen.
import { setTimeout as delay } from 'node:timers/promises';
import { styleText } from 'node:util';
import { z } from 'zod';
import { followSaga } from '../cli/follow.ts';
import { showSideBySide } from '../cli/live-progress.ts';
import { drain, printLines } from '../cli/plain-progress.ts';
import { terminalWidth } from '../cli/output.ts';
import { describeResult, formatTimeline } from '../cli/saga-text.ts';
import { formatTable } from '../cli/table.ts';
import { endsWithin, unlessAborted, untilAborted } from '../platform/deadline.ts';
import { createDigitalOceanClient } from '../do/client.ts';
import type { JsonObject } from '../platform/json.ts';
import { textOf } from '../platform/json.ts';
import { listInventory } from '../inventory/resources.ts';
import type { Saga } from '../saga/saga.ts';
import { dropletApp } from '../droplets/app.ts';
import { surfaceOf } from '../saga/words.ts';
import { visibleLines } from '../platform/text.ts';
import { arcadia, arcadiaDev } from './how-to-call.ts';
import { DEMO_MAX_POLLS, setStage } from './stage.ts';
import type { Stage } from './stage.ts';

/** Thrown if something that the demo promised did not happen. */
class DemoFailure extends Error {
  override readonly name = 'DemoFailure';
}

// The demo shows the droplet sagas.
const surface = surfaceOf(dropletApp.catalog);

const droplet = (name: string) => ({ name, region: 'fra1', size: 's-1vcpu-1gb', image: 'debian-12-x64' });

/** Runs the tour and resolves with the exit code. `stop` ends it and everything it started. */
export async function demoCommand(options: { keep?: boolean }, stop: AbortSignal): Promise<number> {
  const startedAt = performance.now();
  let stage: Stage | undefined;
  const tour = async (): Promise<number> => {
    title('arcadia-cloud', 'droplets as sagas: each step a job, each outcome in Postgres, each failure rolled back');
    stage = await setStage((what) => say(`starting ${what}`), stop, { withWeb: options.keep === true });
    if (stage.pages !== null) say(`\n${stage.pages}`);
    for (const act of [provisionThree, seeOneRefused, killAWorker, showInventory, destroyAll, askWhatIsLeft]) {
      await act(stage);
      await timeToRead(stop);
    }
    say(styleText('green', `\nAll of it happened, in ${Math.round((performance.now() - startedAt) / 1000)} s.`));
    say(`Next: \`${arcadiaDev}\` runs everything on this machine; the README shows how to use the real DigitalOcean.`);
    if (options.keep !== true) return 0;
    say(`\nStaying up.\n${stage.pages ?? ''}\nIn another terminal:\n  export DATABASE_URL='${stage.databaseUrl}'\n  export ARCADIA_ENCRYPTION_KEYS='${stage.encryptionKey}'\n  ${arcadia} sagas\nCtrl-C stops it.`);
    await untilAborted(stop);
    return 0;
  };
  const touring = tour();
  try {
    // A stage with live output restores the terminal before it ends.
    return await unlessAborted(stop, touring, GIVING_BACK_MS);
  } catch (error) {
    if (stop.aborted) throw error;
    process.stderr.write(`\n${visibleLines(error instanceof DemoFailure ? `The demo did not go as promised: ${error.message}` : String(error))}\n`);
    return 1;
  } finally {
    // If setStage was still running, it closes what it opened.
    await endsWithin(SETTING_MS, stage === undefined ? touring : Promise.resolve());
    await stage?.close();
  }
}

const GIVING_BACK_MS = 500;
const SETTING_MS = 10_000;

async function provisionThree(stage: Stage): Promise<void> {
  title('1. Three droplets, side by side', 'create → wait until active → register in the inventory');
  const names = ['web-1', 'web-2', 'web-3'];
  const sagas = await followAll(stage, await Promise.all(names.map(async (name) => ({ name, sagaId: (await stage.client.provisionDroplet(droplet(name))).sagaId }))));
  for (const saga of sagas) require(saga.status === 'completed', `${textOf(saga.input['name'])} should be ready, and is ${saga.status}`);
}

async function seeOneRefused(stage: Stage): Promise<void> {
  title('2. One that DigitalOcean refuses', 'the account is full: the saga is rolled back, and says why');
  stage.sandbox.setFaults({ dropletLimit: 3 });
  const { sagaId } = await stage.client.provisionDroplet(droplet('one-too-many'));
  const [saga] = await followAll(stage, [{ name: 'one-too-many', sagaId }]);
  stage.sandbox.resetFaults();
  require(saga?.status === 'compensated', `one-too-many should have been rolled back, and is ${saga?.status}`);
  require(saga?.error?.message.includes('droplet limit') === true, `its error should say what DigitalOcean said, and says ${saga?.error?.message}`);
  require(!stage.sandbox.state().some((line) => line.name === 'one-too-many'), 'one-too-many should not exist');
}

async function killAWorker(stage: Stage): Promise<void> {
  title('3. A worker dies between the POST and the save', 'DigitalOcean has made the droplet; nobody has written down its id');
  // DigitalOcean does the work at once but responds late. The worker dies before the response.
  stage.sandbox.setFaults({ rules: [{ match: { method: 'POST', name: 'phoenix' }, times: 1, effect: { holdAnswerMs: 3_500 } }] });
  const { sagaId } = await stage.client.provisionDroplet(droplet('phoenix'));
  const made = await waitFor('the droplet phoenix', () => stage.sandbox.state().find((line) => line.name === 'phoenix'));
  const events = await stage.client.events(sagaId);
  const victimName = events.findLast((event) => event.kind === 'step_recorded')?.worker ?? '';
  const victim = stage.workers.find((worker) => victimName.endsWith(`:${worker.pid}`));
  if (victim === undefined) throw new DemoFailure(`no worker process is called ${victimName}`);
  await victim.kill();
  say(`killed worker ${victimName} with SIGKILL: droplet ${made.id} exists, and Postgres does not know it\n`);
  const [saga] = await followAll(stage, [{ name: 'phoenix', sagaId }]);
  if (saga === undefined) throw new DemoFailure('phoenix is not there');
  const timeline = await stage.client.events(sagaId);
  say(`\n${formatTimeline(saga, timeline)}\n`);
  require(saga.status === 'completed', `phoenix should be ready, and is ${saga.status}`);
  require(saga.context['droplet_id'] === made.id && saga.context['droplet_origin'] === 'adopted', `the droplet ${made.id} should have been adopted`);
  const finisher = timeline.find((event) => event.kind === 'step_completed')?.worker;
  require(finisher !== victimName, 'another worker should have adopted it');
  const posts = stage.sandbox.ledger().filter((entry) => entry.method === 'POST' && entry.made.includes(made.id));
  require(posts.length === 1 && stage.sandbox.state().filter((line) => line.name === 'phoenix').length === 1, 'there should be one droplet phoenix');
  say(styleText('green', `Worker ${finisher} adopted droplet ${made.id}: one POST, one droplet.`));
}

async function showInventory(stage: Stage): Promise<void> {
  title('4. The inventory', 'right at once, not at the next sync');
  const rows = (await listInventory(stage.db)).filter((row) => row.deletedAt === null);
  say(
    formatTable(
      ['droplet', 'name', { name: 'region', rank: 4, least: 6 }, { name: 'size', rank: 5, least: 8 }, { name: 'status', rank: 2, least: 6 }, { name: 'public IPv4', rank: 3, least: 15 }, { name: 'provisioned by', rank: 1, least: 41 }],
      rows.map((row) => [row.providerId, row.name, row.region ?? '', row.sizeSlug ?? '', row.status, publicIpv4(row.attrs), row.provisionedBy ?? '']),
      terminalWidth(),
    ),
  );
  require(rows.length === 4 && rows.every((row) => row.status === 'active'), 'the inventory should show four active droplets');
}

async function destroyAll(stage: Stage): Promise<void> {
  title('5. Everything is destroyed', 'a saga for each');
  const rows = (await listInventory(stage.db)).filter((row) => row.deletedAt === null);
  const started = rows.map(async (row) => ({ name: row.name, sagaId: (await stage.client.destroyDroplet(Number(row.providerId), { reason: 'end of the demo' })).sagaId }));
  const sagas = await followAll(stage, await Promise.all(started));
  for (const saga of sagas) require(saga.status === 'completed', `a destroy_droplet saga ended as ${saga.status}`);
  require((await listInventory(stage.db)).every((row) => row.deletedAt !== null), 'the inventory should be empty');
}

async function askWhatIsLeft(stage: Stage): Promise<void> {
  title('6. What is left?', 'asked of the API itself');
  const droplets = await createDigitalOceanClient({ apiUrl: stage.sandbox.url, token: 'sandbox', timeoutMs: 5_000, budget: null }).listDroplets();
  say(`GET /v2/droplets → ${droplets.length} droplets`);
  require(droplets.length === 0, 'no droplet should be left');
}

/** Follows several sagas at once: live on a terminal, else as lines. Resolves when they are at rest. */
async function followAll(stage: Stage, sagas: readonly { name: string; sagaId: string }[]): Promise<Saga[]> {
  if (process.stdout.isTTY) {
    const shown = sagas.map(({ name, sagaId }) => ({ title: name, snapshots: followSaga(stage.client, sagaId, stage.stop, surface) }));
    await showSideBySide(shown, { maxPolls: DEMO_MAX_POLLS, stop: stage.stop, surface });
    stage.stop.throwIfAborted();
  } else {
    await Promise.all(
      sagas.map(({ name, sagaId }) =>
        drain(followSaga(stage.client, sagaId, stage.stop, surface), printLines(DEMO_MAX_POLLS, (line) => say(`${name}: ${line}`), surface)).then((saga) => say(`${name}: ${describeResult(saga, surface)}`)),
      ),
    );
  }
  const ended = await Promise.all(sagas.map(({ sagaId }) => stage.client.get(sagaId)));
  return ended.filter((saga) => saga !== null);
}

async function waitFor<T>(what: string, observe: () => T | undefined): Promise<T> {
  const deadline = performance.now() + 10_000;
  for (;;) {
    const found = observe();
    if (found !== undefined) return found;
    if (performance.now() > deadline) throw new DemoFailure(`${what} did not appear`);
    await delay(20);
  }
}

const attrsSchema = z.object({ networks: z.object({ v4: z.array(z.object({ ip_address: z.string(), type: z.string() })) }) });

function publicIpv4(attrs: JsonObject): string {
  const { v4 } = attrsSchema.parse(attrs).networks;
  return v4.find((network) => network.type === 'public')?.ip_address ?? '';
}

const READING_MS = 4_000;

/** Gives a person time to read; a log needs none. */
async function timeToRead(stop: AbortSignal): Promise<void> {
  if (process.stdout.isTTY) await unlessAborted(stop, delay(READING_MS));
}

function require(happened: boolean, complaint: string): void {
  if (!happened) throw new DemoFailure(complaint);
}

function title(text: string, explanation: string): void {
  say(`\n${styleText('bold', text)}  ${styleText('dim', explanation)}`);
}

function say(text: string): void {
  process.stdout.write(`${text}\n`);
}
