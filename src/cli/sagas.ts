// `sagas` lists sagas; `saga <id>` shows one with its timeline, and follows it where it is told to.
import type { Client } from '../client/client.ts';
import { unlessAborted } from '../platform/deadline.ts';
import { hasInventory } from '../processes/inventory.ts';
import type { App } from '../saga/app.ts';
import type { Saga } from '../saga/saga.ts';
import type { Surface } from '../saga/words.ts';
import { followSaga } from './follow.ts';
import { drain } from './plain-progress.ts';
import type { FilterOptions } from './saga-filter.ts';
import { toSagaFilter } from './saga-filter.ts';
import { formatSaga, formatSagas } from './saga-text.ts';
import { complain, terminalWidth, write } from './output.ts';
import { follow, reportEnd, sayingThatItGoesOn, withClient } from './start-and-follow.ts';
import { requireSagaId, resolveSagaId } from './saga-id.ts';

export async function listSagasCommand(app: App, { limit, json, ...filter }: FilterOptions & { limit: number; json?: boolean }): Promise<number> {
  // What is wrong with the options is said before anything is connected to.
  toSagaFilter(filter, 0);
  return withClient(app, async (client, { surface, subjectFields }) => {
    const sagas = await client.list({ ...toSagaFilter(filter, Date.now()), subjectFields, limit });
    const leases = hasInventory(app) ? await client.leasesOf(sagas.map(({ id }) => id)) : new Map<string, never>();
    const withLease = (saga: Saga) => ({ ...surface.redact.saga(saga), leaseUntil: leases.get(saga.id)?.leaseUntil ?? null });
    write(json === true ? JSON.stringify(sagas.map(withLease)) : formatSagas(sagas, surface, { leases, now: new Date(), maxWidth: terminalWidth() }));
    return 0;
  });
}

export async function showSagaCommand(app: App, given: string, options: { follow?: boolean; json?: boolean }, stop: AbortSignal): Promise<number> {
  requireSagaId(given);
  return withClient(app, async (client, { maxPolls, surface }) => {
    const sagaId = await unlessAborted(stop, resolveSagaId(client, given));
    const saga = await unlessAborted(stop, client.get(sagaId));
    if (saga === null) {
      complain(`saga ${sagaId} not found`);
      return 1;
    }
    if (options.follow === true) {
      if (options.json === true) return followAsJson(client, sagaId, surface, stop);
      return reportEnd(await follow({ title: saga.name, sagaId, client, maxPolls, surface }, {}, stop), {}, surface);
    }
    const [events, leases] = await unlessAborted(stop, Promise.all([client.events(sagaId), hasInventory(app) ? client.leasesOf([sagaId]) : new Map<string, never>()]));
    const lease = leases.get(sagaId);
    write(options.json === true ? JSON.stringify({ ...surface.redact.saga(saga), leaseUntil: lease?.leaseUntil ?? null, events }) : formatSaga(saga, events, surface, lease === undefined ? undefined : { ...lease, now: new Date() }));
    return 0;
  }, stop);
}

/** JSON Lines, as a stream has no end that one document could wait for: `{"event": …}` for each event, at last `{"saga": …}`. */
async function followAsJson(client: Client, sagaId: string, surface: Surface, stop: AbortSignal): Promise<number> {
  let shown = 0;
  const saga = await sayingThatItGoesOn(sagaId, () =>
    drain(followSaga(client, sagaId, stop, surface), ({ events }) => {
      for (const event of events.slice(shown)) write(JSON.stringify({ event }));
      shown = events.length;
    }),
  );
  write(JSON.stringify({ saga: surface.redact.saga(saga) }));
  return saga.status === 'completed' ? 0 : 1;
}
