// Loads the app for a command: the one named by --app or ARCADIA_APP, else the droplet sagas.
import { resolve } from 'node:path';
import { pathToFileURL } from 'node:url';
import { ConfigError } from '../platform/config-error.ts';
import { loadDefaultApp } from '../processes/default-app.ts';
import { hasInventory } from '../processes/inventory.ts';
import type { App } from '../saga/app.ts';
import { isApp } from '../saga/app.ts';
import type { NamedSaga } from '../saga/app.ts';
import { UsageError } from './usage-error.ts';

/**
 * Loads an app.
 *
 * @param file the module that exports it by default, relative to the current folder; null: the droplet sagas
 * @param setting where the file was named, for error messages
 * @throws {ConfigError} if it cannot be loaded or exports no app
 */
export async function loadApp(file: string | null, setting: '--app' | 'ARCADIA_APP'): Promise<App> {
  if (file === null) return loadDefaultApp();
  let module: unknown;
  try {
    module = await import(pathToFileURL(resolve(file)).href);
  } catch (error) {
    throw new ConfigError(`${setting}: ${file} cannot be loaded: ${error instanceof Error ? error.message : String(error)}`);
  }
  const app = typeof module === 'object' && module !== null && 'default' in module ? module.default : undefined;
  if (!isApp(app)) throw new ConfigError(`${setting}: ${file}: expected an app as its default export: export default defineApp({ sagas: […], deps: … })`);
  return { ...app, openDeps: async (context) => openNamingFile(file, () => app.openDeps(context)) };
}

/** Adds the app's file to errors from its `deps`. Configuration errors stay configuration errors. */
async function openNamingFile<T>(file: string, open: () => Promise<T>): Promise<T> {
  try {
    return await open();
  } catch (error) {
    const message = `${file}: deps of the app failed: ${error instanceof Error ? error.message : String(error)}`;
    throw error instanceof Error && error.name === 'ConfigError' ? new ConfigError(message) : new Error(message, { cause: error });
  }
}

/**
 * Finds a saga of the app.
 *
 * @throws {UsageError} for an unknown name, listing the known ones
 */
export function requireSaga({ sagas }: App, name: string): NamedSaga {
  const saga = sagas.find((one) => one.name === name);
  if (saga === undefined) throw new UsageError(`no saga is called ${JSON.stringify(name)}; expected one of ${sagas.map((one) => one.name).join(', ')}`);
  return saga;
}

/**
 * @throws {UsageError} if no step of the app works with droplets
 */
export function requireInventory(app: App): void {
  if (!hasInventory(app)) throw new UsageError('this command needs an app with droplet steps; this app has none');
}
