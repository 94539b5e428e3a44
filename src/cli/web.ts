// `web` runs the HTTP server.
import { requireClosedWeb } from '../platform/closed-ports.ts';
import { createLog } from '../platform/create-log.ts';
import { loadConfigFor } from '../processes/inventory.ts';
import { startWeb } from '../processes/web.ts';
import type { App } from '../saga/app.ts';
import { startUnlessStopped, untilEnd, whyOf } from './stop.ts';

export async function webCommand(app: App, stop: AbortSignal): Promise<number> {
  const config = loadConfigFor(app, process.env, ['DATABASE_URL']);
  requireClosedWeb(config.web);
  const log = createLog(config.logLevel);
  const web = await startUnlessStopped(stop, () => startWeb(config, log, { app, signal: stop }));
  if (web === null) {
    log.info({ why: whyOf(stop.reason) }, 'web stopped before it was ready');
    return 0;
  }
  // Logged at every log level, because a supervisor may wait for it.
  log.child({}, { level: 'info' }).info({ url: `${web.url}${config.web.basePath}`, queues: config.redisNodes === null ? 'postgres' : 'redis', environment: config.environment, encryptionKeyIds: config.keyRing.keys.map(({ id }) => id) }, 'web ready');
  const { why, exitCode } = await untilEnd(stop, web.cannotGoOn);
  if (exitCode === 0) log.info({ why }, 'web stopping: waiting for open requests');
  else log.fatal({ why }, 'web cannot continue: exiting, so that its supervisor starts another one');
  await web.close();
  log.info('web stopped');
  return exitCode;
}
