// The chaos run: real worker processes, a real Redis and a real Postgres, thousands of sagas against the sandbox; workers
// killed and frozen, Postgres crashed, Redis flushed, a tenth of DigitalOcean's answers faulty. Then a report.
//
//   npm run chaos -- --minutes 10
//
// Exit codes: 0 nothing was violated, 1 something was, 2 wrong usage. What is done goes to stderr, the report to stdout.
import { Command, CommanderError, InvalidArgumentError, Option } from 'commander';
import { formatReport } from './report.ts';
import { runChaos } from './run.ts';
import type { Backend, ChaosOptions } from './settings.ts';

const program = new Command('chaos')
  .description('Breaks everything but the promises: runs sagas under faults of every kind, and checks what must hold.')
  .option('--minutes <n>', 'how long the storm lasts; what it leaves takes up to two minutes more', number(0.1, 10_000), 1)
  .option('--rate <n>', 'sagas started a minute', number(1, 100_000), 300)
  .option('--workers <n>', 'worker processes', number(1, 100), 3)
  .option('--seed <n>', 'the same seed makes the same requests and the same plan of deeds', number(0, 2_147_483_647), 1)
  .addOption(new Option('--backend <store>', 'where the queues are').choices(['redis', 'postgres'] satisfies Backend[]).default('redis'))
  .option('--json', 'print one JSON document')
  .exitOverride()
  .showHelpAfterError('(run with --help for usage)');

function number(min: number, max: number): (text: string) => number {
  return (text) => {
    const value = Number(text);
    if (text.trim() !== '' && value >= min && value <= max) return value;
    throw new InvalidArgumentError(`Expected a number from ${min} to ${max}.`);
  };
}

async function main(): Promise<number> {
  try {
    program.parse();
  } catch (error) {
    if (error instanceof CommanderError) return error.exitCode === 0 ? 0 : 2;
    throw error;
  }
  const given = program.opts<{ minutes: number; rate: number; workers: number; seed: number; backend: Backend; json?: true }>();
  const { minutes, rate, workers, seed, backend } = given;
  const options: ChaosOptions = { minutes, sagasPerMinute: rate, workers: Math.round(workers), seed: Math.round(seed), backend };
  const report = await runChaos(options, (line) => process.stderr.write(`${line}\n`));
  process.stdout.write(`${given.json === true ? JSON.stringify(report, null, 2) : formatReport(report)}\n`);
  return report.ok ? 0 : 1;
}

process.exitCode = await main();
