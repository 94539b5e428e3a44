// `sandbox` simulates DigitalOcean's API until stopped.
import { unlessAborted, untilAborted } from '../platform/deadline.ts';
import { listenFailure } from '../platform/listen-failure.ts';
import type { SandboxOptions } from '../sandbox/server.ts';
import { startSandbox } from '../sandbox/server.ts';
import { parseProfile, settingsOfProfile } from '../sandbox/profile.ts';
import { write } from './output.ts';
import { readText } from './read-text.ts';
import { UsageError } from './usage-error.ts';

/**
 * @param options.profile file with a profile to replay; the other options override it
 */
export async function sandboxCommand({ profile, ...options }: SandboxOptions & { profile?: string }, stop: AbortSignal): Promise<number> {
  const played = profile === undefined ? { faults: {} } : settingsOfProfile(parseProfile(await unlessAborted(stop, readProfile(profile))));
  const sandbox = await startSandbox({ ...played, ...options, faults: { ...played.faults, ...options.faults } }).catch((error: unknown) => {
    const { host = '127.0.0.1', port = 0 } = options;
    throw listenFailure(error, { host, port, settings: { port: '--port', host: '--host' }, whatToDo: 'Stop what listens there, or choose another one with --port.' });
  });
  write(`sandbox ready at ${sandbox.url}`);
  write(`use it with: DIGITALOCEAN_API_URL=${sandbox.url} DIGITALOCEAN_TOKEN=${options.token ?? 'any'}`);
  await untilAborted(stop);
  await sandbox.close();
  return 0;
}

/** @throws {UsageError} */
async function readProfile(file: string): Promise<string> {
  try {
    return await readText(file);
  } catch (error) {
    throw new UsageError(`--profile: ${file} cannot be read: ${error instanceof Error ? error.message : String(error)}`);
  }
}
