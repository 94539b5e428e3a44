// `protect` and `unprotect` set whether a droplet may be destroyed.
import { ProtectionError } from '../inventory/protection.ts';
import type { App } from '../saga/app.ts';
import { requireInventory } from './app.ts';
import { complain, write } from './output.ts';
import { requester } from './requester.ts';
import { withClient } from './start-and-follow.ts';
import { requireDropletId } from './usage-error.ts';

export async function protectCommand(app: App, dropletId: string, options: { protected: boolean; json?: boolean }): Promise<number> {
  requireInventory(app);
  requireDropletId(dropletId);
  return withClient(app, async (client) => {
    try {
      const result = await client.setProtection(Number(dropletId), { protected: options.protected, by: requester() });
      if (options.json === true) write(JSON.stringify(result));
      else write(`droplet ${dropletId} ${result.changed ? 'is now' : 'was already'} ${result.protected ? 'protected' : 'unprotected'}`);
      return 0;
    } catch (error) {
      if (!(error instanceof ProtectionError)) throw error;
      complain(error.message);
      return 1;
    }
  });
}
