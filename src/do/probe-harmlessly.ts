// Probes circuits by requests that have no effect.
import type { DigitalOceanClient } from './client.ts';
import type { Ending } from './circuit-rules.ts';
import type { HarmlessProbe } from './circuits.ts';
import { endingOf } from './circuits.ts';

/** Creates the probe. Its requests go out at once, whatever circuits are open and however little budget is left. */
export function harmlessProbe(client: DigitalOceanClient): HarmlessProbe {
  const digitalOcean = client.at('now');
  return ({ kind, request, fields }) => (kind === 'account_full' ? lookForRoom(digitalOcean) : endingOf(() => digitalOcean.tryOut(request ?? '', fields)));
}

/** `rejected`: the account has no room for another droplet. If that is not to be learned so, only a create can tell. */
async function lookForRoom(digitalOcean: DigitalOceanClient): Promise<Ending> {
  let hasRoom = true;
  const ending = await endingOf(async () => {
    const [{ dropletLimit }, droplets] = await Promise.all([digitalOcean.getAccount(), digitalOcean.countDroplets()]);
    hasRoom = dropletLimit === null || droplets < dropletLimit;
  });
  if (ending.outcome === 'unauthorized') return { ...ending, outcome: 'done' };
  return hasRoom ? ending : { ...ending, outcome: 'rejected' };
}
