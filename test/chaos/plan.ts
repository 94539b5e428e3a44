// What is done to the system, and when: drawn from a seed before the run begins. Pure.
import type { Random } from '../../src/sandbox/random.ts';
import { seededRandom } from '../../src/sandbox/random.ts';
import type { Backend } from './settings.ts';
import { LOCK_MS } from './settings.ts';

/** One deed. `pick`, from 0 to 1, chooses the worker it is done to. */
export type Deed = Readonly<{ atMs: number; pick: number } & (
  | { kind: 'kill' }
  | { kind: 'terminate' }
  | { kind: 'freeze'; lastsMs: number }
  | { kind: 'restart_postgres' }
  | { kind: 'flush_redis' }
)>;

type DeedKind = Deed['kind'];

const POSTGRES_EVERY_MS = 10_000;
const REDIS_FIRST_AT_MS = [20_000, 45_000];
const REDIS_EVERY_MS = 60_000;

/** Plans the deeds of a run, in the order of time. On the Postgres backend there is no Redis to flush. */
export function planDeeds(durationMs: number, seed: number, backend: Backend): Deed[] {
  const random = seededRandom(seed);
  const at = (kind: Exclude<DeedKind, 'freeze'>, atMs: number): Deed => ({ kind, atMs, pick: random() });
  const kills = every(3_000, 7_000, durationMs, random).map((atMs) => at('kill', atMs));
  const stops = every(15_000, 25_000, durationMs, random).map((atMs) => at('terminate', atMs));
  const freezes = every(8_000, 14_000, durationMs, random).map((atMs): Deed => ({
    kind: 'freeze',
    atMs,
    pick: random(),
    lastsMs: Math.round(LOCK_MS * (1.2 + random() * 1.3)),
  }));
  const crashes = steps(POSTGRES_EVERY_MS, POSTGRES_EVERY_MS, durationMs).map((atMs) => at('restart_postgres', atMs));
  const flushes = backend === 'redis' ? flushTimes(durationMs).map((atMs) => at('flush_redis', atMs)) : [];
  return [...kills, ...stops, ...freezes, ...crashes, ...flushes].toSorted((a, b) => a.atMs - b.atMs);
}

function flushTimes(durationMs: number): number[] {
  const [, last = 0] = REDIS_FIRST_AT_MS;
  return [...REDIS_FIRST_AT_MS, ...steps(last + REDIS_EVERY_MS, REDIS_EVERY_MS, durationMs)].filter((atMs) => atMs < durationMs);
}

function steps(firstMs: number, everyMs: number, durationMs: number): number[] {
  const times: number[] = [];
  for (let atMs = firstMs; atMs < durationMs; atMs += everyMs) times.push(atMs);
  return times;
}

function every(minMs: number, maxMs: number, durationMs: number, random: Random): number[] {
  const times: number[] = [];
  const pause = () => minMs + random() * (maxMs - minMs);
  for (let atMs = pause(); atMs < durationMs; atMs += pause()) times.push(Math.round(atMs));
  return times;
}
