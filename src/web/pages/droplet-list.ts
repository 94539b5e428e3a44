// The list of droplets: search, filters, counts, totals, and a row for each droplet.
import type { DropletState } from '../../inventory/droplet-conditions.ts';
import type { DropletList, DropletSort, ListedDroplet, Total, TotalOf } from '../../inventory/droplet-list.ts';
import type { Html } from '../html.ts';
import { html } from '../html.ts';
import type { DropletQuery } from './droplet-filter.ts';
import { addressOfDroplets, isNarrowed, placeOf, sortWords, stateWords } from './droplet-filter.ts';
import { ageOf, badgesOf, isListOutdated, isOutdated, leaseOf, number, syncNotice, usd } from './droplet-parts.ts';
import { hidden, sortHeading } from './parts.ts';

export type DropletListView = Readonly<{
  query: DropletQuery;
  list: DropletList;
  syncIntervalMs: number | null;
  /** Whether this person may let orphans be destroyed. */
  mayDestroy: boolean;
}>;

// Syncs and sagas change the list.
const REFRESH_MS = 15_000;

/** The page's content. */
export function renderDroplets(view: DropletListView): Html {
  const { list, query } = view;
  return html`<h1 class="unseen">Droplets</h1>
${form(view)}
<nav class="saved" aria-label="Saved filters" data-saved="/droplets" hidden></nav>
<div id="live"${isListOutdated(list.sync, list.now, view.syncIntervalMs) ? html` class="outdated"` : null} data-now="${list.now.toISOString()}" data-refresh-ms="${REFRESH_MS}">
${syncNotice(list.sync, list.now, view.syncIntervalMs)}
${counts(view)}
${totals(view)}
${list.droplets.length === 0 ? empty(query, list) : table(view)}
${pages(query, list)}
</div>
<p class="keys"><kbd>/</kbd> search <kbd>j</kbd> <kbd>k</kbd> or arrows: walk the list <kbd>Enter</kbd> open</p>`;
}

function form({ query, list }: DropletListView): Html {
  const { q, region, size, tag, requester, state, sort } = query;
  const isOpen = [region, size, tag, requester].some((value) => value !== undefined);
  const kept = Object.entries({ state, sort }).flatMap(([name, value]): [string, string][] => (value === undefined ? [] : [[name, value]]));
  return html`<form class="search" role="search" action="/droplets" method="get">${hidden(kept)}
<label class="unseen" for="q">Search</label><input id="q" type="search" name="q" value="${q}" maxlength="255" placeholder="Name, id or address" autocomplete="off" spellcheck="false">
<button type="submit">Search</button>
<details${isOpen ? html` open` : null}><summary>Filters</summary><div class="fields">
<label>Region <select name="region"><option value="">any</option>${options(list.regions, region)}</select></label>
<label>Size <select name="size"><option value="">any</option>${options(list.sizes, size)}</select></label>
<label>Tag <input name="tag" value="${tag}" maxlength="255" autocomplete="off" spellcheck="false"></label>
<label>Requested by <input name="requester" value="${requester}" maxlength="255" placeholder="http:ada" autocomplete="off" spellcheck="false"></label>
<button type="submit">Apply</button></div></details>
${isNarrowed(query) ? html`<a class="clear" href="/droplets">Clear</a>` : null}</form>`;
}

/** Includes the selected value even if no droplet has it. */
function options(values: readonly string[], chosen: string | undefined): Html[] {
  return [...new Set([...values, ...(chosen === undefined ? [] : [chosen])])].map((value) => html`<option value="${value}"${value === chosen ? html` selected` : null}>${value}</option>`);
}

function counts({ query, list, mayDestroy }: DropletListView): Html {
  const link = (state: DropletState | undefined, words: string, count: number | null) =>
    html`<a class="count${isTelling(state, list.counts) ? ' telling' : ''}" href="${addressOfDroplets({ ...query, state, page: undefined })}"${query.state === state ? html` aria-current="true"` : null}>${count === null ? null : html`<b>${number(count)}</b> `}${words}</a>`;
  const chips = Object.entries(stateWords).map(([state, words]) => {
    // oxlint-disable-next-line typescript/no-unsafe-type-assertion -- a key of the words above
    const key = state as DropletState;
    const count = key === 'gone' ? null : list.counts[key];
    return link(key, key === 'orphan' && count === 1 ? 'orphan' : words, count);
  });
  const { surplus, unexplained } = list.counts;
  const review = surplus + unexplained === 0 ? null : html`<a class="button" href="/droplets/orphans">Review orphans…</a>`;
  const approve = mayDestroy && surplus > 0 ? html`<a class="button danger" href="/droplets/orphans">Approve orphans…</a>` : review;
  return html`<div class="bar"><nav class="counts" aria-label="By state">${link(undefined, 'all', list.counts.all)}${chips}</nav>${approve === null ? null : html`<div class="actions">${approve}</div>`}</div>`;
}

/** Whether somebody has to look at the droplets of a state. */
function isTelling(state: DropletState | undefined, { drifted, orphan, surplus, unexplained }: DropletList['counts']): boolean {
  return (state === 'drifted' && drifted > 0) || (state === 'orphan' && orphan > 0 && surplus + unexplained > 0);
}

/** The price of all that the filter finds, never a sum that silently leaves something out. */
function priceOf({ usdPerHour, unpriced, count }: Total): Html {
  if (count > 0 && unpriced === count) return html`price not known`;
  const more = unpriced === 0 ? null : html` <span class="unpriced">+ ${number(unpriced)} with a price that is not known</span>`;
  return html`<b>${usd(usdPerHour)}</b> an hour${more}`;
}

function totals({ query, list }: DropletListView): Html | null {
  if (query.state === 'gone') return null;
  const by = (words: string, field: 'region' | 'tag' | 'requester', rows: readonly TotalOf[]) => {
    const lines = rows.map(({ value, count, usdPerHour, unpriced }) => html`<tr><th scope="row">${value === null ? html`<span class="none">not known</span>` : html`<a href="${addressOfDroplets({ ...query, [field]: value, page: undefined })}">${value}</a>`}</th><td>${number(count)}</td><td>${unpriced === count ? html`<span class="none">not known</span>` : html`${usd(usdPerHour)}${unpriced === 0 ? null : html` <span class="none">+ ${number(unpriced)} not known</span>`}`}</td></tr>`);
    const table = html`<table><thead><tr><th scope="col">${words}</th><th scope="col">Droplets</th><th scope="col">$/h</th></tr></thead><tbody>${lines}</tbody></table>`;
    return rows.length === 0 ? null : html`<div class="wide" tabindex="0">${table}</div>`;
  };
  return html`<div class="totals"><p><b>${number(list.total.count)}</b> ${list.total.count === 1 ? 'droplet' : 'droplets'}${list.total.count === 0 ? null : html`, ${priceOf(list.total)}`}</p>
${list.total.count === 0 ? null : html`<details id="totals"><summary>Totals by region, tag and requester</summary><div class="three">${by('Region', 'region', list.byRegion)}${by('Tag', 'tag', list.byTag)}${by('Requested by', 'requester', list.byRequester)}</div></details>`}</div>`;
}

function table(view: DropletListView): Html {
  const { query, list } = view;
  const { sort, isDescending } = placeOf(query);
  const heading = (column: DropletSort) => {
    const isSorted = sort === column;
    const next = isSorted && !isDescending ? `-${column}` as const : column;
    return sortHeading(sortWords[column], addressOfDroplets({ ...query, sort: next, page: undefined }), isSorted ? (isDescending ? 'descending' : 'ascending') : null);
  };
  return html`<table class="droplets"><thead><tr>${heading('name')}${heading('address')}${heading('region')}${heading('size')}${heading('price')}${heading('age')}${heading('lease')}<th scope="col">State</th><th scope="col">Saga</th></tr></thead><tbody>${list.droplets.map((droplet) => row(droplet, view))}</tbody></table>`;
}

function row(droplet: ListedDroplet, { list, syncIntervalMs }: DropletListView): Html {
  const { providerId, name, region, sizeSlug, addresses, priceUsdPerHour, createdAt, lastSeenAt, deletedAt, sagaId, requestedBy } = droplet;
  const { now } = list;
  const none = html`<span class="none">–</span>`;
  const [address, ...others] = addresses;
  // If the whole inventory is out of date, the notice above says so.
  const isBehind = deletedAt === null && isOutdated(lastSeenAt, now, syncIntervalMs) && !isListOutdated(list.sync, now, syncIntervalMs);
  return html`<tr class="${deletedAt === null ? '' : 'gone'}"><td class="name"><a href="/droplets/${providerId}" data-walk>${name}</a><small><code>${providerId}</code></small></td>
<td class="address">${address === undefined ? none : html`<code>${address}</code>`}${others.length === 0 ? null : html`<small> +${others.length}</small>`}</td>
<td class="region">${region ?? none}</td><td class="size">${sizeSlug ?? none}</td>
<td class="price">${priceUsdPerHour === null ? html`<span class="none">not known</span>` : usd(priceUsdPerHour)}</td>
<td class="age">${ageOf(createdAt, now)}</td>
<td class="lease">${leaseOf(droplet, now)}</td>
<td class="state">${badgesOf(droplet)}${isBehind ? html`<span class="badge unseen-droplet">not seen for ${ageOf(lastSeenAt, now)}</span>` : null}</td>
<td class="saga">${sagaId === null ? none : html`<a href="/sagas/${sagaId}"><code>${sagaId.slice(0, 8)}</code></a>`}${requestedBy === null ? null : html`<small>${requestedBy}</small>`}</td></tr>`;
}

function pages(query: DropletQuery, list: DropletList): Html {
  const { page, limit } = placeOf(query);
  const last = Math.max(1, Math.ceil(list.found / limit));
  const link = (to: number, words: string, rel: string | null) => html`<a${rel === null ? null : html` rel="${rel}"`} href="${addressOfDroplets({ ...query, page: to === 1 ? undefined : to })}">${words}</a>`;
  return html`<nav class="pages" aria-label="Pages">${page > 1 ? html`${link(1, 'First page', null)}${link(Math.min(page - 1, last), 'Previous page', 'prev')}` : null}${last > 1 ? html`<span>Page ${number(page)} of ${number(last)}</span>` : null}${page < last ? html`${link(page + 1, 'Next page', 'next')}${link(last, 'Last page', null)}` : null}</nav>`;
}

function empty(query: DropletQuery, list: DropletList): Html {
  if (list.found > 0) return html`<p class="empty">The list ends before this page. <a href="${addressOfDroplets({ ...query, page: undefined })}">First page</a></p>`;
  if (isNarrowed(query)) return html`<p class="empty">No droplet matches. <a href="/droplets">Show all</a></p>`;
  return html`<p class="empty">${list.sync.readAt === null ? 'No droplets are on record yet.' : 'The account has no droplets.'} Provision one with <code>arcadia provision</code>, or over the <a href="/docs">HTTP API</a>.</p>`;
}
