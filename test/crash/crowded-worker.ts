// A process with a worker whose queue is in a Postgres that has no connection left. Forked by crowded-postgres.test.ts, with
// the URL as its argument. It says what the worker found, and after a while that it still gets a turn.
import { setTimeout as delay } from 'node:timers/promises';
import { silentLog } from '../../src/platform/log.ts';
import { openQueueConnection } from '../../src/queues/connection.ts';
import { queueNames } from '../../src/queues/jobs.ts';

const [databaseUrl = ''] = process.argv.slice(2);
const connection = openQueueConnection({ kind: 'postgres', databaseUrl }, silentLog);
const worker = connection.worker(queueNames.steps, async () => Promise.resolve(), {});
const found = await worker.waitUntilReady().then(
  () => 'a connection',
  (error: unknown) => String(error),
);
process.stdout.write(`${found}\n`);
await delay(200);
process.stdout.write('still here\n');
process.exit();
