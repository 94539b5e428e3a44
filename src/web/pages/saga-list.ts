// The list of sagas: search, filters, counts, and a row for each saga with what it waits for.
import type { SagaLease } from '../../inventory/lease.ts';
import type { Saga, SagaStatus } from '../../saga/saga.ts';
import { currentStep, isAtRest, isStuckForward } from '../../saga/saga.ts';
import { sagaTookMs } from '../../saga/took.ts';
import type { FailureCause } from '../../saga/failure-causes.ts';
import { MOST_FAILURES } from '../../saga/failure-causes.ts';
import type { Hold } from '../../saga/holds.ts';
import type { Overview } from '../../saga/overview.ts';
import type { StoredEvent } from '../../saga/events.ts';
import type { Surface } from '../../saga/words.ts';
import { statusWords, titleOf } from '../../saga/words.ts';
import { formatDuration, formatRunning } from '../../platform/duration.ts';
import { shortTextOf } from '../../platform/text.ts';
import type { Html } from '../html.ts';
import { html } from '../html.ts';
import type { InspectedJob } from '../../queues/step-queues.ts';
import type { ListFilter } from './filter.ts';
import { addressOf, addressOfSaga, isNarrowed, localTime } from './filter.ts';
import type { GroupedPage } from './grouped-search.ts';
import { groups } from './grouped-search.ts';
import type { BulkAction } from '../api/bulk.ts';
import { badgeOf, progress, sortHeading, subjectLink } from './parts.ts';
import { withoutRequest } from './timeline.ts';
import { ago, inTime } from './times.ts';
import { describeWait, untakenForMs } from './waits.ts';

export type SagaList = Readonly<{
  filter: ListFilter;
  names: readonly string[];
  surface: Surface;
  overview: Overview;
  page: GroupedPage;
  /** Failures by cause: those of one saga alone are left to the list. */
  causes: readonly FailureCause[];
  /** Where this page of the list begins; undefined: it is the first. */
  cursor: string | undefined;
  /** The name by which this person is on record, such as `http:ada`. */
  actor: string;
  lastEvents: ReadonlyMap<string, StoredEvent>;
  /** The jobs of those under way, by the saga's id. */
  jobs: ReadonlyMap<string, InspectedJob>;
  /** Those that wait for something that only a person can put right. */
  held: ReadonlyMap<string, Hold>;
  /** The leases of what the sagas provisioned, by the saga's id. */
  leases: ReadonlyMap<string, SagaLease>;
  /** Names of the workers that live; null: not known. */
  aliveWorkers: readonly string[] | null;
  mayOperate: boolean;
  /** Whether droplets have pages. */
  hasDroplets: boolean;
}>;

/** The page's content. */
export function renderList(list: SagaList): Html {
  const { overview, page, filter } = list;
  const rows = page.groups.map(
    ({ group, sagas }) => html`<tbody><tr class="group"><th colspan="6" scope="rowgroup">${group.title}</th></tr>${sagas.map((saga) => row(saga, list))}</tbody>`,
  );
  const { sort } = filter;
  const byStatus = sortHeading('Status', addressOf('/sagas', { ...filter, sort: undefined }), sort === undefined ? 'other' : null);
  const by = (words: string, column: 'saga' | 'about' | 'age') => {
    const sorted = sort === column ? 'ascending' : sort === `-${column}` ? 'descending' : null;
    return sortHeading(words, addressOf('/sagas', { ...filter, sort: sorted === 'ascending' ? `-${column}` as const : column }), sorted);
  };
  const table = html`<table class="sagas"><thead><tr>${byStatus}${by('Saga', 'saga')}${by('About', 'about')}<th scope="col">Step</th><th scope="col">Activity</th>${by('Started', 'age')}</tr></thead>${rows}</table>`;
  return html`<h1 class="unseen">Sagas</h1>
${form(list)}
${saved(list)}
<div id="live" data-now="${overview.now.toISOString()}" data-refresh-ms="5000">
${counts(list)}
${causesOf(list)}
${page.groups.length > 0 ? table : page.nextCursor === null ? empty(filter) : html`<p class="empty">No saga matches among those searched so far. <a rel="next" href="${addressOf('/sagas', filter, { cursor: page.nextCursor })}">Search older ones</a></p>`}
<nav class="pages" aria-label="Pages">${list.cursor === undefined ? null : html`<a href="${addressOf('/sagas', filter)}">First page</a>`}${page.nextCursor === null ? null : html`<a rel="next" href="${addressOf('/sagas', filter, { cursor: page.nextCursor })}">Next page</a>`}</nav>
</div>
<p class="keys"><kbd>/</kbd> search <kbd>j</kbd> <kbd>k</kbd> or arrows: walk the list <kbd>Enter</kbd> open</p>`;
}

/** Filters that many people need, and with the script those that this person has saved in this browser. */
function saved({ filter, actor }: SagaList): Html {
  const link = (one: ListFilter, words: string) => html`<a href="${addressOf('/sagas', one)}"${addressOf('', one) === addressOf('', filter) ? html` aria-current="true"` : null}>${words}</a>`;
  return html`<nav class="saved" aria-label="Saved filters" data-saved="/sagas">${link({ requester: actor }, 'Mine')}${link({ status: ['stuck', 'compensated'] }, 'Failed')}${link({ status: ['pending', 'running', 'compensating'], sort: '-age' }, 'Longest under way')}</nav>`;
}

function form({ filter, names }: SagaList): Html {
  const isOpen = filter.name !== undefined || filter.tag !== undefined || filter.requester !== undefined || filter.from !== undefined || filter.before !== undefined;
  const options = names.map((name) => html`<option value="${name}"${filter.name === name ? html` selected` : null}>${name}</option>`);
  const sort = filter.sort === undefined ? null : html`<input type="hidden" name="sort" value="${filter.sort}">`;
  const statuses = (filter.status ?? []).map((status) => html`<input type="hidden" name="status" value="${status}">`);
  return html`<form class="search" role="search" action="/sagas" method="get">${statuses}${sort}
<label class="unseen" for="q">Search</label><input id="q" type="search" name="q" value="${filter.q}" maxlength="255" placeholder="Id or name" autocomplete="off" spellcheck="false">
<button type="submit">Search</button>
<details${isOpen ? html` open` : null}><summary>Filters</summary><div class="fields">
<label>Saga <select name="name"><option value="">any</option>${options}</select></label>
<label>Tag <input name="tag" value="${filter.tag}" maxlength="255"></label>
<label>Requested by <input name="requester" value="${filter.requester}" maxlength="255" placeholder="http:ada" autocomplete="off" spellcheck="false"></label>
<label>Started from (UTC) <input type="datetime-local" name="from" value="${localTime(filter.from)}"></label>
<label>before (UTC) <input type="datetime-local" name="before" value="${localTime(filter.before)}"></label>
<button type="submit">Apply</button></div></details>
${isNarrowed(filter) ? html`<a class="clear" href="/sagas">Clear</a>` : null}</form>`;
}

function counts({ filter, overview, mayOperate }: SagaList): Html {
  const total = Object.values(overview.counts).reduce((sum, count) => sum + count, 0);
  const inexact = Object.values(overview.inexact ?? {});
  const ofAll = inexact.includes('about') ? 'about' : inexact[0];
  const current = html` aria-current="true"`;
  const links = groups.flatMap(({ statuses }) => statuses).map((status) => {
    const isChosen = filter.status?.includes(status) ?? false;
    const isTelling = status === 'stuck' && (overview.counts[status] ?? 0) > 0;
    return html`<a class="count ${status}${isTelling ? ' telling' : ''}" href="${addressOf('/sagas', { ...filter, status: [status] })}"${isChosen ? current : null}><b>${shownCount(overview.counts[status] ?? 0, overview.inexact?.[status])}</b> ${statusWords[status]}</a>`;
  });
  const bulk = (action: BulkAction, text: string) => html`<a class="button${action === 'cancel' ? ' danger' : ''}" href="${addressOf('/sagas/bulk', filter, { action })}">${text}</a>`;
  const { stuck = 0, pending = 0, running = 0, compensated = 0 } = overview.counts;
  const shown = (status: SagaStatus, count: number) => (filter.status === undefined || filter.status.includes(status) ? count : 0);
  const buttons = [
    shown('stuck', stuck) > 0 ? bulk('retry', `Retry ${shownCount(stuck, overview.inexact?.stuck)}…`) : null,
    isNarrowed(filter) && shown('pending', pending) + shown('running', running) > 0 ? bulk('cancel', `Cancel ${shownCount(shown('pending', pending) + shown('running', running), overview.inexact?.running ?? overview.inexact?.pending)}…`) : null,
    // Some of them may have been run again: the preview counts.
    isNarrowed(filter) && shown('compensated', compensated) > 0 ? bulk('rerun', 'Run again…') : null,
  ];
  return html`<div class="bar"><nav class="counts" aria-label="By status"><a class="count" href="${addressOf('/sagas', { ...filter, status: undefined })}"${filter.status === undefined ? current : null}><b>${shownCount(total, ofAll)}</b> all</a>${links}</nav>${mayOperate ? html`<div class="actions">${buttons}</div>` : null}</div>`;
}

/** A count as people read it; an estimate has two digits that mean something. */
function shownCount(count: number, inexact: 'about' | 'at least' | undefined): string {
  if (inexact === 'at least') return `${count}+`;
  return inexact === 'about' ? `≈ ${count.toLocaleString('en', { notation: 'compact', maximumSignificantDigits: 2 })}` : `${count}`;
}

function causesOf({ causes, filter, mayOperate }: SagaList): Html | null {
  const alike = causes.filter(({ count }) => count > 1 || filter.cause !== undefined);
  if (alike.length === 0) return null;
  const rows = alike.map(({ cause, status, text, count }) => {
    const one: ListFilter = { ...filter, status: [status], cause };
    const action: BulkAction = status === 'stuck' ? 'retry' : 'rerun';
    const many = count < MOST_FAILURES ? `${count}` : `${MOST_FAILURES}+`;
    const button = html`<a class="button" href="${addressOf('/sagas/bulk', one, { action })}">${status === 'stuck' ? `Retry ${many}…` : `Run ${many} again…`}</a>`;
    return html`<li><a href="${addressOf('/sagas', one)}"><b>${many} ×</b> ${status === 'stuck' ? 'needs attention' : 'rolled back'}: ${withoutRequest(text) || 'no reason is on record'}</a>${mayOperate ? button : null}</li>`;
  });
  return html`<section class="causes" aria-labelledby="causes"><h2 id="causes">Failures by cause <small>needing attention, or rolled back in the last day</small></h2><ul>${rows}</ul></section>`;
}

function row(saga: Saga, list: SagaList): Html {
  const { now } = list.overview;
  const words = list.surface.words(saga);
  return html`<tr class="${saga.status}"><td>${badgeOf(saga, words, list.held.has(saga.id))}</td>
<td class="subject"><a href="${addressOfSaga(saga.id, { ...list.filter, cursor: list.cursor })}" data-walk>${titleOf(words, saga)}</a><small>${saga.name} <code>${saga.saga8}</code></small></td>
<td class="about">${subjectLink(saga, words, list.hasDroplets) ?? html`<span class="none">none</span>`}</td>
<td class="at">${progress(saga)}</td>
<td class="what">${goesOn(saga, list)}</td>
<td class="age">${ago(saga.createdAt, now)}</td></tr>`;
}

function goesOn(saga: Saga, { lastEvents, jobs, overview, aliveWorkers, held, leases, surface }: SagaList): Html {
  const last = lastEvents.get(saga.id);
  const job = jobs.get(saga.id);
  if (saga.status === 'stuck') return html`<b>${isStuckForward(saga) ? `${currentStep(saga)} failed` : 'undoing failed'}</b>: ${withoutRequest(shortTextOf(last?.detail['message'], 'no reason is on record'))}`;
  if (!isAtRest(saga.status)) {
    const untakenMs = untakenForMs(saga, job ?? null, { aliveWorkers, now: overview.now });
    if (untakenMs !== null) {
      const since = new Date(overview.now.getTime() - untakenMs);
      return html`<b class="untaken">no worker has taken it</b> for <time datetime="${since.toISOString()}" data-for>${formatRunning(untakenMs)}</time>`;
    }
    return html`${describeWait(saga, surface, last, job ?? { memo: {} })}${job === undefined || held.has(saga.id) ? null : html` <span class="next">${nextOf(job, overview.now)}</span>`}`;
  }
  const tookMs = sagaTookMs(saga);
  const took = tookMs === null ? null : html`<span class="next">took ${formatDuration(tookMs)}</span>`;
  return html`${saga.error === null ? null : html`${withoutRequest(shortTextOf(saga.error.message))} `}${took}${leaseLeft(leases.get(saga.id), overview.now)}`;
}

// Nearly all runs of a step end within this time.
const SOON_MS = 2_000;

/** When its job is due. One that a worker has may run for as long as its step takes. */
function nextOf({ takenBy, dueInMs, dueSinceMs }: InspectedJob, now: Date): Html {
  if (takenBy === null || dueInMs > 0) return html`next ${inTime(dueInMs, now)}`;
  if (dueSinceMs < SOON_MS) return html`running now`;
  const since = new Date(now.getTime() - dueSinceMs);
  return html`running for <time datetime="${since.toISOString()}" data-for>${formatRunning(dueSinceMs)}</time>`;
}

function leaseLeft(lease: SagaLease | undefined, now: Date): Html | null {
  if (lease === undefined) return null;
  const leftMs = lease.leaseUntil.getTime() - now.getTime();
  if (lease.expiredAt !== null) return html` <span class="next">lease expired</span>`;
  return leftMs > 0 ? html` <span class="next">lease ends ${inTime(leftMs, now)}</span>` : html` <b class="untaken">lease ended</b>`;
}

function empty(filter: ListFilter): Html {
  return isNarrowed(filter)
    ? html`<p class="empty">No saga matches. <a href="/sagas">Show all</a></p>`
    : html`<p class="empty">No sagas yet. Start one with <code>arcadia start</code>, or over the <a href="/docs">HTTP API</a>.</p>`;
}
