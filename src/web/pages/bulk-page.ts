// Cancel, retry or rerun many sagas: first a preview that lists them with the reason of each and a box to leave it out, then the result
// of each. The form sends the ids that were shown and ticked, so sagas that were started in between are not touched.
import { counted, shortTextOf } from '../../platform/text.ts';
import type { StoredEvent } from '../../saga/events.ts';
import type { Saga, SagaStatus } from '../../saga/saga.ts';
import { currentStep, isAtRest } from '../../saga/saga.ts';
import type { SagaPage } from '../../saga/search.ts';
import type { BulkAction, BulkAnswer, BulkResult } from '../api/bulk.ts';
import { leftOut } from '../api/bulk.ts';
import type { Surface } from '../../saga/words.ts';
import { titleOf } from '../../saga/words.ts';
import type { Html } from '../html.ts';
import { html } from '../html.ts';
import type { ListFilter } from './filter.ts';
import { addressOf, fieldsOf } from './filter.ts';
import { badge, hidden, subjectIdOf, withCode } from './parts.ts';
import { withoutRequest } from './timeline.ts';

const sagasOf = (count: number): string => (count === 1 ? '1 saga' : `${count} sagas`);

const wordsOf: Readonly<Record<BulkAction, Readonly<{ nothing: string; done: string; verb: (count: number) => string; button: string; some: (isOne: boolean) => string }>>> = {
  cancel: { nothing: 'Nothing to cancel', done: 'cancelled', verb: (count) => `Roll back ${sagasOf(count)}`, button: 'Roll back selected', some: (isOne) => `${isOne ? 'is' : 'are'} being rolled back` },
  retry: { nothing: 'Nothing to retry', done: 'retried', verb: (count) => `Retry ${sagasOf(count)}`, button: 'Retry selected', some: (isOne) => `${isOne ? 'is' : 'are'} tried again` },
  rerun: { nothing: 'Nothing to run again', done: 'run again', verb: (count) => `Run ${sagasOf(count)} again`, button: 'Run selected again', some: (isOne) => `${isOne ? 'runs' : 'run'} again` },
};

/** Renders the preview: the sagas, and the button that acts on them. */
export function renderDryRun(action: BulkAction, filter: ListFilter, { matched, page, lastEvents, surface }: { matched: number; page: SagaPage; lastEvents: ReadonlyMap<string, StoredEvent>; surface: Surface }): Html {
  const left = page.sagas.map((saga) => ({ saga, why: leftOut(surface, action, saga) })).filter(({ why }) => why !== null);
  const offered = page.sagas.filter((saga) => !left.some((one) => one.saga === saga));
  const count = offered.length;
  const { verb, button, done } = wordsOf[action];
  const back = html`<a class="button" href="${addressOf('/sagas', filter)}" data-up>Back</a>`;
  if (count === 0) return html`<h1>${wordsOf[action].nothing}</h1><p>No matching saga can be ${done}${left.length === 0 ? null : ' in bulk'}.</p>${leftOutTable(left, surface)}<p>${back}</p>`;
  const rows = offered.map((saga) => {
    const words = surface.words(saga);
    return html`<tr><td><input type="checkbox" name="id" value="${saga.id}" checked aria-label="${titleOf(words, saga)} ${saga.saga8}"></td><td class="state">${badge(saga.status)}</td><td class="name"><a href="/sagas/${saga.id}">${titleOf(words, saga)}</a></td><td class="kind">${saga.name} <code>${saga.saga8}</code></td><td class="about"><code>${subjectIdOf(saga, words)}</code></td><td class="why">${reasonOf(saga, lastEvents.get(saga.id))}</td></tr>`;
  });
  const more = matched > page.sagas.length ? html`<p class="notice">${matched} match. A bulk action changes at most ${page.sagas.length} sagas: these are the newest. Repeat it for the rest.</p>` : null;
  const effect = {
    cancel: () => html`<p>${count === 1 ? 'Its' : 'Their'} steps are undone in reverse order${destroyedBy(offered, surface)}. A rollback cannot be stopped.</p>`,
    retry: () => html`<p>Fix the cause, then retry. The failed step of each saga gets all its attempts again.</p>`,
    rerun: () => html`<p>A new saga starts for each, with the same input. Fix the cause of the rollbacks first. Sagas that had secrets are left out: run those again from their own pages, where you can give the secrets again.</p>`,
  }[action]();
  const why = action === 'cancel' ? html`<label>Reason (kept in the audit) <input name="reason" maxlength="1000" autocomplete="off"></label>` : null;
  return html`<h1>${verb(count)}?</h1>${more}${effect}
<form method="post" action="/sagas/bulk" class="bulk">${hidden([...fieldsOf(filter), ['action', action]])}${why}
<div class="actions">${back}<button class="${action === 'cancel' ? 'danger' : 'primary'}" type="submit">${button}</button></div>
<div class="wide" tabindex="0"><table class="chosen"><thead><tr><th scope="col"><span class="unseen">Selected</span></th><th scope="col">Status</th><th scope="col">Saga</th><th scope="col">Kind</th><th scope="col">About</th><th scope="col">${action === 'cancel' ? 'Step' : 'Why'}</th></tr></thead><tbody>${rows}</tbody></table></div></form>${leftOutTable(left, surface)}`;
}

/** Lists the sagas that a person must look at one by one. */
function leftOutTable(left: readonly Readonly<{ saga: Saga; why: string | null }>[], surface: Surface): Html | null {
  if (left.length === 0) return null;
  const rows = left.map(({ saga, why }) => html`<tr><td class="name"><a href="/sagas/${saga.id}">${titleOf(surface.words(saga), saga)}</a></td><td class="kind">${saga.name} <code>${saga.saga8}</code></td><td class="why">${why}</td></tr>`);
  return html`<h2>Left out</h2><p>The ${left.length === 1 ? 'rollback of this saga' : 'rollbacks of these sagas'} may have left something. Check it, then run ${left.length === 1 ? 'the saga' : 'each saga'} again from its own page.</p>
<div class="wide" tabindex="0"><table class="chosen"><thead><tr><th scope="col">Saga</th><th scope="col">Kind</th><th scope="col">Why</th></tr></thead><tbody>${rows}</tbody></table></div>`;
}

/** Why a saga failed, or else its step. */
function reasonOf(saga: Saga, last: StoredEvent | undefined): Html {
  const said = saga.status === 'stuck' ? shortTextOf(last?.detail['message']) : saga.status === 'compensated' ? shortTextOf(saga.error?.message) : '';
  if (said !== '') return html`${withCode(withoutRequest(said))}`;
  return isAtRest(saga.status) ? html`<span class="none">no reason is on record</span>` : html`<code>${currentStep(saga)}</code>`;
}

/** Says what the rollbacks destroy, such as "; 2 droplets are destroyed, with all data". */
function destroyedBy(sagas: SagaPage['sagas'], surface: Surface): string {
  const destroyed = sagas.flatMap((saga) => {
    const words = surface.words(saga);
    return words.cancelDestroys?.(saga) === true ? [words.subject?.(saga).kind ?? 'resource'] : [];
  });
  const kinds = [...Map.groupBy(destroyed, (kind) => kind)].map(([kind, { length }]) => counted(length, kind));
  return kinds.length === 0 ? '' : `; ${kinds.join(' and ')} ${destroyed.length === 1 ? 'is' : 'are'} destroyed, with all data`;
}

/** Renders the result of each. `remaining`: how many match the filter now. */
export function renderBulkDone(action: BulkAction, filter: ListFilter, answer: BulkAnswer, remaining: number): Html {
  const rows = answer.sagas.map(({ sagaId, result, status, why, rerunAs }) => html`<tr><td class="name"><a href="/sagas/${sagaId}"><code>${sagaId}</code></a></td><td class="kind">${result}</td><td class="state">${status === undefined ? null : badge(status)}</td><td class="why">${rerunAs === undefined ? why : html`new saga <a href="/sagas/${rerunAs}"><code>${rerunAs}</code></a>`}</td></tr>`);
  const again = remaining > 0 ? html`<p class="notice">${remaining} more ${remaining === 1 ? 'matches' : 'match'}. <a href="${addressOf('/sagas/bulk', filter, { action })}">Show ${remaining === 1 ? 'it' : 'them'}</a></p>` : null;
  return html`<h1>${summarize(action, answer)}</h1>${again}
<div class="wide" tabindex="0"><table class="chosen"><thead><tr><th scope="col">Saga</th><th scope="col">Result</th><th scope="col">Status</th><th scope="col">Why</th></tr></thead><tbody>${rows}</tbody></table></div>
<p><a class="button" href="${addressOf('/sagas', filter)}" data-up>Back to the list</a></p>`;
}

const before: Readonly<Record<SagaStatus | 'gone', string>> = {
  pending: 'had not started yet',
  running: 'was running',
  completed: 'had completed',
  compensating: 'was rolling back already',
  compensated: 'had been rolled back',
  stuck: 'was stuck',
  gone: 'no longer existed',
};

/** Such as "2 of 3 are being rolled back; 1 had completed". */
function summarize(action: BulkAction, { sagas }: BulkAnswer): string {
  const others = Map.groupBy(sagas.filter(({ result }) => result !== 'accepted'), (saga: BulkResult) => (action === 'rerun' ? notRepeated(saga) : before[saga.status ?? 'gone']));
  const accepted = sagas.length - [...others.values()].flat().length;
  const done = `${accepted} of ${sagas.length} ${wordsOf[action].some(accepted === 1)}`;
  return [done, ...[...others].map(([what, some]) => `${some.length} ${some.length === 1 ? what : what.replace(/^was /, 'were ')}`)].join('; ');
}

/** Shows the status of the new saga, if there is one. */
function notRepeated({ result, rerunAs }: BulkResult): string {
  if (result === 'not_found') return before.gone;
  return rerunAs === undefined ? 'could not be run again' : 'was run again before';
}
