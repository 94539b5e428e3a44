// Whether an app has an inventory, and what follows from that for the configuration and the web. An app without droplet steps
// loads nothing of droplets.
import type { Config, ConfigNeed } from '../platform/config.ts';
import { loadConfig } from '../platform/config.ts';
import type { Database } from '../platform/db.ts';
import type { App } from '../saga/app.ts';
import { familiesOf } from '../saga/extension.ts';

/** Whether some step of the app works with droplets: only such an app has an inventory, with syncs, drift and orphans. */
export function hasInventory({ catalog }: Pick<App, 'catalog'>): boolean {
  return familiesOf(catalog).some(({ name }) => name === 'droplets');
}

/**
 * Parses the environment for an app, as `loadConfig` does.
 *
 * @throws {ConfigError}
 */
export function loadConfigFor(app: Pick<App, 'catalog'>, environment: NodeJS.ProcessEnv, needs: readonly ConfigNeed[] = []): Config {
  return loadConfig(environment, needs, { usesDigitalOcean: hasInventory(app) });
}

/** What the web shows of the inventory; null where the app has none. */
export async function openInventory(app: Pick<App, 'catalog'>, db: Database) {
  if (!hasInventory(app)) return null;
  const { openInventoryViews } = await import('../inventory/views.ts');
  return openInventoryViews(db);
}
