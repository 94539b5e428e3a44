// One saga: what it is, what goes on and what to do about it, its timeline, and everything that is known of it.
import type { SagaLease } from '../../inventory/lease.ts';
import type { Saga } from '../../saga/saga.ts';
import { currentStep, isAtRest, isCancellable, isStuckForward } from '../../saga/saga.ts';
import type { Memo } from '../../saga/step.ts';
import type { StoredEvent } from '../../saga/events.ts';
import type { SagaWords } from '../../saga/saga-words.ts';
import { describeEnd, leftoversOf, statusWords, titleOf } from '../../saga/words.ts';
import { formatRunning } from '../../platform/duration.ts';
import { shortTextOf } from '../../platform/text.ts';
import type { Html } from '../html.ts';
import { html } from '../html.ts';
import { dialog } from './dialog.ts';
import { addressOf, addressOfSaga } from './filter.ts';
import { renewalFields } from './lease-choices.ts';
import { badgeOf, capital, requestNote, withCode } from './parts.ts';
import type { SagaView } from './saga-facts.ts';
import { facts, known } from './saga-facts.ts';
import { requestOf, withoutRequest } from './timeline.ts';
import { renderTimeline } from './timeline-view.ts';
import { inTime } from './times.ts';
import { describeWait } from './waits.ts';

const SLOWLY_MS = 10_000;

/** The page's content. */
export function renderSaga(view: SagaView): Html {
  const { saga, now } = view;
  const events = isAtRest(saga.status) ? null : html` data-events="/v1/sagas/${saga.id}/events"`;
  return html`${crumbs(view)}
${view.told === null ? null : html`<p class="notice" role="status">${view.told}</p>`}
<div id="live" data-now="${now.toISOString()}" data-revision="${saga.revision}" data-status="${statusWords[saga.status]}: ${currentStep(saga)}"${events}${refresh(view)}>
<div class="title"><h1>${titleOf(view.words, saga)}</h1>${badgeOf(saga, view.words, view.isHeld)}${buttons(view)}</div>
${goesOn(view)}
${facts(view)}
<section aria-labelledby="timeline"><h2 id="timeline">Timeline</h2>${renderTimeline(saga, view.entries, now, view.place)}</section>
${known(view)}
</div>
${dialogs(view)}
<p class="keys"><kbd>u</kbd> back to the list${view.list === null ? null : html` <kbd>p</kbd> <kbd>n</kbd> previous, next in the list`} <kbd>/</kbd> search</p>`;
}

/** The way back to the list as it was, and to its neighbours there. */
function crumbs({ list }: SagaView): Html {
  if (list === null) return html`<p class="crumbs"><a href="/sagas" data-up>Sagas</a></p>`;
  const { query: { cursor, ...filter }, previous, next } = list;
  const up = addressOf('/sagas', filter, cursor === undefined ? {} : { cursor });
  // The neighbours may be on other pages of the list.
  const link = (id: string | null, rel: string, words: string) => (id === null ? null : html` <a rel="${rel}" data-${rel} href="${addressOfSaga(id, filter)}">${words}</a>`);
  return html`<p class="crumbs"><a href="${up}" data-up>Sagas</a>${link(previous, 'prev', 'Previous')}${link(next, 'next', 'Next')}</p>`;
}

/** Polls write no event: the page looks again when the job is due. A stuck saga may be resumed elsewhere. */
function refresh({ saga, job, dueInMs }: SagaView): Html | null {
  if (saga.status === 'completed' || saga.status === 'compensated') return null;
  const nextMs = job?.kind === 'there' ? job.dueInMs : dueInMs;
  return html` data-refresh-ms="${saga.status === 'stuck' ? SLOWLY_MS : Math.min(SLOWLY_MS, Math.max(1_000, nextMs + 700))}"`;
}

/** What this person may press. */
function actionsOf({ saga, mayOperate, mayRenew, lease, words, secretsToRerun }: SagaView) {
  return {
    retry: mayOperate && saga.status === 'stuck',
    cancel: mayOperate && isCancellable(saga),
    renew: mayRenew && isRenewable(lease, words, saga) ? lease : null,
    rerun: mayOperate ? secretsToRerun : null,
  };
}

function buttons(view: SagaView): Html {
  const actions = actionsOf(view);
  const retry = actions.retry ? html`<button class="primary" type="button" popovertarget="retry">Retry…</button>` : null;
  const cancel = actions.cancel ? html`<button class="danger" type="button" popovertarget="cancel">Cancel…</button>` : null;
  const renew = actions.renew !== null ? html`<button type="button" popovertarget="renew">Renew lease…</button>` : null;
  const rerun = actions.rerun === null ? null : html`<button class="primary" type="button" popovertarget="rerun">Run again…</button>`;
  return html`${retry}${rerun}${renew}${cancel}`;
}

function isRenewable(lease: SagaLease | null, words: SagaWords, saga: Saga): lease is SagaLease {
  return lease !== null && lease.expiredAt === null && words.subject?.(saga).id !== null;
}

/** Opened by the browser itself, without a script; outside of what is renewed, so that nobody's typing is lost. */
function dialogs(view: SagaView): Html {
  const { saga, words } = view;
  const actions = actionsOf(view);
  return html`${actions.cancel ? cancelDialog(saga, words) : null}${actions.retry ? retryDialog(saga) : null}${
    actions.renew === null ? null : renewDialog(saga, words, actions.renew)}${actions.rerun === null ? null : rerunDialog(saga, words, actions.rerun)}`;
}

function renewDialog(saga: Saga, words: SagaWords, { leaseLimit }: SagaLease): Html {
  return dialog({ id: 'renew', action: `/sagas/${saga.id}/lease`, title: `Renew the lease of ${titleOf(words, saga)}?`, no: 'Not now', yes: 'Renew' }, renewalFields(leaseLimit));
}

function rerunDialog(saga: Saga, words: SagaWords, secrets: readonly string[]): Html {
  const fields = secrets.map((field) => html`<label><code>${field}</code> <textarea name="${field}" rows="6" required autocomplete="off" spellcheck="false"></textarea></label>`);
  const why = secrets.length === 0 ? null : html`<p>Give ${secrets.join(' and ')} again: arcadia-cloud erased ${secrets.length === 1 ? 'it' : 'them'} when this saga was rolled back, and keeps no copy.</p>`;
  const leftovers = leftoversOf(words, saga);
  const check = leftovers === null ? null : html`<p><b>${leftovers}</b></p><label class="check"><input type="checkbox" name="despiteLeftovers" value="true" required> I have checked this. Run the saga again despite leftovers</label>`;
  return dialog({ id: 'rerun', action: `/sagas/${saga.id}/rerun`, title: `Run ${titleOf(words, saga)} again?`, no: 'Not now', yes: 'Run again' }, html`<p>A new saga starts with the same input. Fix the cause of the rollback first.</p>${check}${why}${fields}`);
}

function cancelDialog(saga: Saga, words: SagaWords): Html {
  return dialog({ id: 'cancel', action: `/sagas/${saga.id}/cancel`, title: `Roll back ${titleOf(words, saga)}?`, no: 'Keep it', yes: 'Roll it back', isDangerous: true }, html`<p>Its steps are undone in reverse order. ${words.cancelled(saga)} A rollback cannot be stopped.</p>
<label>Reason (kept in the audit) <input name="reason" maxlength="1000" autocomplete="off"></label>`);
}

function retryDialog(saga: Saga): Html {
  const step = html`<code>${currentStep(saga)}</code>`;
  const what = isStuckForward(saga) ? html`Step ${step}` : html`Undoing ${step}`;
  return dialog({ id: 'retry', action: `/sagas/${saga.id}/retry`, title: isStuckForward(saga) ? 'Try again?' : 'Resume the rollback?', no: 'Not yet', yes: 'Retry' }, html`<p>${what} gets all its attempts again. It is safe to repeat.</p>`);
}

function goesOn(view: SagaView): Html {
  const { saga, events } = view;
  const last = events.at(-1);
  switch (saga.status) {
    case 'stuck':
      return stuck(view, last);
    case 'completed':
      return html`<p class="now ok">${describeEnd(view.words, saga).text}</p>`;
    case 'compensated': {
      const { text, tone } = describeEnd(view.words, saga);
      return html`<div class="now ${tone}"><p>${tone === 'attention' ? html`<b>${text}</b>` : text}</p>${reason(saga, tone === 'attention' ? 'Why' : 'Reason for the rollback')}</div>`;
    }
    case 'pending':
    case 'running':
    case 'compensating':
      if (view.untakenSince !== null) return untaken(view, view.untakenSince);
      return html`<div class="now ${view.isHeld ? 'bad' : 'live'}"><p><b>${sentence(describeWait(saga, view.surface, last, { memo: memoOf(view), reason: view.job?.kind === 'there' ? view.job.reason : undefined }))}.</b> ${view.isHeld ? heldAndPaused(view) : nextAct(view)}</p>${reason(saga, 'Reason for the rollback')}</div>`;
    default:
      return saga.status satisfies never;
  }
}

/** Due, and nobody is at it. */
function untaken({ saga, now, isPaused }: SagaView, since: Date): Html {
  const forHowLong = html`<time datetime="${since.toISOString()}" data-for>${formatRunning(now.getTime() - since.getTime())}</time>`;
  const paused = isPaused ? html` Its queue is paused. Resume it on the <a href="/queues">Queues page</a>.` : null;
  return html`<div class="now wait"><p><b>No worker has taken <code>${currentStep(saga)}</code> for ${forHowLong}.</b>${paused}</p>${reason(saga, 'Reason for the rollback')}</div>`;
}

function sentence(text: string): string {
  return capital(text).replace(/\.$/, '');
}

export function memoOf({ job, memo }: Pick<SagaView, 'job' | 'memo'>): Memo {
  return job?.kind === 'there' ? { ...memo, ...job.memo } : memo;
}

/** What holds it may end by itself; a pause does not. */
function heldAndPaused({ isPaused }: SagaView): Html | null {
  return isPaused ? html`Its queue is paused, too: until somebody resumes it on the <a href="/queues">Queues page</a>, the saga does not go on.` : null;
}

function nextAct({ job, dueInMs, now, isPaused }: SagaView): Html {
  const paused = isPaused ? html` Its queue is paused. Resume it on the <a href="/queues">Queues page</a>.` : null;
  switch (job?.kind) {
    case 'there':
      return html`${job.dueInMs > 0 ? html`Due ${inTime(job.dueInMs, now)}.` : 'Due now.'}${paused}`;
    case 'gone':
      return html`Its job is not in the queue. The reconciler enqueues it ${inTime(dueInMs, now)}.${paused}`;
    case 'unknown':
    case undefined:
      return html`The queues do not answer. According to Postgres it is due ${inTime(dueInMs, now)}.`;
    default:
      return job satisfies never;
  }
}

function stuck({ saga, words }: SagaView, last: StoredEvent | undefined): Html {
  const said = shortTextOf(last?.detail['message']);
  const isForward = isStuckForward(saga);
  const step = html`<code>${currentStep(saga)}</code>`;
  const what = isForward ? html`Step ${step}` : html`Undoing ${step}`;
  const orGiveUp = isForward ? html` To give up, press <b>Cancel</b>: ${words.cancelled(saga)}` : null;
  return html`<div class="now bad"><p><b>${what} failed ${saga.attempt} ${saga.attempt === 1 ? 'time' : 'times'}. It is not tried again by itself.</b> ${words.stuck(saga)}</p>
${said === '' ? html`<p class="quote">The last error is not on record.</p>` : quote('Last answer', said)}
${isForward ? null : reason(saga, 'Reason for the rollback')}
<p><b>What to do:</b> fix the cause that the error names${words.causes === undefined ? '' : ` (${words.causes})`}, then press <b>Retry</b>. Retrying is safe: steps that are done are not repeated.${orGiveUp}</p></div>`;
}

function reason({ error }: Saga, title: string): Html | null {
  return error === null ? null : quote(error.code === 'cancelled' ? title : `${title} (${error.code} in ${error.step})`, shortTextOf(error.message));
}

function quote(what: string, said: string): Html {
  const request = requestOf(said);
  return html`<p class="quote"><span>${what}:</span> <q>${withCode(withoutRequest(said))}</q>${requestNote(request)}</p>`;
}
