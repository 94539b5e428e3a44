// `sagas` lists sagas, and watches them; `saga <id>` shows one with its timeline, and follows it where it is told to.
import type { Client } from '../client/client.ts';
import { unlessAborted } from '../platform/deadline.ts';
import { hasInventory } from '../processes/inventory.ts';
import type { App } from '../saga/app.ts';
import type { Saga } from '../saga/saga.ts';
import { isAtRest } from '../saga/saga.ts';
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
import { lastAnswersOf, noLastAnswers } from './last-answers.ts';
import type { Display, Listing } from './watch-sagas.ts';
import { openLines, openScreen, showsTheNewest, watchSagas } from './watch-sagas.ts';

const WATCH_EVERY_S = 2;

// Without `--limit`. Who gives it knows that there may be more.
const USUAL_LIMIT = 50;

type ListOptions = FilterOptions & Readonly<{ limit?: number; json?: boolean; watch?: boolean; every?: number }>;

export async function listSagasCommand(app: App, { limit: given, json, watch, every, ...filter }: ListOptions, stop: AbortSignal): Promise<number> {
  const limit = given ?? USUAL_LIMIT;
  // What is wrong with the options is said before anything is connected to.
  toSagaFilter(filter, 0);
  if (every !== undefined && watch !== true) throw new UsageError('--every: expected --watch too');
  return withClient(app, async (client, { surface, subjectFields }) => {
    const read = async (): Promise<Listing> => {
      // One more than is shown tells whether there are more.
      const found = await client.list({ ...toSagaFilter(filter, Date.now()), subjectFields, limit: limit + 1 });
      const sagas = found.slice(0, limit);
      // Documents have no words for it.
      const [about, lastAnswers] = await Promise.all([aboutSagas(app, client, sagas), json === true ? noLastAnswers : lastAnswersOf(client, sagas)]);
      return { sagas, ...about, lastAnswers, isCut: given === undefined && found.length > limit };
    };
    const everyMs = (every ?? WATCH_EVERY_S) * 1_000;
    const documentsOf = ({ sagas, leases, holds }: Listing) => sagas.map((saga) => ({ ...surface.redact.saga(saga), leaseUntil: leases.get(saga.id)?.leaseUntil ?? null, held: holds.get(saga.id) ?? null }));
    const tableOf = ({ sagas, leases, holds, lastAnswers }: Listing, maxWidth: number | null) => formatSagas(sagas, surface, { leases, holds, lastAnswers, now: new Date(Date.now()), maxWidth });
    if (watch === true) return watchSagas(read, everyMs, openDisplay({ json, everyMs, documentsOf, tableOf }), stop);
    const listing = await unlessAborted(stop, read());
    write(json === true ? JSON.stringify(documentsOf(listing)) : tableOf(listing, terminalWidth()));
    if (listing.isCut) complain(showsTheNewest(listing));
    return 0;
  }, stop);
}

/** What else is known of sagas: the leases of their droplets, and what holds them. */
async function aboutSagas(app: App, client: Client, sagas: readonly Saga[]): Promise<Pick<Listing, 'leases' | 'holds'>> {
  const ids = sagas.map(({ id }) => id);
  const [leases, holds] = await Promise.all([
    hasInventory(app) ? client.leasesOf(ids) : new Map<string, never>(),
    client.holdsOf(sagas.filter(({ status }) => !isAtRest(status)).map(({ id }) => id)),
  ]);
  return { leases, holds };
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
      return reportEnd(client, await follow({ title: saga.name, sagaId, client, maxPolls, surface }, {}, stop), {}, surface);
    }
    const [events, about] = await unlessAborted(stop, Promise.all([client.events(sagaId), aboutSagas(app, client, [saga])]));
    const [lease, hold] = [about.leases.get(sagaId), about.holds.get(sagaId)];
    write(options.json === true ? JSON.stringify({ ...surface.redact.saga(saga), leaseUntil: lease?.leaseUntil ?? null, held: hold ?? null, events }) : formatSaga(saga, events, surface, { lease, hold, now: new Date(Date.now()) }));
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
