// `script/simulate`: many schedules, and what happened in them.
import { describeFinding, explore } from './explore.ts';
import { isScenario, scenarios } from './world.ts';

const [schedulesText = '100000', seedText = String(Math.floor(Math.random() * 2 ** 31)), scenario = 'droplets'] = process.argv.slice(2);
const schedules = Number(schedulesText);
const seed = Number(seedText);
if (!Number.isSafeInteger(schedules) || schedules < 1 || !Number.isSafeInteger(seed) || seed < 0 || !isScenario(scenario)) {
  process.stderr.write(`usage: script/simulate [schedules] [seed] [${scenarios.join(' | ')}]\n`);
  process.exit(2);
}
const startedAt = performance.now();
const { steps, counts, ends, found, ...run } = await explore({ seed, schedules, scenario });
const seconds = (performance.now() - startedAt) / 1_000;
const table = (counts: ReadonlyMap<string, number>) =>
  [...counts].toSorted(([a], [b]) => a.localeCompare(b)).map(([what, times]) => `${String(times).padStart(10)}  ${what}\n`).join('');
process.stdout.write(`${scenario}, seed ${seed}: ${run.schedules} schedules of ${Math.round(steps / run.schedules)} steps in ${seconds.toFixed(1)} s, `);
process.stdout.write(`${Math.round(run.schedules / seconds)} a second\n\nHow sagas ended:\n${table(ends)}\nWhat happened to them:\n${table(counts)}\n`);
process.stdout.write(found === null ? 'no violation found\n' : `${describeFinding(found)}\n`);
process.exitCode = found === null ? 0 : 1;
