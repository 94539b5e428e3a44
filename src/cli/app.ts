// The app that a command works with: the one that --app or ARCADIA_APP names, else the droplet sagas.
import { resolve } from 'node:path';
import { pathToFileURL } from 'node:url';
import { ConfigError } from '../platform/config-error.ts';
import { dropletApp } from '../steps/catalog.ts';
import type { App } from '../saga/app.ts';
import { isApp } from '../saga/app.ts';

/**
 * Loads an app.
 *
 * @param file the module whose default export it is, from the current folder; null: the droplet sagas
 * @throws {ConfigError} when it cannot be loaded, or exports no app
 */
export async function loadApp(file: string | null): Promise<App> {
  if (file === null) return dropletApp;
  let module: unknown;
  try {
    module = await import(pathToFileURL(resolve(file)).href);
  } catch (error) {
    throw new ConfigError(`ARCADIA_APP: ${file} cannot be loaded: ${error instanceof Error ? error.message : String(error)}`);
  }
  const app = typeof module === 'object' && module !== null && 'default' in module ? module.default : undefined;
  if (!isApp(app)) throw new ConfigError(`ARCADIA_APP: ${file}: expected an app as its default export: export default defineApp({ sagas: […], deps: … })`);
  return app;
}
