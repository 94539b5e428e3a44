// The default app: the droplet sagas. Loaded on demand, so that a process with another app loads no droplet code.
import type { App } from '../saga/app.ts';

export async function loadDefaultApp(): Promise<App> {
  return (await import('../droplets/app.ts')).dropletApp;
}
