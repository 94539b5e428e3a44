// Approves the expiry of leases that the brake against mass expiry holds: the preview and its result. The form contains the leases
// that the preview showed, with their generations, so leases that end or are renewed in between are not approved.
import type { LeaseOverview, LeaseRow } from '../../inventory/lease-listing.ts';
import type { Html } from '../html.ts';
import { html } from '../html.ts';
import { number } from './droplet-parts.ts';
import { addressOfLeases } from './lease-filter.ts';
import { dropletOf, endOf, leaseBadge } from './lease-list.ts';
import { hidden } from './parts.ts';

/** The most that one form approves: with a person waiting for the answer. */
export const MOST_LEASES_APPROVED = 1_000;

const dropletsOf = (count: number): string => (count === 1 ? '1 droplet' : `${number(count)} droplets`);
const crumbs = html`<p class="crumbs"><a href="/leases" data-up>Leases</a></p>`;

/** Which droplets would be destroyed, and the form that lets them be. */
export function renderQuestion(held: readonly LeaseRow[], overview: LeaseOverview, { mayDestroy }: { mayDestroy: boolean }): Html {
  if (held.length === 0) return html`${crumbs}<h1>Nothing to approve</h1><p>The brake holds no ended lease.</p><p><a class="button" href="/leases">Leases</a></p>`;
  const form = html`<form method="post" action="/leases/approve" class="bulk">${hidden(held.map(({ sagaId, generation }): [string, string] => ['lease', `${sagaId}.${generation}`]))}
<label>To confirm, type the number of droplets <input name="confirm" required inputmode="numeric" pattern="${held.length}" title="${held.length}" autocomplete="off"></label>
<div class="actions"><a class="button" href="${addressOfLeases('held')}">Back</a><button class="danger" type="submit">Destroy ${dropletsOf(held.length)}</button></div></form>`;
  const refused = html`<p>Approving this requires the scope <code>destroy</code>.</p>`;
  return html`${crumbs}<h1>Destroy ${dropletsOf(held.length)}?</h1>${restOf(held.length, overview)}
<p>You approve exactly the droplets below. The workers destroy them, with all their data, within seconds. This cannot be undone. To keep one, go back and renew its lease.</p>
${mayDestroy ? form : refused}
${table(held, overview.now, (lease) => leaseBadge(lease, true))}`;
}

/** What becomes of held leases that the form has no room for: if few remain, the brake lets go of them. See arcadia.lease_brake. */
function restOf(asked: number, { counts, leased }: LeaseOverview): Html | null {
  const rest = counts.held - asked;
  if (rest <= 0) return null;
  const fate = rest > 20 && rest * 5 > leased ? html`The other ${number(rest)} stay held: repeat it for them.` : html`<b>Once these are approved, so few remain that the brake lets go: the other ${number(rest)} are destroyed too.</b> Renew first what you want to keep.`;
  return html`<div class="now bad"><p>${number(counts.held)} are held. The form approves at most ${number(MOST_LEASES_APPROVED)}: these ended first. ${fate}</p></div>`;
}

function table(leases: readonly LeaseRow[], now: Date, stateOf: (lease: LeaseRow) => Html): Html {
  const rows = leases.map((lease) => html`<tr><td class="name">${dropletOf(lease)}</td><td class="end">${endOf(lease, now)}</td><td class="state">${stateOf(lease)}</td><td class="by">${lease.requestedBy === null ? html`<span class="none">not known</span>` : html`<code>${lease.requestedBy}</code>`}</td></tr>`);
  return html`<table class="droplets leases"><thead><tr><th scope="col">Droplet</th><th scope="col">Ends</th><th scope="col">State</th><th scope="col">Requested by</th></tr></thead><tbody>${rows}</tbody></table>`;
}

/**
 * Renders the result of an approval.
 *
 * @param result.now what is known of the leases now; a lease is missing if its droplet is gone
 */
export function renderAnswer(result: Readonly<{ asked: readonly string[]; approved: readonly string[]; now: readonly LeaseRow[]; at: Date }>): Html {
  const { asked, approved, now, at } = result;
  const left = asked.filter((sagaId) => !approved.includes(sagaId));
  const known = now.filter(({ sagaId }) => left.includes(sagaId));
  const gone = left.length - known.length;
  const counted = [...Map.groupBy(known, whyNot)].map(([why, { length }]) => `${number(length)} ${length === 1 ? 'is' : 'are'} ${why}`);
  const why = [...counted, ...(gone === 0 ? [] : [`${number(gone)} ${gone === 1 ? 'is' : 'are'} gone`])];
  return html`${crumbs}<h1>${number(approved.length)} of ${number(asked.length)} approved${why.length === 0 ? '' : `; ${why.join(', ')}`}</h1>
<p>${approved.length === 0 ? 'Nothing is destroyed because of this.' : `The workers destroy ${approved.length === 1 ? 'it' : 'them'} within seconds.`}${left.length === 0 ? null : ` Left alone, because ${left.length === 1 ? 'it' : 'they'} changed since the page was shown: ${number(left.length)}.`}</p>
${known.length === 0 ? null : html`<section><h2>Left alone</h2>${table(known, at, (lease) => html`${whyNot(lease)}`)}</section>`}
<p><a class="button" href="/leases">Leases</a> <a class="button" href="/audit?action=lease_expiry_approved">Audit</a></p>`;
}

function whyNot({ state, approvedAt }: LeaseRow): string {
  switch (state) {
    case 'leased':
      return 'renewed';
    case 'protected':
      return 'protected';
    case 'expired':
      return 'being destroyed already';
    case 'none':
      return 'without a lease';
    case 'ended':
      return approvedAt === null ? 'renewed, and ended again' : 'approved already';
    default:
      return state satisfies never;
  }
}
