// `web`: the process that answers over HTTP.
import { loadConfig, requireClosedWeb } from '../config.ts';
import { createLog } from '../log.ts';
import { startWeb } from '../web-process.ts';
import { untilStopped } from './until-stopped.ts';

export async function webCommand(): Promise<number> {
  const config = loadConfig(process.env, ['DATABASE_URL']);
  requireClosedWeb(config.web);
  const log = createLog(config.logLevel);
  const web = await startWeb(config, log);
  // Said at every log level: a supervisor may wait for it.
  log.child({}, { level: 'info' }).info({ url: web.url, queues: config.redisNodes === null ? 'postgres' : 'redis', environment: config.environment, encryptionKeyIds: config.keyRing.keys.map(({ id }) => id) }, 'web ready');
  const why = await untilStopped();
  log.info({ why }, 'web stopping: requests under way may finish');
  await web.close();
  log.info('web stopped');
  return 0;
}
