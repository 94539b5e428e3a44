// What the tests of the smoke share: an account with droplets that are not ours, smokes as processes of their own, and the
// sandbox's ledger, which is kept by somebody else than the smoke.

import { once } from 'node:events';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { z } from 'zod';
import type { Sandbox, SandboxOptions } from '../../../src/sandbox/server.ts';
import { startSandbox } from '../../../src/sandbox/server.ts';
import { forkBound } from '../../support/child-process.ts';
import { compileCache } from '../../support/compile-cache.ts';
import { createEngineDatabase } from '../../support/engine.ts';
import { patience } from '../../support/patience.ts';
import { programFile } from '../../support/programs.ts';

export const receiptSchema = z.object({
  run: z.string(),
  finishedEarlierRun: z.boolean(),
  acts: z.array(z.object({ act: z.string(), ok: z.boolean(), detail: z.string() })),
  droplets: z.array(z.object({ id: z.number(), name: z.string(), madeAt: z.string(), seenAs404: z.boolean(), seconds: z.number().nullable(), costUsd: z.number().nullable() })),
  costUsd: z.number(),
  foreign: z.object({ before: z.number(), after: z.number(), differences: z.array(z.string()), appeared: z.array(z.number()) }),
  tagsLeft: z.array(z.string()),
  unanswered: z.array(z.object({ name: z.string(), at: z.string(), until: z.string() })),
  neverAppeared: z.array(z.object({ name: z.string(), at: z.string() })),
  left: z.array(z.string()),
  refused: z.array(z.string()),
  profile: z.string().nullable(),
  ok: z.boolean(),
});

type SmokeReceipt = z.infer<typeof receiptSchema>;
type Exit = { readonly code: number | null; readonly signal: NodeJS.Signals | null; readonly stdout: string; readonly stderr: string };

/** Moves the creates of a run into the past, as if their droplets had had two hours to appear. */
export async function ageCreates(folder: string): Promise<void> {
  const path = join(folder, 'smoke.json');
  const state = z.looseObject({ creates: z.array(z.looseObject({ at: z.string() })) }).parse(JSON.parse(await readFile(path, 'utf8')));
  const creates = state.creates.map((one) => ({ ...one, at: new Date(Date.parse(one.at) - 7_200_000).toISOString() }));
  await writeFile(path, JSON.stringify({ ...state, creates }));
}

export const TOKEN = 'dop_v1_smoke_canary';
// That of s-4vcpu-8gb.
const PRICE = 0.07143;

/** As in production, some twenty times faster. */
const times = {
  DIGITALOCEAN_TIMEOUT_MS: '1500', WORKER_LOCK_MS: '2000', ADOPTION_GRACE_MS: '3000', RECONCILE_INTERVAL_MS: '500', WAIT_POLL_INTERVAL_MS: '250', STEP_BACKOFF_MS: '50',
};

export type SmokeStage = {
  readonly sandbox: Sandbox;
  readonly folder: string;
  readonly environment: NodeJS.ProcessEnv;
  /** Runs a smoke to its end, or to where it is killed. */
  readonly smoke: (changes?: NodeJS.ProcessEnv) => Promise<Exit>;
  /** What is not as it must be once nothing is left; empty: all is well. */
  readonly problems: (receipt: SmokeReceipt) => string[];
  readonly [Symbol.asyncDispose]: () => Promise<void>;
};

/** Opens a stage. `store`: a database of the test's own, or the smoke's embedded one. */
export async function openSmokeStage(store: 'given' | 'embedded', options: SandboxOptions = {}): Promise<SmokeStage> {
  const database = store === 'given' ? await createEngineDatabase('smoke') : null;
  const sandbox = await startSandbox({ activateAfterMs: 700, ratePerMinute: null, ratePerHour: null, token: TOKEN, ...options });
  const foreign = [
    sandbox.addForeignDroplet({ name: 'theirs', tags: ['prod'] }).id,
    sandbox.addForeignDroplet({ name: 'other-fleet', tags: ['managed-by-arcadia-cloud', 'arcadia-saga-id-00000000-0000-4000-8000-000000000000'] }).id,
  ];
  const folder = await mkdtemp(join(tmpdir(), 'arcadia-smoke-test-'));
  const { PATH, HOME, TMPDIR } = process.env;
  const environment: NodeJS.ProcessEnv = {
    PATH, HOME, TMPDIR, ...times,
    ...(database === null ? {} : { DATABASE_URL: database.url, ARCADIA_ENV: 'smoke' }),
    DIGITALOCEAN_API_URL: sandbox.url,
    DIGITALOCEAN_TOKEN: TOKEN,
    ARCADIA_SMOKE_DIR: folder,
    ARCADIA_SMOKE_PROGRAM: programFile('main'),
  };
  const before = JSON.stringify(foreignNow());
  return {
    sandbox,
    folder,
    environment,
    smoke: (changes = {}) => runSmoke({ ...environment, ...changes }),
    problems: (receipt) => {
      const problems: string[] = [];
      const alive = sandbox.state({ alive: true }).filter(({ id }) => !foreign.includes(id));
      if (alive.length > 0) problems.push(`left: ${alive.map(({ name }) => name).join(', ')}`);
      if (JSON.stringify(foreignNow()) !== before) problems.push('foreign droplets changed');
      const ours = sandbox.ledger().filter(({ made }) => made.length > 0).flatMap(({ made, at }) => made.map((id) => ({ id, at })));
      if (ours.map(({ id }) => id).join() !== receipt.droplets.map(({ id }) => id).join()) problems.push(`the ledger knows ${ours.map(({ id }) => id).join()}, the receipt ${receipt.droplets.map(({ id }) => id).join()}`);
      for (const { id, seconds, costUsd } of receipt.droplets) problems.push(...problemsOf(id, seconds, costUsd));
      if (!receipt.ok || receipt.left.length > 0) problems.push(`not ok: ${JSON.stringify(receipt)}`);
      return problems;
    },
    [Symbol.asyncDispose]: async () => {
      await sandbox.close();
      await rm(folder, { recursive: true, force: true, maxRetries: 20, retryDelay: 100 });
      await database?.drop();
    },
  };

  function foreignNow() {
    return sandbox.state().filter(({ id }) => foreign.includes(id)).map(({ id, tags, alive }) => ({ id, tags: [...tags].toSorted(), alive }));
  }

  /** The receipt may say more seconds than the droplet lived, as far as nobody looked; never fewer. */
  function problemsOf(id: number, seconds: number | null, costUsd: number | null): string[] {
    const entries = sandbox.ledger();
    const made = entries.find((entry) => entry.made.includes(id));
    const end = entries.find((entry) => entry.deleted.includes(id));
    if (made === undefined || end === undefined) return [`the ledger has no ${made === undefined ? 'create' : 'deletion'} of ${id}`];
    const lived = (end.at - made.at) / 1_000;
    const problems: string[] = [];
    if (seconds === null || seconds < Math.floor(lived) || seconds > lived + 60 * patience()) problems.push(`droplet ${id} lived ${lived} s, the receipt says ${seconds}`);
    const cost = Math.max(0.01, (Math.max(60, seconds ?? 0) * PRICE) / 3_600);
    if (costUsd === null || Math.abs(costUsd - cost) > 1e-9) problems.push(`droplet ${id} costs ${cost}, the receipt says ${costUsd}`);
    return problems;
  }
}

async function runSmoke(environment: NodeJS.ProcessEnv): Promise<Exit> {
  const child = forkBound(programFile('crashing-smoke'), [], { env: { ...compileCache, ...environment }, execArgv: [], stdio: ['ignore', 'pipe', 'pipe', 'ipc'] });
  const timer = setTimeout(() => child.kill('SIGKILL'), 150_000 * patience());
  let stdout = '';
  let stderr = '';
  child.stdout?.setEncoding('utf8').on('data', (text: string) => (stdout += text));
  child.stderr?.setEncoding('utf8').on('data', (text: string) => (stderr += text));
  await once(child, 'exit');
  clearTimeout(timer);
  return { code: child.exitCode, signal: child.signalCode, stdout, stderr };
}
