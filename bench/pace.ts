// What the request budget makes creates wait, in simulated time: an hour takes seconds, and no machine is too slow. Requests
// take no time here, and a droplet counts as active as soon as it is.
//
//   node bench/pace.ts [--many 100,250,750,1500,5000] [--per-minute 250] [--per-hour 5000] [--active-after 20,60] [--every 60]
//     [--deletions 0,1] [--runs bursts,paced,shared] [--seed 1] [--small] [--json]
//
// Run `bursts`: each create goes as soon as the windows have room. Run `paced`: as they go now, from one requester. Run
// `shared`: beside them, another requester starts a droplet every so many seconds, and so many deletions of four requests.
import Table from 'cli-table3';
import { askOf } from '../src/do/budget.ts';
import { createLocalBudgetStore } from '../src/do/budget-local.ts';
import type { Turn } from '../src/do/budget-store.ts';
import { ARRIVAL_MARGIN_MS } from '../src/do/budget-store.ts';
import { seededRandom } from '../src/sandbox/random.ts';
import { readOptions } from './options.ts';
import { report } from './report.ts';

type Row = Readonly<{
  run: 'bursts' | 'paced' | 'shared';
  many: number;
  /** Deletions of the other requester in each interval. */
  deletions: number;
  /** Until the last of the many was created, and until all of them were active; and the least that is possible. */
  createsSeconds: number;
  activeSeconds: number;
  boundSeconds: number;
  activeP50Seconds: number;
  activeP99Seconds: number;
  /** How long the single creates of the other waited, while the many did. */
  ones: number;
  oneP50Seconds: number | null;
  oneP99Seconds: number | null;
  /** The longest wait of a request of a deletion. */
  deleteSeconds: number | null;
  asksOfACreate: number;
}>;

// All are started within this time, and each asks again so much later than it was told, at most.
const START_MS = 1_000;
const LATE_MS = 100;
// A destruction looks twice, deletes, and looks again.
const REQUESTS_OF_A_DELETION = 4;
const BETWEEN_THEM_MS = 3_000;
// The first window is full by then.
const FIRST_AFTER_MS = 10_000;
const REQUESTER_LENGTH = 16;

const options = readOptions(
  { many: '100,250,750,1500,5000', 'per-minute': 250, 'per-hour': 5_000, 'active-after': '20,60', every: 60, deletions: '0,1', runs: 'bursts,paced,shared', seed: 1 },
  { many: '50,100', 'per-minute': 30, every: 20 },
);
const { 'per-minute': perMinute, 'per-hour': perHour } = options;
const numbersOf = (list: string) => list.split(',').map(Number);
const [shortest = 20, longest = 60] = numbersOf(options['active-after']);

const rows: Row[] = [];
for (const many of numbersOf(options.many)) {
  for (const run of ['bursts', 'paced', 'shared'] as const) {
    if (!options.runs.split(',').includes(run)) continue;
    for (const deletions of run === 'shared' ? numbersOf(options.deletions) : [0]) rows.push(await simulate(run, many, deletions));
  }
}
report({ part: 'pace', perMinute, perHour, rows }, [tableOf(rows)], options);

async function simulate(run: Row['run'], many: number, deletions: number): Promise<Row> {
  const random = seededRandom(options.seed);
  let now = 0;
  const store = createLocalBudgetStore(() => now, ARRIVAL_MARGIN_MS);
  const { at, next } = createSchedule();
  const waitsOfOnes: number[] = [];
  const waitsOfDeletions: number[] = [];
  const actives: number[] = [];
  let asks = 0;
  let lastCreate = 0;

  const ask = async (turn: Turn | null, granted: () => void): Promise<void> => {
    asks += 1;
    const { waitMs, againMs } = await store.draw({ ...askOf(perMinute, perHour, 'create'), turn });
    if (waitMs === 0) granted();
    else at(now + againMs + random() * LATE_MS, async () => ask(turn, granted));
  };
  const deleteOne = async (since: number): Promise<void> => {
    const { waitMs, againMs } = await store.draw({ ...askOf(perMinute, perHour, 'destroy'), turn: null });
    if (waitMs === 0) waitsOfDeletions.push(now - since);
    else at(now + againMs, async () => deleteOne(since));
  };

  for (let index = 0; index < many; index += 1) {
    const turn = run === 'bursts' ? null : turnOf('many', index);
    at(random() * START_MS, async () =>
      ask(turn, () => {
        lastCreate = now;
        actives.push(now + 1_000 * (shortest + random() * (longest - shortest)));
      }));
  }
  let ones = 0;
  const startOne = async (): Promise<void> => {
    const since = now;
    at(now + options.every * 1_000, startOne);
    for (let index = 0; index < deletions * REQUESTS_OF_A_DELETION; index += 1) {
      const due = now + (index % REQUESTS_OF_A_DELETION) * BETWEEN_THEM_MS;
      at(due, async () => deleteOne(due));
    }
    ones += 1;
    await ask(turnOf('one', ones), () => waitsOfOnes.push(now - since));
  };
  if (run === 'shared') at(FIRST_AFTER_MS, startOne);

  while (actives.length < many) {
    const due = next();
    if (due === undefined) break;
    now = Math.max(now, due.at);
    await due.run();
  }
  return {
    run,
    many,
    deletions,
    createsSeconds: lastCreate / 1_000,
    activeSeconds: Math.max(...actives) / 1_000,
    boundSeconds: boundOf(many),
    activeP50Seconds: quantile(actives, 0.5) / 1_000,
    activeP99Seconds: quantile(actives, 0.99) / 1_000,
    ones: waitsOfOnes.length,
    oneP50Seconds: waitsOfOnes.length === 0 ? null : quantile(waitsOfOnes, 0.5) / 1_000,
    oneP99Seconds: waitsOfOnes.length === 0 ? null : quantile(waitsOfOnes, 0.99) / 1_000,
    deleteSeconds: waitsOfDeletions.length === 0 ? null : Math.max(...waitsOfDeletions) / 1_000,
    asksOfACreate: asks / (many + waitsOfOnes.length),
  };
}

function turnOf(requester: string, place: number): Turn {
  return { requester: requester.padEnd(REQUESTER_LENGTH, '-'), own: `1:${String(place).padStart(15, '0')}:${requester}`, weight: 1 };
}

/** The formula of docs/explanation/performance.md. */
function boundOf(many: number): number {
  const { keepMinute, keepHour, readsMinute, readsHour } = askOf(perMinute, perHour, 'create');
  const [ofMinute, ofHour] = [perMinute - keepMinute - readsMinute, perHour - keepHour - readsHour];
  return 3_601 * Math.floor((many - 1) / ofHour) + 61 * Math.floor(((many - 1) % ofHour) / ofMinute) + longest;
}

type Due = Readonly<{ at: number; run: () => Promise<void> }>;

/** What is to be done, in the order of its times. */
function createSchedule() {
  const dues: Due[] = [];
  return {
    at: (at: number, run: Due['run']): void => {
      let [low, high] = [0, dues.length];
      while (low < high) {
        const middle = Math.floor((low + high) / 2);
        if ((dues[middle]?.at ?? 0) <= at) low = middle + 1;
        else high = middle;
      }
      dues.splice(low, 0, { at, run });
    },
    next: (): Due | undefined => dues.shift(),
  };
}

function quantile(numbers: readonly number[], part: number): number {
  return numbers.toSorted((one, other) => one - other)[Math.ceil(numbers.length * part) - 1] ?? Number.NaN;
}

function pair(one: number | null, other: number | null): string {
  return one === null || other === null ? '' : `${one.toFixed(1)}, ${other.toFixed(1)} s`;
}

function tableOf(all: readonly Row[]): string {
  const table = new Table({ head: ['many', 'run', 'deletions', 'creates', 'all active', 'of the bound', 'active p50, p99', 'the one p50, p99', 'to DELETE', 'asks'] });
  for (const row of all) {
    table.push([
      row.many, row.run, row.deletions, `${row.createsSeconds.toFixed(1)} s`, `${row.activeSeconds.toFixed(1)} s`, `${Math.round((100 * row.boundSeconds) / row.activeSeconds)} %`,
      pair(row.activeP50Seconds, row.activeP99Seconds), pair(row.oneP50Seconds, row.oneP99Seconds), row.deleteSeconds === null ? '' : `${row.deleteSeconds.toFixed(1)} s`, row.asksOfACreate.toFixed(1),
    ]);
  }
  return table.toString();
}
