// `renew` extends the lease of a droplet.
import { LeaseError } from '../inventory/lease.ts';
import { formatDuration } from '../platform/duration.ts';
import { MAX_LEASE_S } from '../platform/longest-lease.ts';
import type { App } from '../saga/app.ts';
import { requireInventory } from './app.ts';
import { complain, write } from './output.ts';
import { requester } from './requester.ts';
import { withClient } from './start-and-follow.ts';
import { UsageError, requireDropletId, requireSeconds } from './usage-error.ts';

export async function renewCommand(app: App, dropletId: string, options: { ttl: string; json?: boolean }): Promise<number> {
  requireInventory(app);
  requireDropletId(dropletId);
  const ttlS = requireSeconds('--ttl', options.ttl);
  if (ttlS < 1 || ttlS > MAX_LEASE_S) throw new UsageError(`--ttl: expected 1s to 366d, found ${options.ttl}`);
  return withClient(app, async (client) => {
    try {
      const lease = await client.renewLease(Number(dropletId), { ttlS, by: requester() });
      if (options.json === true) write(JSON.stringify(lease));
      else write(`the lease of droplet ${dropletId} ends at ${lease.leaseUntil.toISOString()}, in ${formatDuration(lease.leaseUntil.getTime() - Date.now())}`);
      return 0;
    } catch (error) {
      if (!(error instanceof LeaseError)) throw error;
      complain(error.message);
      return 1;
    }
  });
}
