// The list of leases: what the brake against mass expiry holds, filters with counts, and a row for each droplet, the lease that ends
// first on top.
import type { LeaseChoice, LeaseOverview, LeaseRow } from '../../inventory/lease-listing.ts';
import type { Html } from '../html.ts';
import { html } from '../html.ts';
import { dialog } from './dialog.ts';
import { badge, number } from './droplet-parts.ts';
import { renewalFields } from './lease-choices.ts';
import { addressOfLeases, choiceWords } from './lease-filter.ts';
import { hidden, withCode } from './parts.ts';
import { ago, formatTime, inTime } from './times.ts';

export type LeaseListView = Readonly<{
  choice: LeaseChoice;
  /** From 1. */
  page: number;
  leases: readonly LeaseRow[];
  overview: LeaseOverview;
  /** What this person has the scope for. */
  may: Readonly<{ renew: boolean; unprotect: boolean; approve: boolean }>;
  /** The result of the action that led here; null: none did. */
  told: string | null;
}>;

/** Leases on one page. */
export const LEASES_PER_PAGE = 100;

const REFRESH_MS = 15_000;

/** The page's content. */
export function renderLeases(view: LeaseListView): Html {
  const { leases, overview, told } = view;
  return html`<h1 class="unseen">Leases</h1>
${told === null ? null : html`<p class="notice" role="status">${told}</p>`}
<div id="live" data-now="${overview.now.toISOString()}" data-refresh-ms="${REFRESH_MS}">
${brake(view)}
${keptOnes(overview)}
${counts(view)}
${leases.length === 0 ? empty(view) : table(view)}
${pages(view)}
</div>
${leases.map((lease) => dialogs(lease, view))}
<p class="keys"><kbd>j</kbd> <kbd>k</kbd> or arrows: walk the list <kbd>Enter</kbd> open</p>`;
}

/** What the brake holds; nothing while it is off. */
function brake({ overview, may }: LeaseListView): Html | null {
  const { counts: { held }, leased, heldSince, now } = overview;
  if (heldSince === null) return null;
  const act = may.approve ? html`<div class="actions"><a class="button danger" href="/leases/approve">Approve…</a></div>` : html`<p>Approving their destruction requires the scope <code>destroy</code>.</p>`;
  return html`<div class="now bad" id="brake"><p><b>${number(held)} ended leases are held, since ${ago(heldSince, now)}.</b> They are ${number(held)} of ${number(leased)} leases. When more than 20 leases and more than a fifth of all have ended, something may be wrong: Postgres may have been restored from a backup, or its clock may be wrong. So none of their droplets is destroyed until somebody approves.</p>
<p>Renew what you want to keep. Then approve the rest.</p>${act}</div>`;
}

/** Ended leases of protected droplets. */
function keptOnes({ endedProtected }: LeaseOverview): Html | null {
  if (endedProtected === 0) return null;
  const isOne = endedProtected === 1;
  return html`<div class="now wait"><p><b>The ${isOne ? 'lease of 1 protected droplet has' : `leases of ${number(endedProtected)} protected droplets have`} ended.</b> ${isOne ? 'It is' : 'They are'} not destroyed while protected. Press <i>Renew…</i> to keep a droplet, or <i>Lift protection…</i> to have it destroyed. <a href="${addressOfLeases('ended')}">Ended leases</a></p></div>`;
}

function counts({ choice, overview }: LeaseListView): Html {
  const links = Object.entries(choiceWords).map(([key, words]) => {
    // oxlint-disable-next-line typescript/no-unsafe-type-assertion -- a key of the words
    const one = key as LeaseChoice;
    const count = overview.counts[one];
    return html`<a class="count${count > 0 && one === 'held' ? ' telling' : ''}" href="${addressOfLeases(one)}"${choice === one ? html` aria-current="true"` : null}><b>${number(count)}</b> ${words}</a>`;
  });
  return html`<div class="bar"><nav class="counts" aria-label="By state">${links}</nav></div>`;
}

/** A lease's state in words, as a badge: a sign and words, not color alone. */
export function leaseBadge(lease: LeaseRow, isBraked: boolean): Html {
  const { state, approvedAt, approvedBy, isWarned, destroyedBy } = lease;
  switch (state) {
    case 'leased':
      return isWarned ? badge('attention', 'running, warned') : badge('active', 'running');
    case 'protected':
      return badge('protected', 'ended, protected');
    case 'ended':
      if (approvedAt !== null) return html`${badge('gone', 'ended, approved')} <small>by ${approvedBy}</small>`;
      return isBraked ? badge('held', 'ended, held') : badge('gone', 'ended');
    case 'expired':
      return destroyedBy === null ? badge('compensating', 'being destroyed') : html`<a class="badge compensating" href="/sagas/${destroyedBy}">being destroyed</a>`;
    case 'none':
      return badge('plain', 'no lease');
    default:
      return state satisfies never;
  }
}

/** When a lease ends, or ended. */
export function endOf({ leaseUntil, leaseLimit }: LeaseRow, now: Date): Html {
  if (leaseUntil === null) return html`<span class="none">never</span>`;
  const leftMs = leaseUntil.getTime() - now.getTime();
  const limit = leaseLimit === null ? null : html`<small>at most until ${formatTime(leaseLimit)}</small>`;
  return html`${leftMs > 0 ? inTime(leftMs, now) : ago(leaseUntil, now)}${limit}`;
}

/** The droplet of a lease, or its saga while no create has been answered. */
export function dropletOf({ dropletId, name, sagaId }: LeaseRow): Html {
  if (dropletId === null) return html`<a href="/sagas/${sagaId}" data-walk>${name === '' ? `saga ${sagaId.slice(0, 8)}` : name}</a><small>being created</small>`;
  return html`<a href="/droplets/${dropletId}" data-walk>${name}</a><small><code>${dropletId}</code></small>`;
}

type Offers = Readonly<{ renew: boolean; unprotect: boolean }>;

function offersOf({ dropletId, state }: LeaseRow, { may }: LeaseListView): Offers {
  const isThere = dropletId !== null;
  return { renew: isThere && may.renew && (state === 'leased' || state === 'ended' || state === 'protected'), unprotect: isThere && may.unprotect && state === 'protected' };
}

function table(view: LeaseListView): Html {
  const { leases, overview: { now, heldSince } } = view;
  const rows = leases.map((lease) => {
    const { renew, unprotect } = offersOf(lease, view);
    const { dropletId, name } = lease;
    const button = (what: string, words: string) => html`<button type="button" popovertarget="${what}-${dropletId}" aria-label="${words} ${name}">${words}…</button>`;
    return html`<tr><td class="name">${dropletOf(lease)}</td><td class="end">${endOf(lease, now)}</td><td class="state">${leaseBadge(lease, heldSince !== null)}</td><td class="by">${lease.requestedBy === null ? html`<span class="none">not known</span>` : html`<code>${lease.requestedBy}</code>`}</td><td class="generation">${lease.state === 'none' ? null : lease.generation}</td><td class="act"><div class="actions">${renew ? button('renew', 'Renew') : null}${unprotect ? button('unprotect', 'Lift protection') : null}</div></td></tr>`;
  });
  return html`<table class="droplets leases"><thead><tr><th scope="col">Droplet</th><th scope="col">Ends</th><th scope="col">State</th><th scope="col">Requested by</th><th scope="col" title="Goes up with each renewal">Generation</th><th scope="col"><span class="unseen">Action</span></th></tr></thead><tbody>${rows}</tbody></table>`;
}

function dialogs(lease: LeaseRow, view: LeaseListView): Html | null {
  const { renew, unprotect } = offersOf(lease, view);
  const { dropletId, name, leaseLimit } = lease;
  const back = hidden([['back', view.choice]]);
  return html`${renew ? dialog({ id: `renew-${dropletId}`, action: `/droplets/${dropletId}/lease`, title: `Renew the lease of ${name}?`, no: 'Not now', yes: 'Renew' }, html`${back}${renewalFields(leaseLimit)}`) : null}
${unprotect ? dialog({ id: `unprotect-${dropletId}`, action: `/droplets/${dropletId}/protection`, title: `Lift the protection of ${name}?`, no: 'Keep it', yes: 'Lift protection', isDangerous: true }, html`${back}${hidden([['protected', 'false']])}<p>Its lease has ended: without protection, the droplet is destroyed with all its data within seconds. This cannot be undone.</p>`) : null}`;
}

function pages({ choice, page, overview }: LeaseListView): Html | null {
  const last = Math.max(1, Math.ceil(overview.counts[choice] / LEASES_PER_PAGE));
  if (last === 1 && page === 1) return null;
  const link = (to: number, words: string, rel: string) => html`<a rel="${rel}" href="${addressOfLeases(choice, to === 1 ? {} : { page: String(to) })}">${words}</a>`;
  return html`<nav class="pages" aria-label="Pages">${page > 1 ? link(Math.min(page - 1, last), 'Previous page', 'prev') : null}<span>Page ${number(page)} of ${number(last)}</span>${page < last ? link(page + 1, 'Next page', 'next') : null}</nav>`;
}

const nothing: Readonly<Record<LeaseChoice, string>> = {
  all: 'No droplet has a lease. Give one with `arcadia provision --ttl 2h`.',
  ending: 'No lease ends soon.',
  ended: 'No lease has ended.',
  held: 'The brake holds no lease.',
  without: 'Every droplet that was provisioned or adopted here has a lease.',
};

function empty({ choice, overview }: LeaseListView): Html {
  if (overview.counts[choice] > 0) return html`<p class="empty">The list ends before this page. <a href="${addressOfLeases(choice)}">First page</a></p>`;
  return html`<p class="empty">${withCode(nothing[choice])}${choice === 'all' ? null : html` <a href="/leases">All leases</a>`}</p>`;
}
