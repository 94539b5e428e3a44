// `sandbox`: an imitation of DigitalOcean's API, until it is told to stop.
import { untilAborted } from '../platform/deadline.ts';
import type { SandboxOptions } from '../sandbox/server.ts';
import { startSandbox } from '../sandbox/server.ts';
import { write } from './output.ts';

export async function sandboxCommand(options: SandboxOptions, stop: AbortSignal): Promise<number> {
  const sandbox = await startSandbox(options);
  write(`sandbox ready at ${sandbox.url}`);
  write(`use it with: DIGITALOCEAN_API_URL=${sandbox.url} DIGITALOCEAN_TOKEN=${options.token ?? 'any'}`);
  await untilAborted(stop);
  await sandbox.close();
  return 0;
}
