// The app that runs where no other is named: the droplet sagas alone.
import { defineApp } from '../saga/app.ts';
import { destroyDroplet, provisionDroplet } from '../steps/catalog.ts';

/** Commands and the web need the definitions alone: DigitalOcean's client is loaded by a worker. */
export const dropletApp = defineApp({ sagas: [provisionDroplet, destroyDroplet], deps: async (context) => (await import('./deps.ts')).dropletDeps(context) });
