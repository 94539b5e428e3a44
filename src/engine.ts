// What others write their own sagas and steps with, and run them with: `arcadia-cloud/engine`. It loads nothing of any provider's; what runs a
// process (queues, database, HTTP) it loads when one is started.
import { requirePackages } from './platform/packages.ts';
import type { ProcessOptions, StartOptions } from './processes/run-app.ts';
import type { RunningWeb } from './processes/web.ts';
import type { RunningWorker } from './processes/worker.ts';
import type { App } from './saga/app.ts';

export { defineApp, defineSaga, defineStep } from './saga/app.ts';
export type { App, AppContext, NamedSaga } from './saga/app.ts';
export type { JsonObject } from './platform/json.ts';
export type { Saga, SagaError, SagaPriority, SagaStatus } from './saga/saga.ts';
export type { Effect, EffectState, Undoing } from './saga/effect.ts';
export type { Failure } from './saga/failure.ts';
export { StaleRevisionError, StepFailure, StepWait, done, failed, waiting } from './saga/step.ts';
export type { Memo, Step, StepOutcome, StepRun } from './saga/step.ts';
export type { SagaEnd, SagaFacts, SagaWords, StepWords, Subject } from './saga/saga-words.ts';
export type { ProcessOptions, RunningWeb, RunningWorker, StartOptions };

/**
 * Starts a worker in this process: it runs the sagas of the app until it is closed. As `arcadia worker` does, but for signals
 * and exit codes, which are the program's.
 *
 * @returns when the worker takes jobs. A program should end when `cannotGoOn` resolves: only a new process helps then. Closing
 *   the worker does not resolve it
 * @throws {ConfigError} naming each variable that is wrong, or that the app's steps need and is not set; or each package that is not installed
 * @throws {EnvironmentMismatchError} when the database is another environment's; {NotMigratedError} when migrations are due: migrate, then start again
 * @throws {QueueStoreError} when the queue store cannot be reached
 * @throws what `deps` of the app throws
 */
export async function startWorker(app: App, options: StartOptions = {}): Promise<RunningWorker> {
  return (await processes()).runWorker(app, options);
}

/**
 * Starts the web in this process: HTTP API, pages and metrics, for the sagas of the app. As `arcadia web` does.
 *
 * @throws {ConfigError} naming each variable that is wrong, also when others could reach the web without credentials
 * @throws {EnvironmentMismatchError} when the database is another environment's; {NotMigratedError} when migrations are due: migrate, then start again
 * @throws {QueueStoreError} when the queue store cannot be reached
 * @throws {Error} with code `EADDRINUSE` when the port is taken
 */
export async function startWeb(app: App, options: StartOptions = {}): Promise<RunningWeb> {
  return (await processes()).runWeb(app, options);
}

/**
 * Brings the database up to date, and writes down the sagas of the app for those who start them by SQL. As `arcadia migrate`
 * does; safe to run twice, or at once.
 *
 * @returns the names of the migrations that were applied
 * @throws {ConfigError} naming each variable that is wrong; {EnvironmentMismatchError} when the database is another environment's
 */
export async function migrate(app: App, options: ProcessOptions = {}): Promise<string[]> {
  return (await processes()).runMigrations(app, options);
}

/** What runs a process needs packages that a client does without. */
async function processes() {
  requirePackages('fleet');
  return import('./processes/run-app.ts');
}
