// Cancelling and retrying many sagas: first which ones it would be, then, when that is confirmed, what came of each.
import type { SagaStatus } from '../../saga/saga.ts';
import type { SagaPage } from '../../saga/search.ts';
import type { BulkAnswer } from '../api/bulk.ts';
import type { Html } from '../html.ts';
import { html } from '../html.ts';
import type { ListFilter } from './filter.ts';
import { addressOf, fieldsOf } from './filter.ts';
import { badge, dropletIdOf, hidden, subjectOf } from './parts.ts';

export type BulkAction = 'cancel' | 'retry';

/** On which sagas an action has an effect. */
export const affected: Readonly<Record<BulkAction, readonly SagaStatus[]>> = { cancel: ['pending', 'running'], retry: ['stuck'] };

/** So many in one go: with a person waiting for the answer. */
export const BULK_LIMIT = 200;

/** Which sagas it would be, and the button that does it. */
export function renderDryRun(action: BulkAction, filter: ListFilter, matched: number, page: SagaPage): Html {
  const count = page.sagas.length;
  const back = html`<a class="button" href="${addressOf('/sagas', filter)}" data-up>Back</a>`;
  if (count === 0) return html`<h1>Nothing to ${action}</h1><p>No saga that matches could be ${action === 'cancel' ? 'cancelled' : 'retried'}.</p><p>${back}</p>`;
  const sagas = count === 1 ? 'saga' : 'sagas';
  const droplets = page.sagas.filter((saga) => saga.name !== 'destroy_droplet' && dropletIdOf(saga) !== null).length;
  const rows = page.sagas.map((saga) => html`<tr><td>${badge(saga.status)}</td><td><a href="/sagas/${saga.id}">${subjectOf(saga)}</a></td><td>${saga.name} <code>${saga.saga8}</code></td><td><code>${dropletIdOf(saga)}</code></td></tr>`);
  const more = matched > count ? html`<p class="notice">${matched} match; one go takes ${count} of them, the newest first.</p>` : null;
  const effect =
    action === 'cancel'
      ? html`<p>Their steps are undone, last first${droplets === 0 ? '' : `; ${droplets} ${droplets === 1 ? 'droplet is' : 'droplets are'} destroyed, with all data`}. A rollback cannot be stopped.</p>`
      : html`<p>Each gets all attempts of its compensation again. Retry when what they failed for is put right.</p>`;
  const why = action === 'cancel' ? html`<label>Reason, for the record <input name="reason" maxlength="1000" autocomplete="off"></label>` : null;
  return html`<h1>${action === 'cancel' ? 'Roll back' : 'Retry'} ${count} ${sagas}?</h1>${more}${effect}
<form method="post" action="/sagas/bulk" class="bulk">${hidden([...fieldsOf(filter), ['action', action]])}${why}
<div class="actions">${back}<button class="${action === 'cancel' ? 'danger' : 'primary'}" type="submit">${action === 'cancel' ? 'Roll back' : 'Retry'} ${count} ${sagas}</button></div></form>
<div class="wide"><table><thead><tr><th scope="col">Status</th><th scope="col">Saga</th><th scope="col">Kind</th><th scope="col">Droplet</th></tr></thead><tbody>${rows}</tbody></table></div>`;
}

/** What came of each. */
export function renderBulkDone(action: BulkAction, filter: ListFilter, answer: BulkAnswer): Html {
  const accepted = answer.sagas.filter(({ result }) => result === 'accepted').length;
  const rows = answer.sagas.map(({ sagaId, result, why }) => html`<tr><td><a href="/sagas/${sagaId}"><code>${sagaId}</code></a></td><td>${result}</td><td>${why}</td></tr>`);
  const again = answer.remaining > 0 ? html`<p class="notice">${answer.remaining} more match. <a href="${addressOf('/sagas/bulk', filter, { action })}">Go on with those</a></p>` : null;
  return html`<h1>${accepted} of ${answer.sagas.length} ${action === 'cancel' ? 'are being rolled back' : 'are tried again'}</h1>${again}
<div class="wide"><table><thead><tr><th scope="col">Saga</th><th scope="col">Result</th><th scope="col">Why</th></tr></thead><tbody>${rows}</tbody></table></div>
<p><a class="button" href="${addressOf('/sagas', filter)}" data-up>Back to the list</a></p>`;
}
