// One saga: what it is, what goes on and what to do about it, its timeline, and everything that is known of it.
import type { SagaLease } from '../../inventory/lease.ts';
import type { AuditRow } from '../../saga/audit.ts';
import type { Saga } from '../../saga/saga.ts';
import { currentStep, isAtRest, isCancellable, isStuckForward } from '../../saga/saga.ts';
import { sagaTookMs } from '../../saga/took.ts';
import type { Memo } from '../../saga/step.ts';
import type { StoredEvent } from '../../saga/events.ts';
import type { SagaWords, Surface } from '../../saga/words.ts';
import { describeEnd, statusWords, titleOf } from '../../saga/words.ts';
import { formatDuration, formatRunning } from '../../platform/duration.ts';
import { shortTextOf, withShortTexts } from '../../platform/text.ts';
import type { Html } from '../html.ts';
import { html, longText } from '../html.ts';
import type { InspectedJob } from '../../queues/step-queues.ts';
import type { JobPlace } from '../ports.ts';
import { leaseField } from './lease-choices.ts';
import { badgeOf, progress, subjectLink } from './parts.ts';
import type { Entry } from './timeline.ts';
import { requestOf, withoutRequest } from './timeline.ts';
import { renderTimeline } from './timeline-view.ts';
import { ago, formatTime, inTime } from './times.ts';
import { describeWait } from './waits.ts';

/** The job that is due, as its queue has it. `gone`: the queue has none; `unknown`: it could not be asked. */
export type DueJob = Readonly<{ kind: 'there' } & InspectedJob> | Readonly<{ kind: 'gone' | 'unknown' }>;

export type SagaView = Readonly<{
  saga: Saga;
  words: SagaWords;
  surface: Surface;
  /** The database's clock. */
  now: Date;
  /** When it acts next as far as the database knows, in milliseconds. */
  dueInMs: number;
  memo: Memo;
  events: readonly StoredEvent[];
  entries: readonly Entry[];
  audit: readonly AuditRow[];
  /** Null when it is at rest. */
  job: DueJob | null;
  /** Since when it is due, and no worker has it; null: one has, or it is not due, or nobody knows. */
  untakenSince: Date | null;
  /** It waits for something that only a person can put right. */
  isHeld: boolean;
  /** Its queue is paused. */
  isPaused: boolean;
  /** The lease of the droplet that it provisioned; null: there is none (any more), or no droplet yet. */
  lease: SagaLease | null;
  place: (job: { revision: number; direction: 'forward' | 'backward' }) => JobPlace;
  mayOperate: boolean;
  /** Whether droplets have pages. */
  hasDroplets: boolean;
  /** Names of the secrets that must be given again to run it again; null: it cannot be run again. */
  secretsToRerun: readonly string[] | null;
  /** What a button that was pressed came to. */
  told: string | null;
}>;

const SLOWLY_MS = 10_000;

// An input that a saga accepts is shown whole. There may be hundreds of events: the detail of one is cut earlier.
const DOCUMENT_LENGTH = 64 * 1024;
const EVENT_LENGTH = 10_000;

/** The page's content. */
export function renderSaga(view: SagaView): Html {
  const { saga, now } = view;
  const events = isAtRest(saga.status) ? null : html` data-events="/v1/sagas/${saga.id}/events"`;
  return html`<p class="crumbs"><a href="/sagas" data-up>Sagas</a></p>
${view.told === null ? null : html`<p class="notice" role="status">${view.told}</p>`}
<div id="live" data-now="${now.toISOString()}" data-revision="${saga.revision}" data-status="${statusWords[saga.status]}: ${currentStep(saga)}"${events}${refresh(view)}>
<div class="title"><h1>${titleOf(view.words, saga)}</h1>${badgeOf(saga, view.words, view.isHeld)}${view.mayOperate ? buttons(view) : null}</div>
${goesOn(view)}
${facts(view)}
<section aria-labelledby="timeline"><h2 id="timeline">Timeline</h2>${renderTimeline(saga, view.entries, now, view.place)}</section>
${known(view)}
</div>
${view.mayOperate ? dialogs(view) : null}
<p class="keys"><kbd>u</kbd> back to the list <kbd>/</kbd> search</p>`;
}

/** Polls write no event: the page looks again when the job is due. A stuck saga may be resumed elsewhere. */
function refresh({ saga, job, dueInMs }: SagaView): Html | null {
  if (saga.status === 'completed' || saga.status === 'compensated') return null;
  const nextMs = job?.kind === 'there' ? job.dueInMs : dueInMs;
  return html` data-refresh-ms="${saga.status === 'stuck' ? SLOWLY_MS : Math.min(SLOWLY_MS, Math.max(1_000, nextMs + 700))}"`;
}

function buttons({ saga, lease, words, secretsToRerun }: SagaView): Html {
  const retry = saga.status === 'stuck' ? html`<button class="primary" type="button" popovertarget="retry">Retry…</button>` : null;
  const cancel = isCancellable(saga) ? html`<button class="danger" type="button" popovertarget="cancel">Cancel…</button>` : null;
  const renew = isRenewable(lease, words, saga) ? html`<button type="button" popovertarget="renew">Renew lease…</button>` : null;
  const rerun = secretsToRerun === null ? null : html`<button class="primary" type="button" popovertarget="rerun">Run again…</button>`;
  return html`${retry}${rerun}${renew}${cancel}`;
}

function isRenewable(lease: SagaLease | null, words: SagaWords, saga: Saga): lease is SagaLease {
  return lease !== null && lease.expiredAt === null && words.subject?.(saga).id !== null;
}

/** Opened by the browser itself, without a script; outside of what is renewed, so that nobody's typing is lost. */
function dialogs({ saga, words, lease, secretsToRerun }: SagaView): Html {
  return html`${isCancellable(saga) ? cancelDialog(saga, words) : null}${saga.status === 'stuck' ? retryDialog(saga) : null}${
    isRenewable(lease, words, saga) ? renewDialog(saga, words, lease) : null}${secretsToRerun === null ? null : rerunDialog(saga, words, secretsToRerun)}`;
}

function renewDialog(saga: Saga, words: SagaWords, { leaseLimit }: SagaLease): Html {
  const limit = leaseLimit === null ? null : html` No renewal goes beyond ${formatTime(leaseLimit)}.`;
  return html`<form id="renew" popover class="dialog" method="post" action="/sagas/${saga.id}/lease" aria-labelledby="renew-title"><h2 id="renew-title">Renew the lease of ${titleOf(words, saga)}?</h2>
<p>The lease ends no sooner than you choose here. A renewal never shortens it.${limit}</p>
${leaseField()}
<div class="actions"><button type="button" popovertarget="renew" popovertargetaction="hide">Not now</button><button class="primary" type="submit">Renew</button></div></form>`;
}

function rerunDialog(saga: Saga, words: SagaWords, secrets: readonly string[]): Html {
  const fields = secrets.map((field) => html`<label><code>${field}</code> <textarea name="${field}" rows="6" required autocomplete="off" spellcheck="false"></textarea></label>`);
  const why = secrets.length === 0 ? null : html`<p>Give ${secrets.join(' and ')} again: arcadia-cloud erased ${secrets.length === 1 ? 'it' : 'them'} when this saga was rolled back, and keeps no copy.</p>`;
  return html`<form id="rerun" popover class="dialog" method="post" action="/sagas/${saga.id}/rerun" aria-labelledby="rerun-title"><h2 id="rerun-title">Run ${titleOf(words, saga)} again?</h2>
<p>A new saga starts with the same input. Fix the cause of the rollback first.</p>${why}${fields}
<div class="actions"><button type="button" popovertarget="rerun" popovertargetaction="hide">Not now</button><button class="primary" type="submit">Run again</button></div></form>`;
}

function cancelDialog(saga: Saga, words: SagaWords): Html {
  return html`<form id="cancel" popover class="dialog" method="post" action="/sagas/${saga.id}/cancel" aria-labelledby="cancel-title"><h2 id="cancel-title">Roll back ${titleOf(words, saga)}?</h2>
<p>Its steps are undone in reverse order. ${words.cancelled(saga)} A rollback cannot be stopped.</p>
<label>Reason (kept in the audit) <input name="reason" maxlength="1000" autocomplete="off"></label>
<div class="actions"><button type="button" popovertarget="cancel" popovertargetaction="hide">Keep it</button><button class="danger" type="submit">Roll it back</button></div></form>`;
}

function retryDialog(saga: Saga): Html {
  const step = html`<code>${currentStep(saga)}</code>`;
  return html`<form id="retry" popover class="dialog" method="post" action="/sagas/${saga.id}/retry" aria-labelledby="retry-title"><h2 id="retry-title">${isStuckForward(saga) ? 'Try again?' : 'Resume the rollback?'}</h2>
<p>${isStuckForward(saga) ? html`Step ${step}` : html`Undoing ${step}`} gets all its attempts again. It is safe to repeat.</p>
<div class="actions"><button type="button" popovertarget="retry" popovertargetaction="hide">Not yet</button><button class="primary" type="submit">Retry</button></div></form>`;
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
      return html`<div class="now ${view.isHeld ? 'bad' : 'live'}"><p><b>${sentence(describeWait(saga, view.surface, last, { memo: memoOf(view), reason: view.job?.kind === 'there' ? view.job.reason : undefined }))}.</b> ${view.isHeld ? null : nextAct(view)}</p>${reason(saga, 'Reason for the rollback')}</div>`;
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

function capital(text: string): string {
  return text.charAt(0).toUpperCase() + text.slice(1);
}

export function memoOf({ job, memo }: Pick<SagaView, 'job' | 'memo'>): Memo {
  return job?.kind === 'there' ? { ...memo, ...job.memo } : memo;
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
${quote('Last answer', said)}
${isForward ? null : reason(saga, 'Reason for the rollback')}
<p><b>What to do:</b> fix the cause that the error names${words.causes === undefined ? '' : ` (${words.causes})`}, then press <b>Retry</b>. Retrying is safe: steps that are done are not repeated.${orGiveUp}</p></div>`;
}

function reason({ error }: Saga, title: string): Html | null {
  return error === null ? null : quote(error.code === 'cancelled' ? title : `${title} (${error.code} in ${error.step})`, shortTextOf(error.message));
}

function quote(what: string, said: string): Html {
  const request = requestOf(said);
  return html`<p class="quote"><span>${what}:</span> <q>${withoutRequest(said)}</q>${request === null ? null : html` <span class="request">request <code>${request}</code></span>`}</p>`;
}

function facts(view: SagaView): Html {
  const { saga, now } = view;
  const subject = view.words.subject?.(saga);
  const outputs = view.words.outputs?.(saga);
  const all: [string, Html | null][] = [
    ['Saga', html`${saga.name} ${code(saga.id)}`],
    ['Step', html`${progress(saga)}${isAtRest(saga.status) && saga.status !== 'stuck' ? null : html` · attempt ${saga.status === 'stuck' ? saga.attempt : saga.attempt + 1}`}`],
    ...(subject === undefined ? [] : [[capital(subject.kind), subject.id === null ? code(null) : html`${subjectLink(saga, view.words, view.hasDroplets)} <a href="/sagas?q=${subject.id}">all its sagas</a>`] as [string, Html]]),
    ...(outputs === undefined ? [] : [[outputs.name, outputs.values.length === 0 ? code(null) : html`${outputs.values.map((value) => html`<code>${value}</code> `)}`] as [string, Html]]),
    ['Lease', view.lease === null ? null : leaseFact(view.lease, now)],
    ['Started', html`${ago(saga.createdAt, now)} <span class="exact">${formatTime(saga.createdAt)}</span>`],
    ['Finished', saga.finishedAt === null ? null : html`${ago(saga.finishedAt, now)} <span class="exact">after ${formatDuration(sagaTookMs(saga) ?? 0)}</span>`],
    ['Requested by', code(saga.requestedBy)],
    ['Waits for', saga.waitsFor === null ? null : html`<a href="/sagas/${saga.waitsFor}">saga ${code(saga.waitsFor)}</a>`],
    ['Runs again', saga.rerunOf === null ? null : html`<a href="/sagas/${saga.rerunOf}">saga ${code(saga.rerunOf)}</a>, which was rolled back`],
    ['Was run again as', saga.rerunAs === null ? null : html`<a href="/sagas/${saga.rerunAs}">saga ${code(saga.rerunAs)}</a>`],
    ['Started by', saga.startedBy === null ? null : html`<span title="proven by credentials or by the database">${code(saga.startedBy)}</span>`],
    ['Idempotency key', code(saga.idempotencyKey)],
    ['Job', view.job === null ? null : jobLink(view)],
  ];
  return html`<dl class="facts">${all.map(([name, value]) => (value === null ? null : html`<div><dt>${name}</dt><dd>${value}</dd></div>`))}</dl>`;
}

function leaseFact({ leaseUntil, expiredAt }: SagaLease, now: Date): Html {
  const exact = html` <span class="exact">${formatTime(leaseUntil)}</span>`;
  if (expiredAt !== null) return html`expired ${ago(expiredAt, now)}${exact}`;
  const leftMs = leaseUntil.getTime() - now.getTime();
  return leftMs > 0 ? html`ends ${inTime(leftMs, now)}${exact}` : html`ended ${ago(leaseUntil, now)}${exact}`;
}

function code(value: string | null): Html {
  return value === null || value === '' ? html`<span class="none">none</span>` : html`<code>${value}</code>`;
}

function jobLink({ saga, place, job }: SagaView): Html {
  const { queue, id } = place({ revision: saga.revision, direction: saga.status === 'compensating' ? 'backward' : 'forward' });
  return job?.kind === 'there' ? html`<a href="/queues/queue/${queue}/${id}">in ${queue}</a>` : html`<a href="/queues/queue/${queue}">${queue}</a>`;
}

function known({ saga, surface, audit, events, now }: SagaView): Html {
  const shown = surface.redact.saga(saga);
  const rows = audit.map(({ at, actor, databaseRole, action, detail }) => html`<tr><td>${ago(at, now)}</td><td><code>${actor}</code></td><td>${action}</td><td>${shortTextOf(detail['reason'] ?? detail['path'])}</td><td>${databaseRole === null ? null : html`<code>${databaseRole}</code>`}</td></tr>`);
  const all = events.map((event) => html`<tr><td>${event.seq}</td><td><time datetime="${event.at.toISOString()}">${formatTime(event.at)}</time></td><td>${event.kind}</td><td>${event.step}</td><td><code>${longText(JSON.stringify(withShortTexts(surface.redact.value(event.detail))), EVENT_LENGTH)}</code></td></tr>`);
  return html`<section aria-labelledby="audit"><h2 id="audit">Audit</h2>${audit.length === 0 ? html`<p class="none">No actions recorded.</p>` : html`<div class="wide"><table><thead><tr><th scope="col">When</th><th scope="col">Who</th><th scope="col">What</th><th scope="col">Why</th><th scope="col">Database role</th></tr></thead><tbody>${rows}</tbody></table></div>`}</section>
<div class="two"><section aria-labelledby="input"><h2 id="input">Input</h2><pre tabindex="0">${longText(JSON.stringify(withShortTexts(shown.input), null, 2), DOCUMENT_LENGTH)}</pre></section>
<section aria-labelledby="context"><h2 id="context">Context</h2><pre tabindex="0">${longText(JSON.stringify(withShortTexts(shown.context), null, 2), DOCUMENT_LENGTH)}</pre></section></div>
<details id="events"><summary>All ${events.length} events</summary><div class="wide" tabindex="0"><table><thead><tr><th scope="col">#</th><th scope="col">At</th><th scope="col">Event</th><th scope="col">Step</th><th scope="col">Detail</th></tr></thead><tbody>${all}</tbody></table></div></details>`;
}
