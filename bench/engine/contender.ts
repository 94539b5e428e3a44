// The interface of a contender in the engine benchmark: a process that runs sagas of three no-op steps with one worker, either
// as fast as it can or one at a time at a given rate.
import { readFileSync, readdirSync } from 'node:fs';
import { writeFile } from 'node:fs/promises';
import { Session } from 'node:inspector/promises';
import { basename } from 'node:path';
import process from 'node:process';
import { setTimeout as delay } from 'node:timers/promises';
import { z } from 'zod';
import { openDatabase } from '../../src/platform/db.ts';

/** The stores of a contender, and its concurrency. */
export type Place = Readonly<{ databaseUrl: string; redisUrl: string; concurrency: number; postgresPid: number; redisPid: number }>;

export type Contender = (place: Place) => Promise<Opened>;

export type Opened = Readonly<{
  /** Enqueues sagas while no worker runs yet. */
  preload(sagas: number): Promise<void>;
  /** Starts the worker. Resolves when it takes jobs. */
  start(): Promise<void>;
  /** Resolves when this number of sagas is finished, durably if the contender is durable. */
  finished(sagas: number): Promise<void>;
  /** Starts one saga, and resolves when it is finished. */
  one(): Promise<void>;
}>;

/** CPU in seconds for 1,000 sagas. */
export const throughputSchema = z.object({ sagasPerSecond: z.number(), workerCpu: z.number(), postgresCpu: z.number(), redisCpu: z.number() });
export const latencySchema = z.object({ p50Ms: z.number(), p99Ms: z.number() });
export type Throughput = z.infer<typeof throughputSchema>;
export type Latency = z.infer<typeof latencySchema>;

export type Ask =
  | (Place & Readonly<{ kind: 'throughput'; sagas: number }>)
  | (Place & Readonly<{ kind: 'latency'; sagasPerSecond: number; sagas: number }>);

/** Makes this process answer one request of the benchmark and exit. It also exits if its parent does. */
export function serve(contender: Contender): void {
  process.once('message', (ask: Ask) => {
    void answer(contender, ask).then((reply) => process.send?.(reply, () => process.exit(0)));
  });
  process.once('disconnect', () => process.exit(1));
}

async function answer(contender: Contender, ask: Ask): Promise<Throughput | Latency> {
  const opened = await contender(ask);
  return ask.kind === 'throughput' ? measureThroughput(opened, ask) : measureLatency(opened, ask);
}

async function measureThroughput(opened: Opened, { sagas, postgresPid, redisPid }: Extract<Ask, { kind: 'throughput' }>): Promise<Throughput> {
  await opened.preload(sagas);
  const session = process.env['BENCH_PROFILE'] === undefined ? null : await startProfile();
  const from = performance.now();
  const cpu = process.cpuUsage();
  const [postgresFrom, redisFrom] = [cpuSecondsOfServer(postgresPid), cpuSecondsOfServer(redisPid)];
  await opened.start();
  await opened.finished(sagas);
  if (session !== null) await session();
  const seconds = (performance.now() - from) / 1_000;
  const used = process.cpuUsage(cpu);
  return {
    sagasPerSecond: sagas / seconds,
    workerCpu: (used.user + used.system) / 1_000 / sagas,
    postgresCpu: ((cpuSecondsOfServer(postgresPid) - postgresFrom) * 1_000) / sagas,
    redisCpu: ((cpuSecondsOfServer(redisPid) - redisFrom) * 1_000) / sagas,
  };
}

async function measureLatency(opened: Opened, { sagas, sagasPerSecond }: Extract<Ask, { kind: 'latency' }>): Promise<Latency> {
  await opened.start();
  // Compilation and connections on first use are not part of the measurement.
  for (let warmUp = 0; warmUp < 10; warmUp += 1) await opened.one();
  const times: number[] = [];
  const running: Promise<void>[] = [];
  await new Promise<void>((resolve) => {
    const timer = setInterval(() => {
      const from = performance.now();
      running.push(opened.one().then(() => void times.push(performance.now() - from)));
      if (running.length < sagas) return;
      clearInterval(timer);
      resolve();
    }, 1_000 / sagasPerSecond);
  });
  await Promise.all(running);
  const sorted = times.toSorted((one, other) => one - other);
  const at = (share: number) => sorted[Math.min(sorted.length - 1, Math.floor(share * sorted.length))] ?? 0;
  return { p50Ms: at(0.5), p99Ms: at(0.99) };
}

/** Counts finished sagas. Others can wait for a number of them, or for one by name. */
export function createTally() {
  let count = 0;
  let awaited = Number.POSITIVE_INFINITY;
  const all = Promise.withResolvers<void>();
  const named = new Map<string, () => void>();
  return {
    finish: (name: string) => {
      count += 1;
      named.get(name)?.();
      named.delete(name);
      if (count >= awaited) all.resolve();
    },
    reached: (number: number) => {
      awaited = number;
      if (count >= awaited) all.resolve();
      return all.promise;
    },
    ofName: (name: string) => new Promise<void>((resolve) => void named.set(name, resolve)),
  };
}

/** Calls a function a number of times, with limited concurrency. */
export async function repeat(times: number, atOnce: number, once: () => Promise<unknown>): Promise<void> {
  let left = times;
  const some = async () => {
    while ((left -= 1) >= 0) await once();
  };
  await Promise.all(Array.from({ length: atOnce }, some));
}

/** Resolves when a query returns no row: then everything is written. */
export async function untilNone(databaseUrl: string, query: string): Promise<void> {
  const db = openDatabase(databaseUrl, { max: 1 });
  while ((await db.sql.unsafe(query)).length > 0) await delay(5);
  await db.close();
}

/** Writes a CPU profile of the measured part into the folder BENCH_PROFILE, if it is set. */
async function startProfile(): Promise<() => Promise<void>> {
  const session = new Session();
  session.connect();
  await session.post('Profiler.enable');
  await session.post('Profiler.start');
  return async () => {
    const { profile } = await session.post('Profiler.stop');
    await writeFile(`${process.env['BENCH_PROFILE']}/${basename(process.argv[1] ?? '', '.ts')}-${process.pid}.cpuprofile`, JSON.stringify(profile));
  };
}

const TICKS_PER_SECOND = 100;

/** CPU seconds of a server and its children so far; Linux only. Source: proc(5), /proc/pid/stat. */
function cpuSecondsOfServer(pid: number): number {
  let ticks = 0;
  for (const entry of readdirSync('/proc')) {
    if (!/^\d+$/.test(entry)) continue;
    let stat: string;
    try {
      stat = readFileSync(`/proc/${entry}/stat`, 'utf8');
    } catch {
      continue;
    }
    // The name may hold blanks and parentheses; what follows it has fixed places.
    const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ').map(Number);
    if (Number(entry) === pid || fields[1] === pid) ticks += (fields[11] ?? 0) + (fields[12] ?? 0);
    // Of children that have ended since, such as workers of autovacuum.
    if (Number(entry) === pid) ticks += (fields[13] ?? 0) + (fields[14] ?? 0);
  }
  return ticks / TICKS_PER_SECOND;
}
