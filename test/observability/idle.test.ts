// What a fleet costs that has nothing to do: statements, commands and CPU time of one worker, and what many workers ask for
// when they start at once. On servers of its own, as everything on them is counted.
import { execFileSync } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { Redis } from 'ioredis';
import { afterAll, beforeAll, describe, expect, onTestFinished, test } from 'vitest';
import type { Sandbox } from '../../src/sandbox/server.ts';
import { startSandbox } from '../../src/sandbox/server.ts';
import { forkBound } from '../support/child-process.ts';
import { compileCache } from '../support/compile-cache.ts';
import { runCommand } from '../support/fleet.ts';
import { patience } from '../support/patience.ts';
import { programFile } from '../support/programs.ts';
import { startPrivatePostgres } from '../support/services-postgres.ts';
import { startPrivateRedis } from '../support/services-redis-server.ts';
import { waitFor } from '../support/wait-for.ts';

/** A statement that the server was sent: by which connection, and its text. */
type Statement = Readonly<{ application: string; text: string }>;

type IdleStage = Readonly<{
  sandbox: Sandbox;
  statements: readonly Statement[];
  /** How many connections were opened. */
  connections: () => number;
  /** The commands that clients sent to Redis; those that a script calls do not count. */
  commands: readonly string[];
  /** Starts workers together, and returns once all are ready. */
  start: (count: number) => Promise<readonly Readonly<{ pid: number }>[]>;
}>;

type Stop = () => Promise<void> | void;
type AtEnd = (stop: Stop) => void;

async function openIdleStage(atEnd: AtEnd, store: 'redis' | 'postgres', settings: Readonly<Record<string, string>> = {}): Promise<IdleStage> {
  const statements: Statement[] = [];
  let connections = 0;
  const read = (line: string): void => {
    const [, application = '', text] = /^(\S*)\|LOG: {2}(?:execute [^:]*|statement): (.*)$/.exec(line) ?? [];
    if (text !== undefined) statements.push({ application, text });
    else if (line.includes('connection authorized')) connections += 1;
    // A statement of several lines goes on.
    else if (!line.includes('|LOG:') && !line.includes('|DETAIL:')) extend(statements, line.trim());
  };
  const postgres = await startPrivatePostgres({ settings: { log_statement: 'all', log_connections: 'on', log_line_prefix: '%a|', max_connections: '300' }, log: read });
  atEnd(() => postgres.stop());
  const redis = store === 'redis' ? await startPrivateRedis() : null;
  atEnd(() => redis?.stop());
  const sandbox = await startSandbox({});
  atEnd(() => sandbox.close());
  const { PATH } = process.env;
  const env = { PATH, ...compileCache, DATABASE_URL: postgres.url, DIGITALOCEAN_API_URL: sandbox.url, DIGITALOCEAN_TOKEN: 'sandbox', ...(redis === null ? {} : { REDIS_URL: redis.url }), ...settings };
  expect((await runCommand(['migrate'], env)).code).toBe(0);
  const commands: string[] = [];
  if (redis !== null) {
    const client = new Redis(redis.url, { retryStrategy: () => null });
    client.on('error', () => undefined);
    const monitor = await client.monitor();
    monitor.on('error', () => undefined);
    monitor.on('monitor', (_time: string, args: readonly string[], source: string) => {
      if (source !== 'lua') commands.push(args.slice(0, 2).join(' ').slice(0, 80));
    });
    atEnd(() => {
      monitor.disconnect();
      client.disconnect();
    });
  }
  const startOne = async () => {
    const child = forkBound(programFile('main'), ['worker'], { env, stdio: ['ignore', 'pipe', 'pipe', 'ipc'], execArgv: [] });
    atEnd(() => void child.kill('SIGKILL'));
    let output = '';
    for (const stream of [child.stdout, child.stderr]) stream?.on('data', (text: Buffer) => (output += text.toString()));
    await waitFor(() => output.includes('worker ready'), { what: 'a worker to be ready', deadlineMs: 90_000 });
    return { pid: child.pid ?? 0 };
  };
  return { sandbox, statements, connections: () => connections, commands, start: (count) => Promise.all(Array.from({ length: count }, startOne)) };
}

function extend(statements: Statement[], text: string): void {
  const last = statements.pop();
  if (last !== undefined) statements.push({ ...last, text: `${last.text} ${text}` });
}

/** The CPU time that a process has used, in seconds. Its own metrics would cost more than the rest of an idle process. */
function cpuSeconds(pid: number): number {
  if (!existsSync(`/proc/${pid}/stat`)) {
    const [seconds = 0, minutes = 0] = execFileSync('ps', ['-o', 'time=', '-p', String(pid)]).toString().trim().split(':').map(Number).toReversed();
    return minutes * 60 + seconds;
  }
  // utime and stime, in ticks of 10 ms. Source: proc_pid_stat(5).
  const [, fields = ''] = readFileSync(`/proc/${pid}/stat`, 'utf8').split(') ');
  const [utime = 0, stime = 0] = fields.split(' ').slice(11, 13).map(Number);
  return (utime + stime) / 100;
}

/** How often each occurs a second, the most frequent first: for the message of a failure. */
function rates(texts: readonly string[], seconds: number): string {
  const counts = Object.entries(Object.groupBy(texts, (text) => text.slice(0, 110))).map(([text, all]) => [text, (all?.length ?? 0) / seconds] as const);
  return counts.toSorted(([, one], [, other]) => other - one).map(([text, rate]) => `${rate.toFixed(2)} ${text}`).join('\n');
}

/** Empty if there are at most so many a second; otherwise says what there is. */
function tooMany(texts: readonly string[], { most, seconds }: { most: number; seconds: number }): string {
  return texts.length / seconds <= most ? '' : `${texts.length / seconds} a second, and not ${most}:\n${rates(texts, seconds)}`;
}

const SETTLE_S = 45;
const MEASURE_S = 40;

/** What BullMQ asks of Postgres by itself: it polls each queue. Ours on the same connections read queues as Bull Board does. */
const isOurs = ({ application, text }: Statement): boolean => application !== 'arcadia-queues' || /Job ids in a state|job counts/i.test(text);

const idleWorkers = [
  { store: 'redis', settings: {}, about: 'and no webhook', most: 2 },
  { store: 'redis', settings: { OUTCOME_WEBHOOK_URL: 'https://example.com/outcomes', OUTCOME_WEBHOOK_SECRETS: 'whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw' }, about: 'and a webhook', most: 2.7 },
  { store: 'postgres', settings: {}, about: 'and no webhook', most: 2 },
] as const;

type Idle = (typeof idleWorkers)[number];

/** What a worker sent, and its share of a core, once it is settled. */
type Measured = Readonly<{ statements: readonly Statement[]; commands: readonly string[]; cpuShare: number }>;

describe('a worker with nothing to do', () => {
  const measured = new Map<Idle, Measured>();
  const stops: Stop[] = [];
  const measure = async ({ store, settings }: Idle): Promise<Measured> => {
    const stage = await openIdleStage((stop) => void stops.unshift(stop), store, settings);
    const [worker] = await stage.start(1);
    // A worker looks more often for half a minute after its start, and syncs once.
    await sleep(SETTLE_S * 1_000);
    const [statements, commands, cpu] = [stage.statements.length, stage.commands.length, cpuSeconds(worker?.pid ?? 0)];
    await sleep(MEASURE_S * 1_000);
    return { statements: stage.statements.slice(statements), commands: stage.commands.slice(commands), cpuShare: (cpuSeconds(worker?.pid ?? 0) - cpu) / MEASURE_S };
  };

  // At once: each has servers of its own, and nearly all of the time is waiting.
  beforeAll(async () => {
    await Promise.all(idleWorkers.map(async (idle) => measured.set(idle, await measure(idle))));
  }, 240_000);
  afterAll(async () => {
    for (const stop of stops) await stop();
  });

  test.each(idleWorkers)('costs at most $most statements and 4 commands a second, and 1 % of a core: queues in $store $about', (idle) => {
    const { store, about, most } = idle;
    const { statements = [], commands = [], cpuShare = 1 } = measured.get(idle) ?? {};
    const ours = statements.filter(isOurs).map(({ text }) => text);
    process.stdout.write(`queues in ${store} ${about}: ${ours.length / MEASURE_S} statements a second, ${(statements.length - ours.length) / MEASURE_S} of BullMQ, ${commands.length / MEASURE_S} commands, ${(cpuShare * 100).toFixed(2)} % of a core\n`);
    expect(ours.length).toBeGreaterThan(0);
    expect(tooMany(ours, { most, seconds: MEASURE_S })).toBe('');
    // BullMQ's own: four queues, a handful of statements each in 5 s.
    expect(tooMany(statements.filter((one) => !isOurs(one)).map(({ text }) => text), { most: store === 'redis' ? 0 : 6, seconds: MEASURE_S })).toBe('');
    expect(tooMany(commands, { most: 4, seconds: MEASURE_S })).toBe('');
    // 0.6 % on a quiet machine. Where others use its cores too, the same work takes more time on them.
    expect(cpuShare).toBeLessThanOrEqual(0.01 * Math.max(2, patience()));
  });
});

describe('workers that start together', () => {
  const COUNT = Number(process.env['ARCADIA_IDLE_WORKERS'] ?? 8);

  test('ask for the account once, read the migrations once each without a lock, and open no more connections than they keep', async () => {
    const stage = await openIdleStage(onTestFinished, 'redis');
    const [statements, connections] = [stage.statements.length, stage.connections()];
    await stage.start(COUNT);
    // Their loops begin within a second.
    await sleep(3_000);
    const account = stage.sandbox.ledger().filter(({ path }) => path === '/v2/account').length;
    const since = stage.statements.slice(statements).map(({ text }) => text);
    process.stdout.write(`${COUNT} workers: ${account} request for the account, ${(since.length / COUNT).toFixed(1)} statements and ${((stage.connections() - connections) / COUNT).toFixed(1)} connections each\n`);
    expect(account).toBe(1);
    expect(since.filter((text) => text.includes('pg_advisory'))).toEqual([]);
    expect(since.filter((text) => text.includes('arcadia.migrations'))).toHaveLength(COUNT);
    // Its pool opens one for each statement at a time, and one listens.
    expect((stage.connections() - connections) / COUNT).toBeLessThanOrEqual(6);
    expect(tooMany(since, { most: 40 * COUNT, seconds: 1 })).toBe('');
  });
});
