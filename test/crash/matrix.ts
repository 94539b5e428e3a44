// The crash matrix: every boundary of every scenario, times every way to be interrupted there. Each case sets a stage,
// interrupts, lets the saga come to rest, and returns what is not as it must be then: nothing, one hopes.

import { appendFileSync } from 'node:fs';
import { setTimeout as delay } from 'node:timers/promises';
import { Redis } from 'ioredis';
import type { Rule } from '../../src/sandbox/server.ts';
import { isAtRest } from '../../src/saga/saga.ts';
import type { Around, Boundary, Position } from './boundaries.ts';
import { numberedIo, strikeAt } from './boundaries.ts';
import { DURING_MS } from './crash-plan.ts';
import type { Recording } from './recording.ts';
import { recordOnce } from './recording.ts';
import type { Scenario } from './scenarios.ts';
import { scenarios } from './scenarios.ts';
import { queueStoreKinds } from '../support/topology.ts';
import { waitFor } from '../support/wait-for.ts';
import type { ExtraRules, QueueBackend, Stage, Victim } from './stage.ts';
import { openCrashStage } from './stage.ts';
import { listSagas } from '../support/list-sagas.ts';

/** One case: one boundary of one scenario, and the side from which it is interrupted. */
export type Case = {
  readonly title: string;
  readonly scenario: Scenario;
  readonly boundary: Boundary;
  readonly position: Position;
  readonly recording: Recording;
};

/** Everything, however long it takes; else what fits into an ordinary run of the tests. */
export const isFull = process.env['ARCADIA_CRASH_FULL'] === '1';

// Another part each day, the same one all day. Printed, so that a run can be repeated on another day.
const seed = Number(process.env['ARCADIA_CRASH_SEED'] ?? Math.floor(Date.now() / 86_400_000));
process.stdout.write(isFull ? 'crash matrix: every case\n' : `crash matrix: the sample of ARCADIA_CRASH_SEED=${seed}\n`);

/** Lists the cases of all scenarios, from a recording of each. */
export async function listCases(backend: QueueBackend, positions: readonly Position[]): Promise<Case[]> {
  if (typeof backend === 'string' && !queueStoreKinds().includes(backend)) return [];
  const cases: Case[] = [];
  for (const scenario of scenarios) {
    const recording = await recordOnce(scenario, backend);
    if (recording.problems.length > 0) throw new Error(`${scenario.name}, undisturbed: ${recording.problems.join('; ')}`);
    for (const boundary of recording.own) {
      for (const position of positions) {
        // Only the sandbox can be told to do its work and to keep its answer for a while.
        if (position === 'during' && boundary.kind !== 'http') continue;
        // These read or keep nothing that anybody relies on: what comes before them is what comes after their neighbour.
        if (position === 'before' && /^(budget|observations)\./.test(boundary.name)) continue;
        const title = `${scenario.name}: ${position} ${boundary.number} (${boundary.kind} ${boundary.name})`;
        cases.push({ title, scenario, boundary, position, recording });
      }
    }
  }
  return cases;
}

/** One of `parts` parts of the cases, another each day; all of them in a full run. ARCADIA_CRASH_SEED chooses the part. */
export function samplePart<T>(cases: readonly T[], parts: number): T[] {
  return cases.filter((_, index) => isFull || index % parts === seed % parts);
}

/** Whether a case comes after the commit that announces a create: the next I/O is the POST, unless the claim is too old by then. */
export function isAfterAnnouncement({ boundary, position, recording }: Case): boolean {
  // Numbers begin with 1.
  const next = recording.boundaries[boundary.number];
  return position === 'after' && boundary.name === 'store.commit' && next?.name === 'POST /v2/droplets';
}

/** A worker process is killed at the boundary; another worker finishes the saga. */
export async function killAndRescue(one: Case, backend: QueueBackend): Promise<string[]> {
  const { scenario, boundary, position } = one;
  const rules = position === 'during' ? [atBoundary(one, { holdAnswerMs: 2 * DURING_MS })] : [];
  return playing(one, `kill ${nameOf(backend)}`, backend, rules, async (stage) => {
    const victim = stage.startVictim({ chain: scenario.chain, number: boundary.number, position, signal: 'SIGKILL' });
    requireSameCourse(one, await strikeOf(victim, stage, scenario));
    await victim.exited;
    const diedAt = performance.now();
    const isOver = await hasComeToRest(stage, scenario);
    const rescuer = await stage.startWorker();
    await stage.untilAtRest();
    const recoveryMs = performance.now() - diedAt;
    const authors = await stage.authors();
    const hadWritten = one.recording.boundaries.some(({ name, number }) => (name === 'store.start' || name === 'store.commit') && number < boundary.number);
    const problems: string[] = [];
    if (hadWritten && !authors.some((author) => author.endsWith(`:${victim.pid}`))) problems.push('no event is by the worker that was killed');
    if (!isOver && !authors.includes(rescuer.name)) problems.push('no event is by the worker that took over');
    return { recoveryMs, problems };
  });
}

/**
 * A worker process is frozen at the boundary for longer than its lock, while another worker goes on. It thaws soon after
 * it lost its lock, or when the saga is at rest.
 */
export async function freezeAndThaw(one: Case, backend: QueueBackend, thaw: 'midway' | 'at rest'): Promise<string[]> {
  const { scenario, boundary, position } = one;
  const posts = scenario.expected.posts[1] === 0 ? scenario.expected.posts : ([1, 2] as const);
  const made = scenario.expected.made[1] === 0 ? scenario.expected.made : ([1, 2] as const);
  // Frozen after it made sure of its claim and before it sent its create, a worker sends it all the same, and finds out
  // only then: a second droplet may be made, and must be destroyed again.
  const isCreate = position === 'before' && boundary.name === 'POST /v2/droplets';
  const relaxed = isCreate ? { ...scenario, expected: { ...scenario.expected, posts, made } } : scenario;
  return playing({ ...one, scenario: relaxed }, `zombie ${nameOf(backend)}`, backend, [], async (stage) => {
    const victim = stage.startVictim({ chain: scenario.chain, number: boundary.number, position, signal: 'SIGSTOP' });
    requireSameCourse(one, await strikeOf(victim, stage, scenario));
    const frozenAt = performance.now();
    await stage.startWorker();
    const longerThanTheLock = delay(1.8 * stage.config.worker.lockMs);
    const atRest = stage.untilAtRest().then(() => performance.now() - frozenAt);
    await (thaw === 'midway' ? longerThanTheLock : Promise.all([longerThanTheLock, atRest]));
    victim.signal('SIGCONT');
    const recoveryMs = await atRest;
    await delay(200);
    victim.signal('SIGTERM');
    await victim.exited;
    return { recoveryMs, problems: [] };
  });
}

/** The I/O takes effect, and the connection breaks before its reply is read. The same worker goes on. */
export async function cutReply(one: Case, backend: QueueBackend): Promise<string[]> {
  const { boundary } = one;
  const rules = boundary.kind === 'http' ? [atBoundary(one, { lostAnswer: true })] : [];
  const around: Around = async ({ number, kind }, operation) => {
    const result = await operation();
    if (number !== boundary.number || kind === 'http') return result;
    // A check never throws: without an answer, the droplet is not ready yet.
    // oxlint-disable-next-line typescript/no-unsafe-type-assertion -- what a check returns
    if (kind === 'probe') return { answered: false, why: 'no answer' } as typeof result;
    throw brokenConnection(kind);
  };
  return playing(one, `cut ${nameOf(backend)}`, backend, rules, (stage) => runInterrupted(one, stage, around));
}

/** A fault of the one request that is the case's boundary. */
function atBoundary({ recording, boundary }: Case, effect: Rule['effect']): Rule {
  const skip = recording.boundaries.filter(({ kind, number }) => kind === 'http' && number < boundary.number).length;
  // Not that of the account, with which each worker starts.
  return { match: { path: '^/v2/(droplets|actions)' }, skip, times: 1, effect };
}

/** What the drivers say of a broken connection. */
function brokenConnection(kind: 'sql' | 'queue'): Error {
  return kind === 'sql'
    ? Object.assign(new Error('write CONNECTION_CLOSED 127.0.0.1:5432'), { code: 'CONNECTION_CLOSED' })
    : new Error('Connection is closed.');
}

/** All of Redis is lost at the boundary. The same worker goes on. */
export async function flushAll(one: Case, redisUrl: string): Promise<string[]> {
  const { boundary, position } = one;
  if (position === 'during') throw new Error('a flush comes before or after an I/O');
  const redis = new Redis(redisUrl);
  try {
    const flush = async () => {
      await redis.flushall();
    };
    return await playing(one, 'flush redis', { redisUrl }, [], (stage) => runInterrupted(one, stage, strikeAt(boundary.number, position, flush)));
  } finally {
    redis.disconnect();
  }
}

/** DigitalOcean makes the droplet, and its answer is lost or cannot be read. */
export async function loseAnswer(scenario: Scenario, effect: Rule['effect'], backend: QueueBackend): Promise<string[]> {
  const mode = `answer: ${Object.keys(effect).join()}`;
  const stageOf = { title: `${scenario.name}: ${mode}`, scenario };
  return playing(stageOf, mode, backend, [{ match: { method: 'POST' }, times: 1, effect }], async (stage) => {
    const startedAt = performance.now();
    await stage.startWorker();
    await stage.untilAtRest();
    return { recoveryMs: performance.now() - startedAt, problems: [] };
  });
}

async function runInterrupted(one: Case, stage: Stage, around: Around): Promise<Played> {
  let struckAt: number | null = null;
  const seen: string[] = [];
  await stage.startWorker(
    numberedIo(one.scenario.chain, (boundary, operation) => {
      if (boundary.number <= one.boundary.number) seen.push(boundary.name);
      if (boundary.number === one.boundary.number) struckAt = performance.now();
      return around(boundary, operation);
    }),
  );
  await stage.untilAtRest();
  const endedAt = performance.now();
  requireSameCourse(one, seen);
  if (struckAt === null) throw new Error('the worker never came to its boundary');
  return { recoveryMs: endedAt - struckAt, problems: [] };
}

/** What came of a case, but for what holds at rest: that is looked at for every case alike. */
type Played = { readonly recoveryMs: number; readonly problems: readonly string[] };

/** The worker took another course than in the recording, so that the boundary was another one: the case says nothing. */
class OtherCourse extends Error {
  override readonly name = 'OtherCourse';
}

/** On a machine that is slow for a moment, a job is delivered twice before it could end, and the numbers shift. */
function requireSameCourse({ recording, boundary }: Case, seen: readonly string[]): void {
  const recorded = recording.boundaries.slice(0, boundary.number).map(({ name }) => name);
  if (seen.join() !== recorded.join()) throw new OtherCourse(`expected ${recorded.join(', ')}; found ${seen.join(', ')}`);
}

// What a worker does after its saga's last commit: the job's end, and a look at the queue.
const LAST_STEPS_MS = 3_000;

/** The victim's I/Os up to its boundary. A course that ends before the boundary is another one. */
async function strikeOf(victim: Victim, stage: Stage, scenario: Scenario): Promise<string[]> {
  let isStruck = false;
  const struck = victim.struck.finally(() => {
    isStruck = true;
  });
  const ended = async (): Promise<never> => {
    await waitFor(async () => isStruck || (await hasComeToRest(stage, scenario)), { what: 'the worker to come to its boundary', deadlineMs: 60_000, everyMs: 250 });
    await delay(LAST_STEPS_MS);
    throw new OtherCourse('the saga came to rest before the boundary');
  };
  return Promise.race([struck, ended()]);
}

async function hasComeToRest(stage: Stage, { saga: name }: Scenario): Promise<boolean> {
  const [saga] = await listSagas(stage.db, { limit: 1 });
  return (name ?? saga?.name) === saga?.name && isAtRest(saga?.status ?? 'pending');
}

const MAX_COURSES = 4;

async function playing(
  one: Pick<Case, 'title' | 'scenario'>,
  mode: string,
  backend: QueueBackend,
  rules: ExtraRules,
  play: (stage: Stage) => Promise<Played>,
): Promise<string[]> {
  for (let course = 1; ; course += 1) {
    try {
      // The machine was too slow for the limits of the course before.
      const patience = course;
      const once = () => playOnce(one, mode, backend, rules, play, patience);
      return await (backend === 'postgres' ? inTurn(once) : once());
    } catch (error) {
      if (!(error instanceof OtherCourse) || course === MAX_COURSES) throw error;
    }
  }
}

// Two workers with their queues on Postgres take some thirty connections, of the hundred that a server has by default.
const POSTGRES_LANES = 2;
const lanes = Array.from({ length: POSTGRES_LANES }, () => Promise.resolve());
let turns = 0;

async function inTurn<T>(operation: () => Promise<T>): Promise<T> {
  const lane = turns++ % POSTGRES_LANES;
  const result = (lanes[lane] ?? Promise.resolve()).then(operation);
  lanes[lane] = result.then(
    () => undefined,
    () => undefined,
  );
  return result;
}

async function playOnce(
  one: Pick<Case, 'title' | 'scenario'>,
  mode: string,
  backend: QueueBackend,
  rules: ExtraRules,
  play: (stage: Stage) => Promise<Played>,
  patience: number,
): Promise<string[]> {
  const stage = await openCrashStage(one.scenario, backend, rules, patience);
  let recoveryMs: number | null = null;
  let saysNothing = false;
  try {
    const played = await play(stage);
    const problems = [...played.problems, ...(await stage.problems())];
    if (problems.length === 0) recoveryMs = played.recoveryMs;
    return problems;
  } catch (error) {
    saysNothing = error instanceof OtherCourse;
    throw error;
  } finally {
    if (!saysNothing) report({ scenario: one.scenario.name, mode, title: one.title, recoveryMs });
    await stage.close();
  }
}

/** For script/crash-matrix: one line of JSON a case; `recoveryMs` is null for one that failed. */
function report(line: { scenario: string; mode: string; title: string; recoveryMs: number | null }): void {
  const file = process.env['ARCADIA_CRASH_REPORT'];
  if (file !== undefined && file !== '') appendFileSync(file, `${JSON.stringify(line)}\n`);
}

function nameOf(backend: QueueBackend): string {
  return backend === 'postgres' ? 'postgres' : 'redis';
}
