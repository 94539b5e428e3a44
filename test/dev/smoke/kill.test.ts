// The smoke, killed at each of its own I/Os: on either store, with and without the acts of --hard. The next call finishes
// what it left, and its receipt agrees with the sandbox's ledger.

import { appendFileSync } from 'node:fs';
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, test, vi } from 'vitest';
import type { CrashAt } from './crashing-smoke.ts';
import type { SmokeStage } from './stage.ts';
import { ageCreates, openSmokeStage, receiptSchema } from './stage.ts';

vi.setConfig({ testTimeout: 600_000, maxConcurrency: 3 });

type Kind = { readonly store: 'given' | 'embedded'; readonly hard: boolean };
type Case = Kind & { readonly at: CrashAt };

const isFull = process.env['ARCADIA_CRASH_FULL'] === '1';
const seed = Number(process.env['ARCADIA_CRASH_SEED'] ?? Math.floor(Date.now() / 86_400_000));
const receiptOf = (stdout: string) => receiptSchema.parse(JSON.parse(stdout));

// Of a full run, said at its end.
const inconclusive: string[] = [];
afterAll(() => {
  if (isFull) process.stdout.write(`smoke: ${inconclusive.length} kill points did not come up: ${inconclusive.join('; ')}\n`);
});

describe.concurrent('killed with SIGKILL at an I/O of its own, the next call finishes what it left', async () => {
  for (const one of await pickCases()) {
    const { position, name, occurrence } = one.at;
    test(`${kindOf(one)}: ${position} ${name} #${occurrence}`, async () => {
      expect(await killAndFinish(one)).toEqual([]);
    });
  }
});

function kindOf({ store, hard }: Kind): string {
  return `${store} store${hard ? ', --hard' : ''}`;
}

function on(kind: Kind, points: readonly CrashAt[]): Case[] {
  return points.map((at) => ({ ...kind, at }));
}

async function pickCases(): Promise<Case[]> {
  const effects = await effectsOf(false);
  const plain = pointsOf(effects, new Map());
  if (isFull) {
    // The acts that a plain run lacks.
    const hard = pointsOf(await effectsOf(true), countsOf(effects));
    const stores = ['given', 'embedded'] as const;
    return [...stores.flatMap((store) => on({ store, hard: false }, plain)), ...stores.flatMap((store) => on({ store, hard: true }, hard))];
  }
  // The create itself each day; of all others, two a day, and one more on an embedded Postgres.
  const atCreate = plain.filter(({ name, position }) => name === 'passed on POST /v2/droplets' && position === 'after');
  const others = plain.filter((one) => !atCreate.includes(one));
  const ofToday = (index: number) => others.slice((seed + index * 37) % others.length).slice(0, 1);
  return [...on({ store: 'given', hard: false }, [...atCreate, ...ofToday(0), ...ofToday(1)]), ...on({ store: 'embedded', hard: false }, ofToday(2))];
}

/** The names of all effects of an undisturbed run, in order. */
async function effectsOf(hard: boolean): Promise<string[]> {
  const folder = await mkdtemp(join(tmpdir(), 'arcadia-smoke-list-'));
  try {
    await using stage = await openSmokeStage('given');
    const list = join(folder, 'list');
    const exit = await stage.smoke({ ARCADIA_SMOKE_LIST: list, ...environmentOf(hard) });
    if (exit.code !== 0) throw new Error(`the smoke, undisturbed: ${exit.stdout} ${exit.stderr}`);
    return (await readFile(list, 'utf8')).trimEnd().split('\n');
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

function countsOf(names: readonly string[]): ReadonlyMap<string, number> {
  return new Map([...Map.groupBy(names, (name) => name)].map(([name, all]) => [name, all.length]));
}

/** Both sides of each effect: of each name, the first two occurrences after those that another run covers. */
function pointsOf(names: readonly string[], covered: ReadonlyMap<string, number>): CrashAt[] {
  return [...countsOf(names)].flatMap(([name, count]) => {
    const first = (covered.get(name) ?? 0) + 1;
    return [first, first + 1].filter((occurrence) => occurrence <= count).flatMap((occurrence) => (['before', 'after'] as const).map((position) => ({ name, occurrence, position })));
  });
}

async function killAndFinish(one: Case): Promise<string[]> {
  const { store, hard, at } = one;
  await using stage = await openSmokeStage(store);
  const killed = await stage.smoke({ ARCADIA_SMOKE_CRASH: JSON.stringify(at), ...environmentOf(hard) });
  if (killed.signal !== 'SIGKILL') {
    if (killed.code !== 0 || !mayBeLeftOut(at)) return [`it was not killed: ${killed.code} ${killed.stderr}`];
    inconclusive.push(`${kindOf(one)}: ${at.name} #${at.occurrence}`);
    return stage.problems(receiptOf(killed.stdout));
  }
  const killedAt = performance.now();
  const problems = await finish(stage, at, killed);
  report(one, problems.length === 0 ? performance.now() - killedAt : null);
  return problems;
}

async function finish(stage: SmokeStage, at: CrashAt, killed: Awaited<ReturnType<SmokeStage['smoke']>>): Promise<string[]> {
  // Done, and its receipt is printed: the next call is a new run.
  if (at.name === 'state: run is done' && at.position === 'after') return stage.problems(receiptOf(killed.stdout));
  let next = await stage.smoke(wasNotSent(at) ? { ARCADIA_SMOKE_LISTS_MS: '2000' } : {});
  if (wasNotSent(at) && next.code === 1) {
    // It cannot know that the create was not sent, so it waits for the droplet.
    if (receiptOf(next.stdout).unanswered.length !== 1) return [`no create is said to be without an answer: ${next.stdout}`];
    await ageCreates(stage.folder);
    next = await stage.smoke();
  }
  if (next.code !== 0) return [`the next call ended with ${next.code}: ${next.stdout} ${next.stderr}`];
  return stage.problems(receiptOf(next.stdout));
}

function environmentOf(hard: boolean): NodeJS.ProcessEnv {
  return hard ? { ARCADIA_SMOKE_HARD: '1' } : {};
}

/** Killed after the create was recorded, before it was sent. */
function wasNotSent({ name, position }: CrashAt): boolean {
  return (name === 'state: create is sent' && position === 'after') || (name === 'passed on POST /v2/droplets' && position === 'before');
}

/** An I/O that does not come in each run: a later one of its kind, or a look that somebody took or not, as time allowed. */
function mayBeLeftOut({ name, occurrence }: CrashAt): boolean {
  return occurrence > 1 || name.startsWith('look: ') || name.startsWith('passed on GET ');
}

/** For script/crash-matrix, as the crash matrix of the workers. */
function report(one: Case, recoveryMs: number | null): void {
  const file = process.env['ARCADIA_CRASH_REPORT'];
  if (file === undefined || file === '') return;
  appendFileSync(file, `${JSON.stringify({ scenario: `smoke, ${kindOf(one)}`, mode: 'smoke killed', title: one.at, recoveryMs })}\n`);
}
