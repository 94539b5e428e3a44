// The list of sagas: search, filters, counts, and a row for each saga with what it waits for.
import type { Saga } from '../../saga/saga.ts';
import { currentStep, isAtRest, isStuckForward } from '../../saga/saga.ts';
import type { Overview } from '../../saga/overview.ts';
import type { StoredEvent } from '../../saga/store.ts';
import type { Surface } from '../../saga/words.ts';
import { titleOf } from '../../saga/words.ts';
import { formatDuration } from '../../platform/duration.ts';
import { shortTextOf } from '../../platform/text.ts';
import type { Html } from '../html.ts';
import { html } from '../html.ts';
import type { InspectedJob } from '../../queues/step-queues.ts';
import type { ListFilter } from './filter.ts';
import { addressOf, isNarrowed } from './filter.ts';
import type { GroupedPage } from './grouped-search.ts';
import { groups } from './grouped-search.ts';
import { badgeOf, progress, subjectIdOf } from './parts.ts';
import { withoutRequest } from './timeline.ts';
import { ago, inTime } from './times.ts';
import { describeWait, untakenForMs } from './waits.ts';

export type SagaList = Readonly<{
  filter: ListFilter;
  names: readonly string[];
  surface: Surface;
  overview: Overview;
  page: GroupedPage;
  isFirstPage: boolean;
  lastEvents: ReadonlyMap<string, StoredEvent>;
  /** The jobs of those under way, by the saga's id. */
  jobs: ReadonlyMap<string, InspectedJob>;
  /** Those that wait for something that only a person can put right. */
  held: ReadonlySet<string>;
  /** Names of the workers that live; null: not known. */
  aliveWorkers: readonly string[] | null;
  mayOperate: boolean;
}>;

/** The page's content. */
export function renderList(list: SagaList): Html {
  const { overview, page, filter } = list;
  const rows = page.groups.map(
    ({ group, sagas }) => html`<tbody><tr class="group"><th colspan="6" scope="rowgroup">${group.title}</th></tr>${sagas.map((saga) => row(saga, list))}</tbody>`,
  );
  const table = html`<table class="sagas"><thead><tr><th scope="col">Status</th><th scope="col">Saga</th><th scope="col">About</th><th scope="col">Step</th><th scope="col">What goes on</th><th scope="col">Started</th></tr></thead>${rows}</table>`;
  return html`<h1 class="unseen">Sagas</h1>
${form(list)}
<div id="live" data-now="${overview.now.toISOString()}" data-refresh-ms="5000">
${counts(list)}
${page.groups.length === 0 ? empty(filter) : table}
<nav class="pages" aria-label="Pages">${list.isFirstPage ? null : html`<a href="${addressOf('/sagas', filter)}">First page</a>`}${page.nextCursor === null ? null : html`<a rel="next" href="${addressOf('/sagas', filter, { cursor: page.nextCursor })}">Next page</a>`}</nav>
</div>
<p class="keys"><kbd>/</kbd> search <kbd>j</kbd> <kbd>k</kbd> or arrows: walk the list <kbd>Enter</kbd> open</p>`;
}

function form({ filter, names }: SagaList): Html {
  const isOpen = filter.name !== undefined || filter.tag !== undefined || filter.from !== undefined || filter.before !== undefined;
  const options = names.map((name) => html`<option value="${name}"${filter.name === name ? html` selected` : null}>${name}</option>`);
  const statuses = (filter.status ?? []).map((status) => html`<input type="hidden" name="status" value="${status}">`);
  return html`<form class="search" role="search" action="/sagas" method="get">${statuses}
<label class="unseen" for="q">Search</label><input id="q" type="search" name="q" value="${filter.q}" maxlength="255" placeholder="Id or name" autocomplete="off" spellcheck="false">
<button type="submit">Search</button>
<details${isOpen ? html` open` : null}><summary>Filters</summary><div class="fields">
<label>Saga <select name="name"><option value="">any</option>${options}</select></label>
<label>Tag <input name="tag" value="${filter.tag}" maxlength="255"></label>
<label>Started from (UTC) <input type="datetime-local" name="from" value="${localTime(filter.from)}"></label>
<label>before (UTC) <input type="datetime-local" name="before" value="${localTime(filter.before)}"></label>
<button type="submit">Apply</button></div></details>
${isNarrowed(filter) ? html`<a class="clear" href="/sagas">Clear</a>` : null}</form>`;
}

function localTime(time: Date | undefined): string | null {
  return time === undefined ? null : time.toISOString().slice(0, 16);
}

function counts({ filter, overview, mayOperate }: SagaList): Html {
  const total = Object.values(overview.counts).reduce((sum, count) => sum + count, 0);
  const current = html` aria-current="true"`;
  const links = groups.flatMap(({ statuses }) => statuses).map((status) => {
    const isChosen = filter.status?.includes(status) ?? false;
    return html`<a class="count ${status}" href="${addressOf('/sagas', { ...filter, status: [status] })}"${isChosen ? current : null}><b>${overview.counts[status] ?? 0}</b> ${status}</a>`;
  });
  const bulk = (action: 'cancel' | 'retry', text: string) => html`<a class="button${action === 'cancel' ? ' danger' : ''}" href="${addressOf('/sagas/bulk', filter, { action })}">${text}</a>`;
  const { stuck = 0, pending = 0, running = 0 } = overview.counts;
  const shown = (status: 'stuck' | 'pending' | 'running', count: number) => (filter.status === undefined || filter.status.includes(status) ? count : 0);
  const buttons = [
    shown('stuck', stuck) > 0 ? bulk('retry', `Retry ${stuck} stuck…`) : null,
    isNarrowed(filter) && shown('pending', pending) + shown('running', running) > 0 ? bulk('cancel', `Cancel ${shown('pending', pending) + shown('running', running)}…`) : null,
  ];
  return html`<div class="bar"><nav class="counts" aria-label="By status"><a class="count" href="${addressOf('/sagas', { ...filter, status: undefined })}"${filter.status === undefined ? current : null}><b>${total}</b> all</a>${links}</nav>${mayOperate ? html`<div class="actions">${buttons}</div>` : null}</div>`;
}

function row(saga: Saga, list: SagaList): Html {
  const { now } = list.overview;
  const words = list.surface.words(saga);
  const subjectId = subjectIdOf(saga, words);
  return html`<tr class="${saga.status}"><td>${badgeOf(saga, words, list.held.has(saga.id))}</td>
<td class="subject"><a href="/sagas/${saga.id}" data-walk>${titleOf(words, saga)}</a><small>${saga.name} <code>${saga.saga8}</code></small></td>
<td class="about">${subjectId === null ? html`<span class="none">none</span>` : html`<code>${subjectId}</code>`}</td>
<td class="at">${progress(saga)}</td>
<td class="what">${goesOn(saga, list)}</td>
<td class="age">${ago(saga.createdAt, now)}</td></tr>`;
}

function goesOn(saga: Saga, { lastEvents, jobs, overview, aliveWorkers, held, surface }: SagaList): Html {
  const last = lastEvents.get(saga.id);
  const job = jobs.get(saga.id);
  if (saga.status === 'stuck') return html`<b>${isStuckForward(saga) ? `${currentStep(saga)} failed` : 'undoing failed'}</b>: ${withoutRequest(shortTextOf(last?.detail['message'], 'no reason is on record'))}`;
  if (!isAtRest(saga.status)) {
    const untakenMs = untakenForMs(saga, job ?? null, { aliveWorkers, now: overview.now });
    if (untakenMs !== null) {
      const since = new Date(overview.now.getTime() - untakenMs);
      return html`<b class="untaken">no worker has taken it</b> for <time datetime="${since.toISOString()}" data-for>${formatDuration(Math.round(untakenMs / 1_000) * 1_000)}</time>`;
    }
    return html`${describeWait(saga, surface, last, job ?? { memo: {} })}${job === undefined || held.has(saga.id) ? null : html` <span class="next">next ${inTime(job.dueInMs, overview.now)}</span>`}`;
  }
  const took = saga.finishedAt === null ? null : html`<span class="next">took ${formatDuration(saga.finishedAt.getTime() - saga.createdAt.getTime())}</span>`;
  return html`${saga.error === null ? null : html`${withoutRequest(shortTextOf(saga.error.message))} `}${took}`;
}

function empty(filter: ListFilter): Html {
  return isNarrowed(filter)
    ? html`<p class="empty">No saga matches. <a href="/sagas">Show all</a></p>`
    : html`<p class="empty">No saga was started yet. Start one with <code>arcadia start</code>, or over the <a href="/docs">HTTP API</a>.</p>`;
}
