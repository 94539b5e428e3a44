// `sagas` lists sagas; `saga <id>` shows one with its timeline, and follows it where it is told to.
import type { Client } from '../client/client.ts';
import { unlessAborted } from '../platform/deadline.ts';
import type { App } from '../saga/app.ts';
import type { Surface } from '../saga/words.ts';
import { followSaga } from './follow.ts';
import { drain } from './plain-progress.ts';
import type { FilterOptions } from './saga-filter.ts';
import { toSagaFilter } from './saga-filter.ts';
import { formatSaga, formatSagas } from './saga-text.ts';
import { complain, write } from './output.ts';
import { follow, reportEnd, sayingThatItGoesOn, withClient } from './start-and-follow.ts';
import { requireSagaId } from './usage-error.ts';

export async function listSagasCommand(app: App, { limit, json, ...filter }: FilterOptions & { limit: number; json?: boolean }): Promise<number> {
  // What is wrong with the options is said before anything is connected to.
  toSagaFilter(filter, 0);
  return withClient(app, async (client, { surface, subjectFields }) => {
    const sagas = await client.list({ ...toSagaFilter(filter, Date.now()), subjectFields, limit });
    write(json === true ? JSON.stringify(sagas.map(surface.redact.saga)) : formatSagas(sagas, surface));
    return 0;
  });
}

export async function showSagaCommand(app: App, sagaId: string, options: { follow?: boolean; json?: boolean }, stop: AbortSignal): Promise<number> {
  requireSagaId(sagaId);
  return withClient(app, async (client, { maxPolls, surface }) => {
    const saga = await unlessAborted(stop, client.get(sagaId));
    if (saga === null) {
      complain(`there is no saga ${sagaId}`);
      return 1;
    }
    if (options.follow === true) {
      if (options.json === true) return followAsJson(client, sagaId, surface, stop);
      return reportEnd(await follow({ title: saga.name, sagaId, client, maxPolls, surface }, {}, stop), {}, surface);
    }
    const events = await unlessAborted(stop, client.events(sagaId));
    write(options.json === true ? JSON.stringify({ ...surface.redact.saga(saga), events }) : formatSaga(saga, events, surface));
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
