// A worker process that ends, or freezes, at a given I/O boundary. Forked by the crash matrix, never by hand: its
// environment is that of any worker, and ARCADIA_CRASH_PLAN says where it ends.

import { writeSync } from 'node:fs';
import { setTimeout as delay } from 'node:timers/promises';
import { listenForStop } from '../../src/cli/stop.ts';
import { loadConfig } from '../../src/platform/config.ts';
import { openDatabase } from '../../src/platform/db.ts';
import { untilAborted } from '../../src/platform/deadline.ts';
import { silentLog } from '../../src/platform/log.ts';
import { loadConfigFor } from '../../src/processes/inventory.ts';
import { startWorker } from '../../src/processes/worker.ts';
import type { Around } from './boundaries.ts';
import { numberedIo, numberedOrderIo, numberedOutcomeIo, strikeAt, withSequel } from './boundaries.ts';
import { cancelEverySaga } from './cancel.ts';
import type { CrashPlan } from './crash-plan.ts';
import { DURING_MS } from './crash-plan.ts';
import { ordersAppAt } from './orders-app.ts';

const stop = listenForStop();
const plan = readPlan();
const ordersUrl = process.env['ARCADIA_TEST_ORDERS_URL'];
const app = ordersUrl === undefined ? undefined : ordersAppAt(ordersUrl);
const config = app === undefined ? loadConfig(process.env, ['DATABASE_URL', 'DIGITALOCEAN_TOKEN']) : loadConfigFor(app, process.env, ['DATABASE_URL']);

const seen: string[] = [];

const strike = (): Promise<void> => {
  // Synchronous, unlike process.stdout: a process that has frozen sends nothing any more.
  writeSync(1, `striking ${JSON.stringify(seen)}\n`);
  process.kill(process.pid, plan.signal);
  return Promise.resolve();
};

const killDuring: Around = (boundary, operation) => {
  if (boundary.number === plan.number) void delay(DURING_MS).then(strike);
  return operation();
};

const around = plan.position === 'during' ? killDuring : strikeAt(plan.number, plan.position, strike);
const striking: Around = (boundary, operation) => {
  if (boundary.number <= plan.number) seen.push(boundary.name);
  return around(boundary, operation);
};
const numbered = plan.chain === 'outcome' ? numberedOutcomeIo(striking) : app === undefined ? numberedIo(plan.chain, striking) : numberedOrderIo(striking);
const { cancelAfter } = plan;
const helper = openDatabase(config.databaseUrl ?? '', { max: 1 });
const io = cancelAfter === null ? numbered : withSequel(numbered, cancelAfter, () => cancelEverySaga(helper));

const worker = await startWorker(config, silentLog, io, app);
stop.asServer();
await untilAborted(stop.signal);
await worker.close();
await stop.end(0);

function readPlan(): CrashPlan {
  // oxlint-disable-next-line typescript/no-unsafe-type-assertion -- written by the same test run
  return JSON.parse(process.env['ARCADIA_CRASH_PLAN'] ?? '') as CrashPlan;
}
