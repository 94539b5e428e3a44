// The app that runs where none is named: the droplet sagas. Loaded when it is needed, so that a process with an app of its own
// loads no droplets.
import type { App } from '../saga/app.ts';

export async function loadDefaultApp(): Promise<App> {
  return (await import('../droplets/app.ts')).dropletApp;
}
