// Approves the destruction of surplus droplets: the list of all orphans and the result of an approval. The form contains the ids that
// the list showed, so orphans that a sync finds in between are not approved.
import type { Orphan } from '../../inventory/orphans.ts';
import type { SyncAge } from '../../inventory/syncs.ts';
import type { Html } from '../html.ts';
import { html } from '../html.ts';
import { ageOf, isListOutdated, number, syncNotice, usd } from './droplet-parts.ts';
import { hidden } from './parts.ts';

/** The most that one form approves: with a person waiting for the answer. */
export const MOST_APPROVED = 200;

const dropletsOf = (count: number): string => (count === 1 ? '1 surplus droplet' : `${number(count)} surplus droplets`);

export type OrphansView = Readonly<{ now: Date; sync: SyncAge; syncIntervalMs: number | null; mayDestroy: boolean; mayAcknowledge: boolean; told: string | null }>;

/** All orphans, and the buttons that approve the destruction of the surplus ones and acknowledge the unknown ones. */
export function renderOrphans(orphans: readonly Orphan[], { now, sync, syncIntervalMs, mayDestroy, mayAcknowledge, told }: OrphansView): Html {
  const surplus = orphans.filter(({ category, approvedAt }) => category === 'surplus' && approvedAt === null);
  const asked = surplus.slice(0, MOST_APPROVED);
  const crumbs = html`<p class="crumbs"><a href="/droplets" data-up>Droplets</a></p>`;
  const notice = html`${told === null ? null : html`<p class="notice" role="status">${told}</p>`}${syncNotice(sync, now, syncIntervalMs)}`;
  if (orphans.length === 0) {
    const found = sync.readAt === null ? null : html`<p>As of the last complete sync, every droplet with our tags is accounted for.</p>`;
    return html`${crumbs}<h1>${isListOutdated(sync, now, syncIntervalMs) ? 'Orphans' : 'No orphans'}</h1>${notice}${found}`;
  }
  const more = surplus.length > asked.length ? html`<p class="notice">${number(surplus.length)} are surplus. The form approves at most ${MOST_APPROVED}: these are the oldest. Repeat it for the rest.</p>` : null;
  const priced = asked.flatMap(({ priceUsdPerHour }) => priceUsdPerHour ?? []);
  const isOne = asked.length === 1;
  const cost = priced.length === 0 ? 'The price is not known' : `${asked.length > priced.length ? `Without ${asked.length - priced.length} whose price is not known, they cost` : isOne ? 'It costs' : 'They cost'} ${usd(priced.reduce((sum, price) => sum + price, 0))} an hour`;
  const form = html`<p>The next sync destroys ${isOne ? 'it with all its data' : 'them with all their data'} after the grace period, if DigitalOcean still lists ${isOne ? 'it' : 'them'}, however many there are. ${cost}. This cannot be undone.</p>
<form method="post" action="/droplets/orphans" class="bulk">${hidden(asked.map(({ id }): [string, string] => ['id', String(id)]))}
<div class="actions"><a class="button" href="/droplets" data-up>Back</a><button class="danger" type="submit">Approve ${dropletsOf(asked.length)}</button></div></form>`;
  const list = (title: string, words: string, rows: readonly Orphan[], after: Html | null = null) => (rows.length === 0 ? null : html`<section><h2>${title}</h2><p>${words}</p>${table(rows, now)}${after}</section>`);
  const unknown = orphans.filter(({ category }) => category === 'unknown');
  const unexplained = unknown.filter(({ acknowledgedAt }) => acknowledgedAt === null);
  return html`${crumbs}<h1>${asked.length === 0 ? 'Orphans' : `Destroy ${dropletsOf(asked.length)}?`}</h1>${notice}${more}${asked.length > 0 && mayDestroy ? form : null}
${list('Surplus', 'Certainly ours, and not needed.', asked)}
${list('Approved', 'The next sync destroys these.', orphans.filter(({ approvedAt }) => approvedAt !== null))}
${list('Unknown', 'They carry our tags, and no record here accounts for them. Nothing destroys them.', unexplained, mayAcknowledge ? acknowledgement(unexplained) : null)}
${list('Acknowledged', 'Unknown too, but somebody knows whose they are, so they are not reported as a problem. The page of each droplet can take that back.', unknown.filter(({ acknowledgedAt }) => acknowledgedAt !== null))}`;
}

/** Acknowledges the unknown ones that the page shows. */
function acknowledgement(unexplained: readonly Orphan[]): Html {
  const asked = unexplained.slice(0, MOST_APPROVED);
  return html`<details class="acknowledge"><summary>Acknowledge ${asked.length === 1 ? 'it' : unexplained.length > asked.length ? `the oldest ${asked.length}` : `all ${asked.length}`}…</summary>
<form method="post" action="/droplets/orphans/acknowledge">${hidden(asked.map(({ id }): [string, string] => ['id', String(id)]))}
<p>Do this if you know whose they are, such as those of another environment in the same account. They stay listed. A sync that judges one differently reports it again. The page of each droplet acknowledges it alone.</p>
<label>Reason (kept in the audit) <input name="reason" maxlength="1000" autocomplete="off"></label>
<div class="actions"><button type="submit">Acknowledge ${asked.length === 1 ? '1 orphan' : `${number(asked.length)} orphans`}</button></div></form></details>`;
}

function table(orphans: readonly Orphan[], now: Date): Html {
  const rows = orphans.map(({ providerId, name, region, sizeSlug, priceUsdPerHour, createdAt, reason, sweepError, sagaId, approvedBy, acknowledgedBy, acknowledgedReason }) => html`<tr><td class="name"><a href="/droplets/${providerId}">${name}</a> <code>${providerId}</code></td><td class="why">${reason}${sweepError === null ? null : html`; <b>not destroyed:</b> ${sweepError}`}</td><td>${region}</td><td>${sizeSlug}</td><td>${priceUsdPerHour === null ? html`<span class="none">not known</span>` : usd(priceUsdPerHour)}</td><td>${ageOf(createdAt, now)}</td><td>${sagaId === null ? null : html`<code>${sagaId.slice(0, 8)}</code>`}</td><td>${approvedBy === null ? null : html`<code>${approvedBy}</code>`}${acknowledgedBy === null ? null : html`<code>${acknowledgedBy}</code>`}${acknowledgedReason === null ? null : html` ${acknowledgedReason}`}</td></tr>`);
  return html`<div class="wide" tabindex="0"><table class="orphans stacked"><thead><tr><th scope="col">Droplet</th><th scope="col">Why</th><th scope="col">Region</th><th scope="col">Size</th><th scope="col">$/h</th><th scope="col">Age</th><th scope="col">Saga</th><th scope="col">By</th></tr></thead><tbody>${rows}</tbody></table></div>`;
}

/** What came of an approval. */
export function renderApproved(asked: number, approved: number): Html {
  const late = asked - approved;
  return html`<p class="crumbs"><a href="/droplets" data-up>Droplets</a></p><h1>${approved} of ${asked} approved${late === 0 ? '' : `; ${late} ${late === 1 ? 'is' : 'are'} not surplus any more`}</h1>
<p>${approved === 0 ? 'Nothing is destroyed because of this.' : 'The next sync destroys them after the grace period, if DigitalOcean still lists them.'}</p>
<p><a class="button" href="/droplets?state=orphan">Orphans</a> <a class="button" href="/droplets">All droplets</a></p>`;
}
