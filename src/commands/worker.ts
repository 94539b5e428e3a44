// `migrate`, `worker` and `sandbox`: the processes of a deployment, one each.
import { checkSession } from '../check-session.ts';
import { loadConfig, requireClosedMetrics } from '../config.ts';
import { openDatabase } from '../db.ts';
import { untilAborted } from '../deadline.ts';
import type { SandboxOptions } from '../do/sandbox/server.ts';
import { startSandbox } from '../do/sandbox/server.ts';
import { createLog } from '../log.ts';
import { migrate } from '../migrate.ts';
import { migrateQueues, queueStoreOf } from '../queues/connection.ts';
import { startWorkerHttp } from '../worker-http.ts';
import { startWorker } from '../worker.ts';
import { write } from './start-and-follow.ts';
import { startUnlessStopped, whyOf } from './stop.ts';

export async function migrateCommand(options: { json?: boolean }): Promise<number> {
  const config = loadConfig(process.env, ['DATABASE_URL']);
  const queueStore = queueStoreOf(config);
  const db = openDatabase(config.databaseUrl ?? '', { max: 2 });
  try {
    await checkSession(db, config.databaseUrl ?? '', createLog('warn', 2));
    const applied = await migrate(db, config.environment);
    await migrateQueues(queueStore);
    if (options.json === true) write(JSON.stringify({ environment: config.environment, applied }));
    else write(applied.length === 0 ? `up to date (environment ${config.environment})` : `applied: ${applied.join(', ')} (environment ${config.environment})`);
    return 0;
  } finally {
    await db.close();
  }
}

export async function workerCommand(stopped: AbortSignal): Promise<number> {
  const config = loadConfig(process.env, ['DATABASE_URL', 'DIGITALOCEAN_TOKEN']);
  const log = createLog(config.logLevel);
  const { metricsPort } = config.worker;
  const readers = requireClosedMetrics(config);
  const worker = await startUnlessStopped(stopped, () => startWorker(config, log, undefined, undefined, stopped));
  if (worker === null) {
    log.info({ why: whyOf(stopped.reason) }, 'worker stopped before it was ready');
    return 0;
  }
  let http: Awaited<ReturnType<typeof startWorkerHttp>> | null = null;
  try {
    if (metricsPort !== null) http = await startWorkerHttp({ host: config.web.host, port: metricsPort, readers, metrics: worker.metrics, log });
  } catch (error) {
    await worker.close();
    throw error;
  }
  // Said at every log level: a supervisor may wait for it.
  log.child({}, { level: 'info' }).info(
    {
      worker: worker.name,
      ...(http === null ? {} : { metrics: `${http.url}/metrics` }),
      queues: config.redisNodes === null ? 'postgres' : 'redis',
      concurrency: config.worker.concurrency,
      environment: config.environment,
      encryptionKeyIds: config.keyRing.keys.map(({ id }) => id),
    },
    'worker ready',
  );
  const stop = await Promise.race([
    untilAborted(stopped).then((reason) => ({ why: whyOf(reason), exitCode: 0 })),
    worker.cannotGoOn.then((why) => ({ why, exitCode: 1 })),
  ]);
  if (stop.exitCode === 0) log.info({ why: stop.why }, 'worker stopping: running steps may finish');
  else log.fatal({ why: stop.why }, 'worker cannot go on: ending, so that its supervisor starts another');
  await worker.close();
  http?.close();
  log.info('worker stopped');
  return stop.exitCode;
}

export async function sandboxCommand(options: SandboxOptions, stop: AbortSignal): Promise<number> {
  const sandbox = await startSandbox(options);
  write(`sandbox ready at ${sandbox.url}`);
  write(`use it with: DIGITALOCEAN_API_URL=${sandbox.url} DIGITALOCEAN_TOKEN=${options.token ?? 'any'}`);
  await untilAborted(stop);
  await sandbox.close();
  return 0;
}
