// `arcadia smoke`: tests arcadia-cloud on the real API, with a worker, a queue and droplets that cost a few cents, and
// proves that nothing is left. If a call was killed, the next one finishes its run.
import { createHash, randomBytes } from 'node:crypto';
import { join } from 'node:path';
import { complain, write } from '../../cli/output.ts';
import { UsageError } from '../../cli/usage-error.ts';
import { createDigitalOceanClient } from '../../do/client.ts';
import type { Config } from '../../platform/config.ts';
import { loadConfig } from '../../platform/config.ts';
import { ConfigError } from '../../platform/config-error.ts';
import type { Profile } from '../../sandbox/profile.ts';
import { readAccountId, readDroplets, readSize, readTagNames } from './account.ts';
import type { ActResult } from './acts.ts';
import { actsOf, playAct } from './acts.ts';
import { dropletsFor, usd } from './cost.ts';
import { defaultFolder, lockFolder, openFolder } from './folder.ts';
import { openGate } from './gate.ts';
import type { SmokeIo } from './io.ts';
import { asIo, directSmokeIo } from './io.ts';
import { observe } from './observe.ts';
import type { Plan } from './plan.ts';
import { formatPlan, planOf } from './plan.ts';
import type { Receipt } from './receipt.ts';
import { formatReceipt, receiptOf } from './receipt.ts';
import type { Stage } from './stage.ts';
import { createCrew } from './stage.ts';
import type { SmokeState, StateFile } from './state.ts';
import { keepState, readState, writeAtomically } from './state.ts';
import type { Stores } from './stores.ts';
import { EMBEDDED, openStores, removeDatabases } from './stores.ts';
import type { TidyLimits } from './tidy.ts';
import { callOff, tidy, tidyLimits } from './tidy.ts';
import { createWitness } from './witness.ts';
import { workerSettings } from './worker-settings.ts';

export type SmokeOptions = Readonly<{
  region: string;
  size: string;
  image: string;
  hard?: boolean;
  /** If omitted, only the plan is shown. */
  maxUsd?: number;
  yes?: boolean;
  stateDir?: string;
  profileOut?: string;
  json?: boolean;
}>;

const DONE = 0;
const FAILED = 1;
const REFUSED = 2;

// Each poll is at most three requests, out of 250 a minute.
const LOOK_EVERY_MS = 1_000;
const SHORTEST_LOOK_MS = 50;

// For lags that are still being measured when everything else is done.
const MEASURING_MS = 5_000;

/**
 * Runs the smoke test.
 *
 * @param parts.io the seam for its own effects
 * @param parts.program the command line for its workers; null: the running one
 * @param parts.limits deadlines for DigitalOcean
 * @returns 0: everything succeeded and nothing is left; 1: something failed or is left; 2: refused, and nothing was done
 * @throws {ConfigError} without DIGITALOCEAN_TOKEN; {UsageError}; {DigitalOceanError} if the account cannot be read
 */
export async function smokeCommand(options: SmokeOptions, stop: AbortSignal, { io, program, limits }: Parts = { io: directSmokeIo, program: null, limits: tidyLimits }): Promise<number> {
  const config = loadConfig(process.env, ['DIGITALOCEAN_TOKEN']);
  const api = apiOf(config, io);
  const account = (await readAccountId(api)) ?? fingerprintOf(config.digitalOcean.token ?? '');
  const { apiUrl } = config.digitalOcean;
  const folder = await openFolder(options.stateDir ?? defaultFolder(apiUrl, account));
  const unlock = await lockFolder(folder);
  try {
    const kept = await readState(folder);
    const earlier = kept?.phase === 'open' ? kept : null;
    if (earlier !== null) requireSame(earlier, { apiUrl, account, isEmbedded: config.databaseUrl === null }, folder);
    // An interrupted run is finished, whatever sizes are on offer now.
    const { priceUsdPerHour } = earlier ?? (await readOffer(api, options));
    const before = { droplets: await readDroplets(api), tags: await readTagNames(api) };
    const plan = planOf({ ...options, apiUrl, priceUsdPerHour, folder, hard: options.hard === true }, before, earlier);
    const refusal = refusalOf(plan, options);
    const say = (line: string): void => (options.json === true ? complain(line) : write(line));
    if (options.json !== true || refusal === null) say(formatPlan(plan));
    if (refusal !== null) {
      if (options.json === true) write(JSON.stringify({ plan, refused: refusal }));
      complain(refusal);
      return REFUSED;
    }
    await removeDatabases(folder, earlier?.run ?? null);
    const run = earlier?.run ?? randomBytes(4).toString('hex');
    const first: SmokeState = earlier ?? {
      version: 1, run, phase: 'open', startedAt: new Date().toISOString(), apiUrl, account, store: EMBEDDED,
      region: options.region, size: options.size, image: options.image, hard: options.hard === true, priceUsdPerHour, before,
      acts: actsOf(options.hard === true).map((act, index) => ({ act, dropletName: `arcadia-smoke-${run}-${index + 1}` })),
      creates: [], refused: [], droplets: [],
    };
    const receipt = await runOnStores({ config, options, folder, first, isRest: earlier !== null, say, stop, io, program, limits });
    write(options.json === true ? JSON.stringify(receipt) : formatReceipt(receipt));
    if (isFinished(receipt)) await finish(folder, io);
    if (isFinished(receipt) && receipt.finishedEarlierRun) say('The earlier run is finished. Run the command again for a new one.');
    stop.throwIfAborted();
    return receipt.ok ? DONE : FAILED;
  } finally {
    await unlock();
  }
}

/** Whether nothing is left of the run, and nothing of it can appear any more. Until then, the next call looks again. */
function isFinished({ left, unanswered }: Receipt): boolean {
  return left.length === 0 && unanswered.length === 0;
}

type Parts = Readonly<{ io: SmokeIo; program: string | null; limits: TidyLimits }>;
type Run = Parts & Readonly<{ config: Config; options: SmokeOptions; folder: string; first: SmokeState; isRest: boolean; say: (line: string) => void; stop: AbortSignal }>;

async function runOnStores(run: Run): Promise<Receipt> {
  const { config, folder, first, isRest, stop } = run;
  // Nothing was created yet, so a new run can still be cancelled. The rest of an earlier one cannot.
  const patience = isRest ? new AbortController().signal : stop;
  const stores = await openStores(config, { folder, run: first.run, stop: patience });
  try {
    if (isRest && first.store !== stores.identity) throw new ConfigError(`The run ${first.run} that is not finished used another database (${first.store}) than DATABASE_URL leads to (${stores.identity}). Set DATABASE_URL to that one.`);
    // It would take the smoke test's steps, and the gate would not see its requests.
    if (!isRest && (await stores.otherWorkers()) > 0) {
      throw new UsageError('Another worker runs on the database of DATABASE_URL: the smoke cannot see what that does. Stop it, or unset DATABASE_URL for an embedded Postgres.');
    }
    await requireNoOthersWork(stores, first.run, isRest);
    return await runWith(run, stores);
  } catch (error) {
    if (run.first.phase === 'open' && (await readState(folder))?.phase === 'open') complain('The run is not finished. Run `arcadia smoke` again with the same settings: it finishes what is left.');
    throw error;
  } finally {
    await stores.close();
  }
}

/**
 * Its worker would take that work, and the gate would refuse the requests of it.
 *
 * @throws {UsageError} if there is any
 */
async function requireNoOthersWork({ identity, othersWork }: Stores, run: string, isRest: boolean): Promise<void> {
  if (identity === EMBEDDED) return;
  const found = await othersWork(run);
  if (found.length === 0) return;
  const otherwise = isRest ? '' : ', or unset DATABASE_URL for an embedded Postgres';
  throw new UsageError(`The smoke's worker would take work from the database of DATABASE_URL that is not its own: ${found.join('; ')}. Let \`arcadia worker\` finish it, or cancel it, then stop that worker and run the smoke again${otherwise}.`);
}

async function runWith({ config, options, folder, first, isRest, say, stop, io, program, limits }: Run, stores: Stores): Promise<Receipt> {
  const state = keepState(folder, { ...first, store: stores.identity }, io);
  if (!isRest) await state.change('run begins', (current) => current);
  const { db, client } = stores;
  // Cancel before a worker exists that would continue them.
  if (isRest) await callOff({ db, client, io, state });
  const witness = createWitness(state, isRest ? 0 : dropletsFor(options.maxUsd ?? 0, first.priceUsdPerHour));
  const { token, apiUrl } = config.digitalOcean;
  const gate = await openGate({ apiUrl, token: token ?? '', watch: witness, io });
  const crew = createCrew({ ...process.env, ...stores.environment, ...workerSettings, DIGITALOCEAN_API_URL: gate.url, DIGITALOCEAN_TOKEN: gate.token }, program);
  const lookEveryMs = Math.max(SHORTEST_LOOK_MS, Math.min(LOOK_EVERY_MS, config.wait.pollIntervalMs / 5));
  const stage: Stage = { state, api: apiOf(config, io), db, client, witness, crew, maxPolls: config.wait.maxPolls, lookEveryMs, say, io };
  const observer = observe({ witness, state, api: apiOf(config, (name, operation) => io(`look: ${name}`, operation)), everyMs: lookEveryMs });
  try {
    const acts = isRest ? [] : await playAll(stage, stop);
    if (stop.aborted) complain('Interrupted: destroying what was made. Press Ctrl-C again to leave that to the next call.');
    const found = await tidy(stage, limits);
    await observer.close(MEASURING_MS);
    const profile = isRest || stop.aborted ? null : await writeProfile(state, lookEveryMs, options.profileOut ?? join(folder, 'profile.json'), io);
    const receipt = receiptOf(state.read(), found, { acts, finishedEarlierRun: isRest, profile });
    await io('receipt', () => writeAtomically(join(folder, 'receipt.json'), `${JSON.stringify(receipt)}\n`));
    return receipt;
  } finally {
    await crew.close();
    await observer.close(0);
    await gate.close();
  }
}

async function playAll(stage: Stage, stop: AbortSignal): Promise<ActResult[]> {
  const results: ActResult[] = [];
  for (const act of actsOf(stage.state.read().hard)) {
    const dropletName = stage.state.read().acts.find((one) => one.act === act)?.dropletName ?? '';
    stage.say(`\n${act}: droplet ${dropletName}`);
    try {
      results.push(await playAct(stage, { act, dropletName }, stop));
    } catch (error) {
      // Started work is cleaned up afterwards.
      if (!stop.aborted) throw error;
      return [...results, { act, ok: false, detail: 'interrupted' }];
    }
    // A failed act may have left a droplet, so no other is created.
    if (results.at(-1)?.ok !== true) return results;
  }
  return results;
}

/** A run is done once its receipt is printed. If the call is killed before that, the next one prints it again. */
async function finish(folder: string, io: SmokeIo): Promise<void> {
  await new Promise<void>((resolve) => {
    process.stdout.write('', () => resolve());
  });
  const last = await readState(folder);
  if (last !== null) await keepState(folder, last, io).change('run is done', (current) => ({ ...current, phase: 'done' }));
  await removeDatabases(folder, null);
}

async function writeProfile(state: StateFile, lookEveryMs: number, path: string, io: SmokeIo): Promise<string | null> {
  const { droplets, acts, apiUrl, region, size, image } = state.read();
  if (!droplets.some(({ lags }) => lags.activeMs !== null)) return null;
  const profile: Profile = {
    version: 1,
    measured: { at: new Date().toISOString(), api: new URL(apiUrl).host, region, size, image, lookEveryMs },
    droplets: droplets.map(({ name, lags }) => ({ act: acts.find(({ dropletName }) => dropletName === name)?.act ?? '', ...lags })),
  };
  await io('profile', () => writeAtomically(path, `${JSON.stringify(profile, null, 2)}\n`));
  return path;
}

/** Identifies the token if the account cannot be read: a 404 proves nothing about droplets in another account. */
function fingerprintOf(token: string): string {
  return `token ${createHash('sha256').update(token).digest('hex').slice(0, 16)}`;
}

function apiOf({ digitalOcean: { apiUrl, token, timeoutMs } }: Config, io: SmokeIo) {
  return createDigitalOceanClient({ apiUrl, token: token ?? '', timeoutMs, budget: null, io: asIo(io), userAgent: 'arcadia-smoke' });
}

/**
 * @throws {UsageError} if the size is not offered in the region
 */
async function readOffer(api: ReturnType<typeof apiOf>, { size, region }: SmokeOptions): Promise<{ priceUsdPerHour: number }> {
  const found = await readSize(api, size);
  if (found === null) throw new UsageError(`--size: DigitalOcean has no size ${JSON.stringify(size)}`);
  if (!found.available || (found.regions.length > 0 && !found.regions.includes(region.toLowerCase()))) {
    throw new UsageError(`--region: the size ${found.slug} is not available in ${JSON.stringify(region)}; it is in ${found.regions.join(', ') || 'none'}`);
  }
  return { priceUsdPerHour: found.price_hourly };
}

/** Why the plan is not carried out; null: it is. */
function refusalOf({ mostUsd, earlierRun }: Plan, { maxUsd, yes }: SmokeOptions): string | null {
  const costs = earlierRun === null;
  if (costs && maxUsd === undefined) return `Nothing was done. Add \`--max-usd ${(Math.ceil(mostUsd * 100 - 1e-6) / 100).toFixed(2)} --yes\` to do it.`;
  if (costs && maxUsd !== undefined && mostUsd > maxUsd + 1e-9) return `Nothing was done: it may cost ${usd(mostUsd)}, more than --max-usd ${maxUsd}.`;
  return yes === true ? null : 'Nothing was done. Add `--yes` to do it.';
}

/**
 * @throws {ConfigError} if the earlier run cannot be finished with these settings
 */
function requireSame({ run, apiUrl, account, store }: SmokeState, now: { apiUrl: string; account: string; isEmbedded: boolean }, folder: string): void {
  const begin = `The run ${run}, whose state is in ${folder}, is not finished, and has to be finished first.`;
  if (apiUrl !== now.apiUrl) throw new ConfigError(`${begin} It used DIGITALOCEAN_API_URL=${apiUrl}: set that again, or name another folder with --state-dir.`);
  if (account !== now.account) throw new ConfigError(`${begin} Its droplets are in the account ${account}; DIGITALOCEAN_TOKEN is of ${now.account}. Set a token of that account, or name another folder with --state-dir.`);
  if (store === EMBEDDED && !now.isEmbedded) throw new ConfigError(`${begin} It used an embedded Postgres: unset DATABASE_URL.`);
  if (store !== EMBEDDED && now.isEmbedded) throw new ConfigError(`${begin} It used the database ${store}: set DATABASE_URL (and REDIS_URL) as they were.`);
}
