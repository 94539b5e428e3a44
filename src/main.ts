#!/usr/bin/env node
// The command line: the entry of every process. Commands are loaded when they are used.
import addCompletion from '@bomb.sh/tab/commander';
import { Command, CommanderError, Option } from 'commander';
import { amount, collect, ids, json, wholeNumber } from './cli/argument-parsers.ts';
import { StopRequested, listenForStop } from './cli/stop.ts';
import { EXIT_CONFIG, appFileIn } from './platform/config.ts';
import { roles } from './platform/config-fields.ts';
import { unlessAborted } from './platform/deadline.ts';
import { packageVersion } from './platform/package-version.ts';
import type { Purpose } from './platform/packages.ts';
import { requirePackages } from './platform/packages.ts';
import { describePostgresFailure } from './platform/postgres-failure.ts';
import type { App } from './saga/app.ts';
import { sagaPriorities, sagaStatuses } from './saga/saga.ts';
import { visibleLines } from './platform/text.ts';

// Before anything else: a signal that comes while commands are loaded is meant for us too.
const stop = listenForStop();

const EXIT_FAILED = 1;
const EXIT_USAGE = 2;

const program = new Command('arcadia')
  .description('Create and destroy DigitalOcean droplets as durable sagas: retried, and rolled back if they fail.')
  .version(packageVersion(), '--version', 'print the version')
  .exitOverride()
  .configureOutput({
    writeOut: (text) => process.stdout.write(visibleLines(text)),
    writeErr: (text) => process.stderr.write(visibleLines(text)),
    // It quotes what it does not know.
    outputError: (text, writeError) => writeError(`${text.trimEnd().replaceAll('\n', '\n  ')}\n`),
  })
  .showHelpAfterError('(run with --help for usage)')
  .option('--app <file>', 'module whose default export is the app with your own sagas; default: ARCADIA_APP, or else the droplet sagas')
  .hook('preAction', (_program, command) => {
    requirePackages(...purposesOf(command));
  })
  .addHelpText('after', '\nExit codes: 0 done, 1 failed, 2 wrong usage, 78 invalid configuration.');

/** What the packages of a command are for. */
function purposesOf(command: Pick<Command, 'name'>): readonly Purpose[] {
  if (command.name() === 'sandbox') return ['sandbox'];
  if (command.name() === 'hash-password') return [];
  const hasOwnPostgres = command.name() === 'demo' || (['dev', 'smoke'].includes(command.name()) && (process.env['DATABASE_URL'] ?? '') === '');
  return hasOwnPostgres ? ['fleet', 'embedded-postgres'] : ['fleet'];
}

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
  const { loadApp } = await import('./cli/app.ts');
  const file = program.opts<{ app?: string }>().app;
  return file === undefined ? loadApp(appFileIn(process.env), 'ARCADIA_APP') : loadApp(file, '--app');
}

program
  .command('migrate')
  .description('bring the database up to date; safe to repeat')
  .option('--json', 'print one JSON document')
  .action(run(async (options) => (await import('./cli/migrate.ts')).migrateCommand(await app(), options)));

program
  .command('worker')
  .description('run a worker, which runs the steps of sagas until it is stopped')
  .action(
    serve(async () => {
      (await import('./processes/heap-limits.ts')).limitHeap();
      return (await import('./cli/worker.ts')).workerCommand(await app(), stop.signal);
    }),
  );

program
  .command('web')
  .description('run the web process: HTTP API, pages, queue dashboard, metrics')
  .action(serve(async () => (await import('./cli/web.ts')).webCommand(await app(), stop.signal)));

program
  .command('provision')
  .description('create a droplet and follow its saga until the droplet is ready')
  .requiredOption('--name <host-name>', 'name of the droplet')
  .requiredOption('--region <slug>', 'region, such as fra1')
  .requiredOption('--size <slug>', 'size, such as s-1vcpu-1gb')
  .requiredOption('--image <slug-or-id>', 'image, such as debian-12-x64')
  .option('--ssh-key <key>', 'SSH key that may log in: its name, id or fingerprint; digits are an id (repeatable)', collect)
  .option('--tag <tag>', 'tag for the droplet (repeatable)', collect)
  .option('--user-data-file <file>', 'file with user data, at most 64 KiB')
  .option('--vpc-uuid <uuid>', 'VPC of the droplet')
  .option('--ipv6', 'assign an IPv6 address')
  .option('--monitoring', "install DigitalOcean's monitoring agent")
  .option('--backups', 'enable backups')
  .option('--no-public-networking', 'do not assign a public address')
  .option('--project <name-or-id>', 'project to put the droplet into')
  .option('--protected', 'refuse to destroy the droplet until `arcadia unprotect` lifts its protection')
  .option('--ttl <duration>', 'lease, such as 2h: the droplet is destroyed when it ends, unless `arcadia renew` renews it')
  .option('--max-ttl <duration>', 'no renewal extends the lease beyond this, counted from the announcement of the create')
  .option('--ready <how>', 'wait until the droplet is ready: tcp:22, http:8080/healthz, or callback (its user data ran without an error)')
  .option('--ready-within <time>', 'roll back a droplet that is not ready in this time, such as 10m (the default)')
  .option('--wait <time>', 'time to wait for the droplet to become active, such as 1h (default: WAIT_MAX_POLLS times WAIT_POLL_INTERVAL_MS)')
  .option('--idempotency-key <key>', 'the same key returns the same saga, as long as that saga is kept')
  .addOption(new Option('--priority <priority>', 'priority among your own sagas that wait for the request budget (default: normal)').choices(sagaPriorities))
  .option('--detach', 'print the saga id and exit without waiting')
  .option('--dry-run', 'start nothing: print whether it is possible now, what it costs and when it would start; exit code 1 unless it is known to be possible')
  .option('--json', 'print one JSON document')
  .action(runToItsEnd(async (options) => (await import('./cli/provision.ts')).provisionCommand(await app(), options, stop.signal)));

program
  .command('destroy')
  .description('destroy a droplet that arcadia-cloud provisioned or adopted')
  .argument('<droplet-id>', "DigitalOcean's id of the droplet")
  .option('--reason <text>', 'reason, kept in the audit')
  .option('--idempotency-key <key>', 'the same key returns the same saga, as long as that saga is kept')
  .option('--detach', 'print the saga id and exit without waiting')
  .option('--json', 'print one JSON document')
  .action(runToItsEnd(async (dropletId, options) => (await import('./cli/provision.ts')).destroyCommand(await app(), dropletId, options, stop.signal)));

program
  .command('adopt')
  .description('take a droplet that was made elsewhere under management; only its tags are changed')
  .argument('<droplet-id>', "DigitalOcean's id of the droplet")
  .option('--protected', 'refuse to destroy the droplet until `arcadia unprotect` lifts its protection')
  .option('--ttl <duration>', 'lease, such as 2h: the droplet is destroyed when it ends, unless `arcadia renew` renews it (default: no lease)')
  .option('--max-ttl <duration>', 'no renewal extends the lease beyond this, counted from the registration of the droplet')
  .option('--reason <text>', 'reason, kept in the audit')
  .option('--idempotency-key <key>', 'the same key returns the same saga, as long as that saga is kept')
  .addOption(new Option('--priority <priority>', 'priority among your own sagas that wait for the request budget (default: normal)').choices(sagaPriorities))
  .option('--detach', 'print the saga id and exit without waiting')
  .option('--json', 'print one JSON document')
  .action(runToItsEnd(async (dropletId, options) => (await import('./cli/provision.ts')).adoptCommand(await app(), dropletId, options, stop.signal)));

program
  .command('protect')
  .description('protect a droplet: it is not destroyed until the protection is lifted')
  .argument('<droplet-id>', "DigitalOcean's id of the droplet")
  .option('--json', 'print one JSON document')
  .action(run(async (dropletId, options) => (await import('./cli/protect.ts')).protectCommand(await app(), dropletId, { ...options, protected: true })));

program
  .command('unprotect')
  .description('lift the protection of a droplet')
  .argument('<droplet-id>', "DigitalOcean's id of the droplet")
  .option('--json', 'print one JSON document')
  .action(run(async (dropletId, options) => (await import('./cli/protect.ts')).protectCommand(await app(), dropletId, { ...options, protected: false })));

program
  .command('renew')
  .description('renew the lease of a droplet, so that it is destroyed later')
  .argument('<droplet-id>', "DigitalOcean's id of the droplet")
  .requiredOption('--ttl <duration>', 'minimum time that the lease lasts from now on, such as 90s, 30m, 2h or 7d')
  .option('--json', 'print one JSON document')
  .action(run(async (dropletId, options) => (await import('./cli/renew.ts')).renewCommand(await app(), dropletId, options)));

program
  .command('start')
  .description('start any saga of the app and follow it until it ends or needs attention')
  .argument('<saga>', 'name of the saga')
  .requiredOption('--input <json>', 'input as JSON; @file reads a file, @- reads stdin')
  .option('--idempotency-key <key>', 'the same key returns the same saga, as long as that saga is kept')
  .addOption(new Option('--priority <priority>', 'priority among your own sagas that wait for the request budget (default: normal)').choices(sagaPriorities))
  .option('--detach', 'print the saga id and exit without waiting')
  .option('--json', 'print one JSON document')
  .action(runToItsEnd(async (saga, options) => (await import('./cli/start.ts')).startCommand(await app(), saga, options, stop.signal)));

program
  .command('sagas')
  .description('list sagas, newest first; filters are combined with AND')
  .addOption(new Option('--status <status>', 'only sagas with this status (repeatable, or separated by commas); stuck means: needs attention').choices(sagaStatuses).argParser(collect))
  .option('--name <saga>', 'only sagas with this name, such as provision_droplet')
  .option('--tag <tag>', 'only sagas whose droplet has this tag')
  .option('--droplet-id <id>', 'only sagas of this droplet', wholeNumber(1, Number.MAX_SAFE_INTEGER))
  .option('--text <text>', "only sagas whose subject's name contains this text")
  .option('--since <time>', 'only sagas started since then: an age such as 30m, 2h or 7d, or a time such as 2026-01-31T12:00:00Z')
  .option('--until <time>', 'only sagas started before then; same format')
  .option('--requested-by <who>', 'only sagas requested by this actor, such as cli:ada')
  .option('--limit <n>', 'maximum number of sagas (default: 50)', wholeNumber(1, 1_000))
  .option('--watch', 'read the list again every 2 seconds until Ctrl-C; in a pipe: print a line for each new or changed saga')
  .option('--every <seconds>', 'with --watch: seconds between two reads', wholeNumber(1, 3_600))
  .option('--json', 'print one JSON document; with --watch, one per line: {"saga": …} for each new or changed saga')
  .action(runToItsEnd(async (options) => (await import('./cli/sagas.ts')).listSagasCommand(await app(), options, stop.signal)));

program
  .command('saga')
  .description('show one saga with its timeline')
  .argument('<id>', 'id of the saga, or its first 4 characters or more')
  .option('--follow', 'follow the saga until it ends or needs attention; exit code 1 unless it completed')
  .option('--json', 'print one JSON document; with --follow, one per line: {"event": …} for each event, then {"saga": …}')
  .action(runToItsEnd(async (sagaId, options) => (await import('./cli/sagas.ts')).showSagaCommand(await app(), sagaId, options, stop.signal)));

program
  .command('cancel')
  .description('cancel a saga and roll it back')
  .argument('<id>', 'id of the saga, or its first 4 characters or more')
  .option('--reason <text>', 'reason, kept in the audit')
  .option('--json', 'print one JSON document')
  .action(run(async (sagaId, options) => (await import('./cli/cancel-and-retry.ts')).cancelCommand(await app(), sagaId, options)));

program
  .command('retry')
  .description('resume a saga that needs attention')
  .argument('<id>', 'id of the saga, or its first 4 characters or more')
  .option('--json', 'print one JSON document')
  .action(run(async (sagaId, options) => (await import('./cli/cancel-and-retry.ts')).retryCommand(await app(), sagaId, options)));

program
  .command('rerun')
  .description('run a rolled-back saga again: start a new one with the same input, and follow it')
  .argument('<id>', 'id of the saga, or its first 4 characters or more')
  .option('--user-data-file <file>', 'file with the user data that the saga had; short for --secret-file user_data=<file>')
  .option('--secret-file <field=file>', 'file with a secret that the saga had; - reads stdin (repeatable). Secrets are erased when a saga is rolled back', collect)
  .option('--despite-leftovers', 'run it again although its rollback may have left something. Check that first: `arcadia saga <id>` names it')
  .option('--detach', 'print the id of the new saga and exit without waiting')
  .option('--json', 'print one JSON document')
  .action(runToItsEnd(async (sagaId, options) => (await import('./cli/rerun.ts')).rerunCommand(await app(), sagaId, options, stop.signal)));

program
  .command('sync')
  .description('sync the inventory with DigitalOcean now; print which droplets appeared, changed, vanished or drifted')
  .option('--json', 'print one JSON document')
  .action(runToItsEnd(async (options) => (await import('./cli/inventory.ts')).syncCommand(await app(), options, stop.signal)));

const drift = program
  .command('drift')
  .description('list droplets that differ from their spec')
  .option('--all', 'include resolved drift, newest first')
  .option('--json', 'print one JSON document')
  .action(run(async (options) => (await import('./cli/inventory.ts')).listDriftCommand(await app(), options)));

drift
  .command('accept')
  .description('accept the current state as the desired state')
  .argument('<id>', 'id of the drift, as listed by `arcadia drift`', wholeNumber(1, Number.MAX_SAFE_INTEGER))
  .option('--json', 'print one JSON document')
  // A parent that has the same option takes it for its own.
  .action(run(async (id, _options, command) => (await import('./cli/inventory.ts')).acceptDriftCommand(await app(), id, command.optsWithGlobals())));

const orphans = program
  .command('orphans')
  .description('list droplets that carry our tags but that no record accounts for, with their hourly price; unknown ones are never touched')
  .option('--destroy', 'let the sweep destroy every surplus droplet listed')
  .option('--yes', 'with --destroy: do not ask for confirmation')
  .option('--json', 'print one JSON document')
  .action(run(async (options) => (await import('./cli/inventory.ts')).orphansCommand(await app(), options)));

orphans
  .command('acknowledge')
  .description('say that unknown orphans are known: they stay listed, and are no longer reported as a problem')
  .argument('<id...>', 'ids of orphans, as listed by `arcadia orphans`', ids)
  .option('--reason <text>', 'reason, kept in the audit')
  .option('--json', 'print one JSON document')
  .action(run(async (given, _options, command) => (await import('./cli/inventory.ts')).acknowledgeOrphansCommand(await app(), given, command.optsWithGlobals())));

orphans
  .command('unacknowledge')
  .description('report acknowledged orphans as a problem again')
  .argument('<id...>', 'ids of orphans, as listed by `arcadia orphans`', ids)
  .option('--json', 'print one JSON document')
  .action(run(async (given, _options, command) => (await import('./cli/inventory.ts')).unacknowledgeOrphansCommand(await app(), given, command.optsWithGlobals())));

const outcomes = program
  .command('outcomes')
  .description('list the receivers of outcomes: webhook, queue and NOTIFY; exit code 1 if one is paused')
  .option('--json', 'print one JSON document')
  .action(run(async (options) => (await import('./cli/outcomes.ts')).listOutcomesCommand(await app(), options)));

outcomes
  .command('resume')
  .description('resume a paused subscription')
  .argument('<subscription>', 'name of the subscription, as listed by `arcadia outcomes`')
  .option('--skip <id>', 'give up one outcome that the receiver keeps refusing, by its id')
  .option('--json', 'print one JSON document')
  .action(run(async (subscription, _options, command) => (await import('./cli/outcomes.ts')).resumeOutcomesCommand(await app(), subscription, command.optsWithGlobals())));

program
  .command('leases')
  .description('list droplets with a lease; the lease that ends first comes first')
  .option('--ended', 'only leases that have ended, but whose droplets are not being destroyed yet')
  .option('--without', 'list droplets without a lease instead')
  .option('--destroy', 'let every lease listed by --ended expire, so that its droplet is destroyed; protected droplets are kept')
  .option('--yes', 'with --destroy: do not ask for confirmation')
  .option('--json', 'print one JSON document')
  .action(run(async (options) => (await import('./cli/leases.ts')).leasesCommand(await app(), options)));

program
  .command('status')
  .description('show problems of the fleet; exit code 1 if someone must act')
  .option('--json', 'print one JSON document')
  .action(run(async (options) => (await import('./cli/status.ts')).statusCommand(await app(), options)));

program
  .command('doctor')
  .description('check configuration, Postgres, queues, DigitalOcean, clocks and workers; exit code 1 when something fails')
  .option('--json', 'print one JSON document')
  .action(run(async (options) => (await import('./cli/doctor/doctor.ts')).doctorCommand(await app(), options)));

program
  .command('sandbox')
  .description("run a sandbox of DigitalOcean's API, with its state in memory")
  .option('--port <port>', 'port to listen on; 0 picks a free one', wholeNumber(0, 65_535), 4010)
  .option('--host <address>', 'address to listen on', '127.0.0.1')
  .option('--token <token>', 'the only token to accept; default: any token')
  .option('--activate-after-ms <ms>', 'how long a droplet stays new (default: 3000, or what the profile says)', wholeNumber(0, 86_400_000))
  .option('--action-ms <ms>', 'how long an action on a droplet takes', wholeNumber(0, 86_400_000), 1_000)
  .option('--profile <file>', 'play the lags that `arcadia smoke` measured and wrote to this file')
  .option('--droplet-limit <n>', 'droplet limit of the account', wholeNumber(0, 1_000_000))
  .option('--loopback-addresses', 'give droplets public addresses in 127.0.0.0/8, so that programs on this machine can answer for them')
  .option('--rate-per-minute <n>', 'request limit per rolling minute', wholeNumber(1, 1_000_000))
  .option('--rate-per-hour <n>', 'request limit per rolling hour', wholeNumber(1, 10_000_000))
  .option('--no-rate-limit', 'disable the request limits')
  .option('--faults <json>', 'initial faults, in the format of POST /sandbox/faults', json)
  .action(
    serve(async ({ rateLimit, ...options }) => {
      const limits = rateLimit === false ? { ratePerMinute: null, ratePerHour: null } : {};
      return (await import('./cli/sandbox.ts')).sandboxCommand({ ...options, ...limits }, stop.signal);
    }),
  );

program
  .command('dev')
  .description('run everything in one process: Postgres, the sandbox (unless a token is set), migrations, a worker and the web')
  .option('--data-dir <folder>', 'folder that keeps the data of the embedded Postgres')
  .action(
    serve(async (options) => {
      (await import('./processes/heap-limits.ts')).limitHeap();
      return (await import('./dev/dev.ts')).devCommand(await app(), options, stop.signal);
    }),
  );

program
  .command('smoke')
  .description('try arcadia-cloud on the real DigitalOcean: make a droplet, destroy it, prove that nothing is left; it costs a few cents')
  .requiredOption('--region <slug>', 'region, such as fra1')
  .requiredOption('--size <slug>', 'size, such as s-1vcpu-1gb')
  .option('--image <slug-or-id>', 'image', 'debian-12-x64')
  .option('--hard', 'also cancel in mid-wait, kill a worker between POST and save, and lose an answer')
  .option('--max-usd <amount>', 'refuse if it may cost more, such as 0.05', amount)
  .option('--yes', 'confirm the run; without it, only the plan is printed')
  .option('--state-dir <folder>', 'folder that keeps the state between calls (default: a folder in the temp folder)')
  .option('--profile-out <file>', 'file for the measured lags (default: profile.json in the state folder)')
  .option('--json', 'print one JSON document: the receipt')
  .action(runToItsEnd(async (options) => (await import('./dev/smoke/smoke.ts')).smokeCommand(options, stop.signal)));

program
  .command('hash-password')
  .description('read a password (at least 16 characters) from stdin and print its hash, for DASHBOARD_USERS_FILE')
  .option('--user <name>', 'print the whole line of this user')
  .addOption(new Option('--role <role>', 'role of the user').choices(roles).default('read'))
  .action(run(async (options) => (await import('./cli/hash-password.ts')).hashPasswordCommand(options)));

program
  .command('demo')
  .description('run a tour of about a minute on the sandbox')
  .option('--keep', 'keep running after the tour')
  .action(runToItsEnd(async (options) => (await import('./dev/demo.ts')).demoCommand(options, stop.signal)));

/** What to print of an error, and how to exit. Only what we did not expect is shown with its stack. */
async function report(error: unknown): Promise<number> {
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
  const failure = name === 'DigitalOceanError' ? null : ((await describeMissing(error)) ?? describePostgresFailure(error));
  // What others wrote may be in it: no line of theirs begins like one of ours.
  process.stderr.write(`arcadia: ${visibleLines(failure ?? (message === '' ? name : message)).replaceAll('\n', '\n  ')}\n`);
  if (name === 'UsageError' || name === 'InvalidRequestError' || name === 'SandboxInputError') return EXIT_USAGE;
  return EXIT_FAILED;
}

/** What Postgres says of a database without the migrations of this version; null: anything else. */
async function describeMissing(error: unknown): Promise<string | null> {
  if (!(error instanceof Error) || error.name !== 'PostgresError') return null;
  // Here the driver is loaded anyway.
  const { missingMigration } = await import('./platform/db.ts');
  return missingMigration(error)?.message ?? null;
}

// Shell completion of all of the above: `arcadia complete bash`, or zsh, fish, powershell, prints what the shell has to source.
addCompletion(program);
program.commands.find((command) => command.name() === 'complete')?.description('print the completion script of a shell: bash, zsh, fish or powershell').hook('preAction', async () => {
  // Words to complete come after `--`, and may be these, too.
  if (process.argv.slice(2).join(' ') === 'complete bash') process.stdout.write((await import('./cli/bash-completion.ts')).bashPreamble);
});
// Node would print all that an error carries, and libraries put there what they were doing: ioredis the command, which may
// be AUTH and the password.
process.on('uncaughtException', (error: unknown) => {
  process.stderr.write(`arcadia: ${visibleLines(error instanceof Error ? (error.stack ?? error.message) : String(error)).replaceAll('\n', '\n  ')}\n`);
  void stop.end(EXIT_FAILED);
});

try {
  await program.parseAsync();
} catch (error) {
  exitCode = await report(error);
}
await stop.end(exitCode);
