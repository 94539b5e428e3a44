// Carries out the planned deeds, and keeps a diary of them.
import { spawn } from 'node:child_process';
import { setTimeout as delay } from 'node:timers/promises';
import { Redis } from 'ioredis';
import type { FleetWorker } from './fleet.ts';
import type { Deed } from './plan.ts';
import { SHUTDOWN_MS } from './settings.ts';
import type { Stage } from './stage.ts';

/** A worker that was killed, and the sagas whose jobs it had in its hands. Times in Unix milliseconds. */
export type Kill = Readonly<{ atMs: number; worker: string; sagaIds: readonly string[] }>;

/** A worker that was frozen, and went on afterwards. Times in Unix milliseconds: from just before it stopped until just after it went on. */
type Freeze = Readonly<{ worker: string; fromMs: number; toMs: number }>;

export type Diary = {
  readonly startedAtMs: number;
  /** A line a deed, with the seconds since the start. */
  readonly lines: string[];
  readonly kills: Kill[];
  /** Kills for which the queue could not say what the worker held. */
  blindKills: number;
  readonly freezes: Freeze[];
  terminations: number;
  /** Workers that had to be killed because they did not stop when told to. */
  lateStops: number;
  postgresRestarts: number;
  redisFlushes: number;
};

// A worker that was stopped may take this much longer than its own limit: the machine is busy.
const STOP_SLACK_MS = 3_000;

// The dying worker's jobs are looked up while it is frozen, and its locks must not run out meanwhile.
const LOOK_LIMIT_MS = 1_000;

/** Opens a diary: the run begins now. */
export function openDiary(): Diary {
  return {
    startedAtMs: Date.now(),
    lines: [],
    kills: [],
    blindKills: 0,
    freezes: [],
    terminations: 0,
    lateStops: 0,
    postgresRestarts: 0,
    redisFlushes: 0,
  };
}

/** Carries out all deeds at their times, none waiting for another; resolves when all are over. Each is told to `say` too. */
export async function runMonkeys(deeds: readonly Deed[], stage: Stage, diary: Diary, say: (line: string) => void): Promise<void> {
  const note = (what: string) => {
    const line = `${((Date.now() - diary.startedAtMs) / 1_000).toFixed(1).padStart(6)} s  ${what}`;
    diary.lines.push(line);
    say(line);
  };
  const doings = deeds.map(async (deed) => {
    await delay(Math.max(0, diary.startedAtMs + deed.atMs - Date.now()));
    await carryOut(deed, stage, diary, note);
  });
  await Promise.all(doings);
}

async function carryOut(deed: Deed, stage: Stage, diary: Diary, note: (what: string) => void): Promise<void> {
  switch (deed.kind) {
    case 'restart_postgres':
      return restartPostgres(stage, diary, note);
    case 'flush_redis':
      return flushRedis(stage, diary, note);
    case 'kill':
    case 'terminate':
    case 'freeze': {
      const worker = takeWorker(stage, deed.pick);
      if (worker === undefined) return note(`${deed.kind}: no worker to be had`);
      if (deed.kind === 'kill') return killWorker(worker, stage, diary, note);
      if (deed.kind === 'terminate') return terminateWorker(worker, diary, note);
      return freezeWorker(worker, deed.lastsMs, diary, note);
    }
    default:
      return deed satisfies never;
  }
}

function takeWorker(stage: Stage, pick: number): FleetWorker | undefined {
  const free = stage.fleet.workers().filter((worker) => !worker.isTaken);
  const worker = free[Math.floor(pick * free.length)];
  if (worker !== undefined) worker.isTaken = true;
  return worker;
}

/** Frozen for a moment first: what it has in its hands then is what it dies with. */
async function killWorker(worker: FleetWorker, stage: Stage, diary: Diary, note: (what: string) => void): Promise<void> {
  process.kill(worker.pid, 'SIGSTOP');
  const limit = delay(LOOK_LIMIT_MS).then(() => null);
  const held = await Promise.race([stage.queues.inHandsOf(worker.name).catch(() => null), limit]);
  await worker.kill();
  if (held === null) diary.blindKills += 1;
  diary.kills.push({ atMs: Date.now(), worker: worker.name, sagaIds: held ?? [] });
  note(`killed worker ${worker.name}, ${held === null ? 'and nobody knows what it had in its hands' : `with ${held.length} steps in its hands`}`);
}

async function terminateWorker(worker: FleetWorker, diary: Diary, note: (what: string) => void): Promise<void> {
  diary.terminations += 1;
  const tookMs = await worker.terminate(SHUTDOWN_MS + STOP_SLACK_MS);
  if (tookMs === null) diary.lateStops += 1;
  note(tookMs === null ? `worker ${worker.name} did not stop on SIGTERM: killed` : `worker ${worker.name} stopped on SIGTERM in ${Math.round(tookMs)} ms`);
}

async function freezeWorker(worker: FleetWorker, lastsMs: number, diary: Diary, note: (what: string) => void): Promise<void> {
  const fromMs = Date.now();
  note(`froze worker ${worker.name} for ${lastsMs} ms`);
  // Thawed by a process of its own: a frozen worker could not see that we are gone, and would stay for ever.
  const script = `kill -STOP ${worker.pid}; sleep ${lastsMs / 1_000}; kill -CONT ${worker.pid}`;
  const thaw = spawn('sh', ['-c', script], { detached: true, stdio: 'ignore' });
  await new Promise((resolve) => {
    thaw.once('exit', resolve);
  });
  diary.freezes.push({ worker: worker.name, fromMs, toMs: Date.now() });
  worker.isTaken = false;
  note(`worker ${worker.name} goes on`);
}

async function restartPostgres(stage: Stage, diary: Diary, note: (what: string) => void): Promise<void> {
  const startedAt = performance.now();
  await stage.postgres.restart('immediate');
  diary.postgresRestarts += 1;
  note(`restarted Postgres (immediate): back after ${Math.round(performance.now() - startedAt)} ms`);
}

async function flushRedis(stage: Stage, diary: Diary, note: (what: string) => void): Promise<void> {
  if (stage.redis === null) return;
  const client = new Redis(stage.redis.url);
  try {
    await client.flushall();
  } finally {
    client.disconnect();
  }
  await stage.redis.restart();
  diary.redisFlushes += 1;
  note('flushed and restarted Redis');
}
