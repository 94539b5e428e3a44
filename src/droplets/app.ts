// The default app: only the droplet sagas.
import { defineApp } from '../saga/app.ts';
import { adoptDroplet, destroyDroplet, provisionDroplet } from '../steps/catalog.ts';

/** Commands and the web need the definitions alone: DigitalOcean's client is loaded by a worker. */
export const dropletApp = defineApp({ sagas: [provisionDroplet, destroyDroplet, adoptDroplet], deps: async (context) => (await import('./deps.ts')).dropletDeps(context) });
