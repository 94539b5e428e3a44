// Whether an app has an inventory, and what that means for the configuration and the web process. An app without droplet
// steps loads no droplet code.
import type { Plans, PlansOf } from '../droplets/plans/open-plans.ts';
import type { Config, ConfigNeed } from '../platform/config.ts';
import { loadConfig } from '../platform/config.ts';
import type { Database } from '../platform/db.ts';
import type { App } from '../saga/app.ts';
import { familiesOf } from '../saga/extension.ts';
import type { OutcomeSource } from '../saga/outcome-source.ts';
import { sagaOutcomes } from '../saga/saga-outcomes.ts';

/** Whether any step of the app works with droplets. Only such an app has an inventory, with syncs, drift and orphans. */
export function hasInventory({ catalog }: Pick<App, 'catalog'>): boolean {
  return familiesOf(catalog).some(({ name }) => name === 'droplets');
}

/**
 * Parses the environment for an app, like `loadConfig`.
 *
 * @throws {ConfigError}
 */
export function loadConfigFor(app: Pick<App, 'catalog'>, environment: NodeJS.ProcessEnv, needs: readonly ConfigNeed[] = []): Config {
  return loadConfig(environment, needs, { usesDigitalOcean: hasInventory(app) });
}

/** Opens the planning of provisions; null if the app has no such saga. */
export async function openPlansOf(app: Pick<App, 'catalog'>, how: PlansOf): Promise<Plans | null> {
  if (!hasInventory(app)) return null;
  const { openPlans } = await import('../droplets/plans/open-plans.ts');
  const plans = openPlans(how);
  return Object.hasOwn(app.catalog, plans.sagaName) ? plans : null;
}

/** What the callers of an app are told of. */
export async function outcomeSourcesOf(app: Pick<App, 'catalog'>): Promise<readonly OutcomeSource[]> {
  if (!hasInventory(app)) return [sagaOutcomes(app.catalog)];
  const { inventoryOutcomes } = await import('../inventory/outcomes.ts');
  return [sagaOutcomes(app.catalog), ...inventoryOutcomes];
}

/** Opens the web process's views of the inventory; null if the app has none. */
export async function openInventory(app: Pick<App, 'catalog'>, db: Database) {
  if (!hasInventory(app)) return null;
  const { openInventoryViews } = await import('../inventory/views.ts');
  return openInventoryViews(db);
}
