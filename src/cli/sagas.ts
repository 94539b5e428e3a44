// `sagas` lists sagas, and watches them; `saga <id>` shows one with its timeline, and follows it where it is told to.
import type { Client } from '../client/client.ts';
import { unlessAborted } from '../platform/deadline.ts';
import { hasInventory } from '../processes/inventory.ts';
import type { App } from '../saga/app.ts';
import type { Surface } from '../saga/words.ts';
import { followSaga } from './follow.ts';
import { drain } from './plain-progress.ts';
import type { FilterOptions } from './saga-filter.ts';
import { toSagaFilter } from './saga-filter.ts';
import { formatSaga, formatSagas } from './saga-text.ts';
import { complain, terminalWidth, write } from './output.ts';
import { follow, reportEnd, sayingThatItGoesOn, withClient } from './start-and-follow.ts';
import { requireSagaId, resolveSagaId } from './saga-id.ts';
import { UsageError } from './usage-error.ts';
import type { Display, Listing } from './watch-sagas.ts';
import { openLines, openScreen, watchSagas } from './watch-sagas.ts';

const WATCH_EVERY_S = 2;

// Without `--limit`. Who gives it knows that there may be more.
const USUAL_LIMIT = 50;
// The largest `--limit`, as in src/main.ts.
const MOST_SAGAS = 1_000;

type ListOptions = FilterOptions & Readonly<{ limit?: number; json?: boolean; watch?: boolean; every?: number }>;

export async function listSagasCommand(app: App, { limit: given, json, watch, every, ...filter }: ListOptions, stop: AbortSignal): Promise<number> {
  const limit = given ?? USUAL_LIMIT;
  // What is wrong with the options is said before anything is connected to.
  toSagaFilter(filter, 0);
  if (every !== undefined && watch !== true) throw new UsageError('--every: expected --watch too');
  return withClient(app, async (client, { surface, subjectFields }) => {
    const read = async (most = limit): Promise<Listing> => {
      const sagas = await client.list({ ...toSagaFilter(filter, Date.now()), subjectFields, limit: most });
      return { sagas, leases: hasInventory(app) ? await client.leasesOf(sagas.map(({ id }) => id)) : new Map<string, never>() };
    };
    const everyMs = (every ?? WATCH_EVERY_S) * 1_000;
    const documentsOf = ({ sagas, leases }: Listing) => sagas.map((saga) => ({ ...surface.redact.saga(saga), leaseUntil: leases.get(saga.id)?.leaseUntil ?? null }));
    const tableOf = ({ sagas, leases }: Listing, maxWidth: number | null) => formatSagas(sagas, surface, { leases, now: new Date(Date.now()), maxWidth });
    if (watch === true) return watchSagas(() => read(), everyMs, openDisplay({ json, everyMs, documentsOf, tableOf }), stop);
    // One more than is shown tells whether there are more.
    const found = await unlessAborted(stop, read(limit + 1));
    const listing = { ...found, sagas: found.sagas.slice(0, limit) };
    write(json === true ? JSON.stringify(documentsOf(listing)) : tableOf(listing, terminalWidth()));
    if (given === undefined && found.sagas.length > limit) complain(`showing the newest ${limit}; there are more: --limit shows up to ${MOST_SAGAS}`);
    return 0;
  }, stop);
}

type Formats = Readonly<{ json: boolean | undefined; everyMs: number; documentsOf(listing: Listing): readonly object[]; tableOf(listing: Listing, maxWidth: number | null): string }>;

function openDisplay({ json, everyMs, documentsOf, tableOf }: Formats): Display {
  if (json === true) return openLines((listing) => documentsOf(listing).map((saga) => JSON.stringify({ saga })).join('\n'));
  if (process.stdout.isTTY) return openScreen(tableOf, everyMs);
  return openLines((listing, hasHead) => (hasHead ? tableOf(listing, null).split('\n').slice(1).join('\n') : tableOf(listing, null)));
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
    write(options.json === true ? JSON.stringify({ ...surface.redact.saga(saga), leaseUntil: lease?.leaseUntil ?? null, events }) : formatSaga(saga, events, surface, lease === undefined ? undefined : { ...lease, now: new Date(Date.now()) }));
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
