// `worker` runs sagas until it is stopped or cannot continue.
import { requireClosedMetrics } from '../platform/closed-ports.ts';
import { createLog } from '../platform/create-log.ts';
import { loadConfigFor } from '../processes/inventory.ts';
import { startWorkerHttp } from '../processes/worker-http.ts';
import { startWorker } from '../processes/worker.ts';
import type { App } from '../saga/app.ts';
import { needsOf } from '../saga/extension.ts';
import { startUnlessStopped, untilEnd, whyOf } from './stop.ts';

export async function workerCommand(app: App, stopped: AbortSignal): Promise<number> {
  const config = loadConfigFor(app, process.env, ['DATABASE_URL', ...needsOf(app)]);
  const log = createLog(config.logLevel);
  const { metricsPort } = config.worker;
  const readers = requireClosedMetrics(config);
  const worker = await startUnlessStopped(stopped, () => startWorker(config, log, undefined, app, stopped));
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
  // Logged at every log level, because a supervisor may wait for it.
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
  const stop = await untilEnd(stopped, worker.cannotGoOn);
  if (stop.exitCode === 0) log.info({ why: stop.why }, 'worker stopping: waiting for running steps');
  else log.fatal({ why: stop.why }, 'worker cannot continue: exiting, so that its supervisor starts another one');
  await worker.close();
  http?.close();
  log.info('worker stopped');
  return stop.exitCode;
}
