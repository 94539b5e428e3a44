// One droplet: what it is, what is wrong with it and what to do about it, its sagas, and the history of its drift.
import type { Drift } from '../../inventory/drift-store.ts';
import type { DropletRecord } from '../../inventory/droplet-record.ts';
import type { SagaLease } from '../../inventory/lease.ts';
import type { AuditLine } from '../../saga/audit.ts';
import type { Hold } from '../../saga/holds.ts';
import type { Saga } from '../../saga/saga.ts';
import { isAtRest } from '../../saga/saga.ts';
import type { Surface } from '../../saga/words.ts';
import { describeEnd, statusWords } from '../../saga/words.ts';
import { shortTextOf } from '../../platform/text.ts';
import type { Html } from '../html.ts';
import { html } from '../html.ts';
import type { Destruction, DropletActions } from './droplet-actions.ts';
import { acceptButton, buttons, dialogs } from './droplet-actions.ts';
import { ageOf, badgesOf, isListOutdated, isOutdated, leaseOf, syncNotice, usd } from './droplet-parts.ts';
import { badgeOf } from './parts.ts';
import { ago, formatTime } from './times.ts';

export type DropletView = Readonly<{
  dropletId: number;
  /** Null: it is not in the inventory. */
  record: DropletRecord | null;
  /** Newest first. */
  sagas: readonly Saga[];
  hasMoreSagas: boolean;
  held: ReadonlyMap<string, Hold>;
  /** The lease while the droplet's provision is under way. */
  lease: SagaLease | null;
  audit: readonly AuditLine[];
  surface: Surface;
  /** The database's clock. */
  now: Date;
  syncIntervalMs: number | null;
  destruction: Destruction | null;
  actions: DropletActions;
  /** The result of the action that led here; null: none did. */
  told: string | null;
}>;

const SOON_MS = 3_000;
const LATER_MS = 15_000;

/** The droplet's name, or else its id. */
export function nameOf({ record, sagas, dropletId }: Pick<DropletView, 'record' | 'sagas' | 'dropletId'>): string {
  return record?.name ?? (sagas.map(({ input }) => shortTextOf(input['name'])).find((name) => name !== '') || `droplet ${dropletId}`);
}

/** The page's content. */
export function renderDroplet(view: DropletView): Html {
  const { record, now, told, actions } = view;
  const atWork = view.sagas.find(({ status }) => !isAtRest(status) || status === 'stuck') ?? null;
  const shown = record === null ? null : { ...record, drift: openOf(record).map(({ field }) => field), orphan: record.orphan?.state ?? null, atWork: atWork === null ? null : { id: atWork.id, name: atWork.name, status: atWork.status } };
  return html`<p class="crumbs"><a href="/droplets" data-up>Droplets</a></p>
${told === null ? null : html`<p class="notice" role="status">${told}</p>`}
<div id="live"${record !== null && (record.absences > 0 || isOutdated(record.lastSeenAt, now, view.syncIntervalMs)) ? html` class="outdated"` : null} data-now="${now.toISOString()}" data-refresh-ms="${atWork !== null && atWork.status !== 'stuck' ? SOON_MS : LATER_MS}">
<div class="title"><h1>${nameOf(view)}</h1>${shown === null ? null : badgesOf(shown)}${buttons(actions)}</div>
${notices(view, atWork)}
${facts(view)}
${driftOf(view)}
${sagasOf(view)}
${commands(view)}
${auditOf(view)}
</div>
${dialogs(actions, nameOf(view))}
<p class="keys"><kbd>u</kbd> back to the list <kbd>/</kbd> search</p>`;
}

function openOf({ drift }: DropletRecord): Drift[] {
  return drift.filter(({ resolvedAt }) => resolvedAt === null);
}

/** What must not be missed. Nothing here says that all is well: that is known only as of the last sync. */
function notices(view: DropletView, atWork: Saga | null): Html {
  const { record, now, syncIntervalMs } = view;
  if (record === null) {
    return html`<div class="now wait"><p><b>This droplet is not in the inventory.</b> ${atWork === null ? 'It was destroyed before it was registered, or its record has been deleted since.' : 'Its saga registers it once it is ready.'} What follows comes from its sagas.</p></div>`;
  }
  const { deletedAt, lastSeenAt, absences, orphan, sync, releasedAt } = record;
  const isMissed = deletedAt === null && absences > 0;
  const isBehind = deletedAt === null && !isMissed && !isListOutdated(sync, now, syncIntervalMs) && isOutdated(lastSeenAt, now, syncIntervalMs);
  const leaves = atWork === null ? null : html` A saga works on it, so the sync leaves its record alone.`;
  return html`${deletedAt !== null ? html`<div class="now ${openOf(record).length > 0 ? 'bad' : ''}"><p><b>This droplet is gone.</b> The inventory recorded that ${ago(deletedAt, now)}.${whyGone(view, openOf(record).length > 0)}</p></div>` : null}
${isMissed ? html`<div class="now bad"><p><b>The last complete sync did not show this droplet.</b> It was last seen ${ago(lastSeenAt, now)}, and is probably gone. The next sync decides.</p></div>` : null}
${isBehind ? html`<div class="now wait"><p><b>Out of date: this droplet was last seen ${ago(lastSeenAt, now)}.</b> What follows may have changed since.${leaves}</p></div>` : null}
${orphan === null || deletedAt !== null ? null : orphanNotice(orphan, now)}
${keptByProtection(view)}
${releasedAt !== null && deletedAt === null ? html`<div class="now wait"><p><b>This droplet exists, but arcadia-cloud has not managed it since ${ago(releasedAt, now)}.</b></p></div>` : null}
${syncNotice(sync, now, syncIntervalMs)}`;
}

function orphanNotice({ category, reason, approvedAt, approvedBy, acknowledgedAt, acknowledgedBy, acknowledgedReason, sweepFailingSince, sweepError }: NonNullable<DropletRecord['orphan']>, now: Date): Html {
  const approved = approvedAt === null ? null : html` <code>${approvedBy}</code> approved its destruction ${ago(approvedAt, now)}.`;
  const acknowledged = acknowledgedAt === null ? null : html` <code>${acknowledgedBy}</code> acknowledged it ${ago(acknowledgedAt, now)}${acknowledgedReason === null ? '.' : html`: ${acknowledgedReason}`}`;
  const failing = sweepFailingSince === null ? null : html` <b>It could not be destroyed.</b> The first try was ${ago(sweepFailingSince, now)}. The last error: ${sweepError}`;
  const fate = category === 'surplus'
    ? html`The second sync that sees it destroys it, once it is older than the grace period and unless there are too many at once.${approved}${failing}`
    : html`It carries our tags. Nothing destroys it.${acknowledged}`;
  return html`<div class="now ${acknowledgedAt === null ? 'bad' : ''}"><p><b>Orphan (${category}):</b> ${reason}. ${fate}</p></div>`;
}

/** What a droplet that is gone without our doing means. */
function whyGone({ destruction }: DropletView, isMissed: boolean): Html | string | null {
  if (destruction?.isStuck === true) return html` The saga that was to destroy it needs attention: retry <a href="/sagas/${destruction.sagaId}"><code>${destruction.sagaId.slice(0, 8)}</code></a>, and it completes.`;
  return isMissed ? ' arcadia-cloud did not destroy it, and it is still wanted.' : null;
}

/** Its lease ended, and its protection alone keeps it. */
function keptByProtection({ record, now, actions: { can, may } }: DropletView): Html | null {
  if (record === null || !record.isProtected || record.leaseUntil === null || record.leaseExpiredAt !== null || record.leaseUntil > now || record.deletedAt !== null) return null;
  const press = (id: 'renew' | 'unprotect', words: string) => (may[id] ? html`<button type="button" popovertarget="${id}">${words}</button>` : null);
  return html`<div class="now wait"><p><b>Its lease ended ${ago(record.leaseUntil, now)}. It is not destroyed, because it is protected.</b> ${can.renew ? html`Renew the lease to keep it, or lift` : html`Lift`} the protection to have it destroyed within seconds.</p>
<div class="actions">${press('renew', 'Renew lease…')}${press('unprotect', 'Lift protection…')}</div></div>`;
}

function facts({ record, sagas, lease, dropletId, now, actions }: DropletView): Html {
  const none = html`<span class="none">none</span>`;
  const unknown = html`<span class="none">not known</span>`;
  const code = (text: string | null) => (text === null ? unknown : html`<code>${text}</code>`);
  const there = html`<a href="https://cloud.digitalocean.com/droplets/${dropletId}" rel="noreferrer">at DigitalOcean</a>`;
  const all: [string, Html | null][] = [['Droplet', html`<code>${dropletId}</code> ${there}`]];
  if (record === null) {
    all.push(['Lease', lease === null ? null : leaseOf({ ...lease, leaseExpiredAt: lease.expiredAt, isManaged: true }, now)], ['Requested by', code(sagas.at(-1)?.requestedBy ?? null)]);
  } else {
    const { addresses, region, sizeSlug, memoryMb, vcpus, diskGb, priceUsdPerHour, image, tags, createdAt, firstSeenAt, lastSeenAt, deletedAt, isManaged, isProtected, leaseUntil, leaseLimit, sagaId, requestedBy, spec } = record;
    const hardware = [vcpus === null ? null : `${vcpus} vCPU`, memoryMb === null ? null : `${memoryMb} MiB`, diskGb === null ? null : `${diskGb} GiB`].filter((part) => part !== null).join(', ');
    const exactLease = leaseUntil === null ? null : html` <span class="exact">${formatTime(leaseUntil)}${leaseLimit === null ? null : html`, at most until ${formatTime(leaseLimit)}`}</span>`;
    all.push(
      ['Addresses', addresses.length === 0 ? none : html`${addresses.map((address) => html`<code>${address}</code> `)}`],
      ['Region', code(region)],
      ['Size', html`${code(sizeSlug)}${hardware === '' ? null : html` <span class="exact">${hardware}</span>`}`],
      ['Price', priceUsdPerHour === null ? html`<span class="none">price not known</span>` : html`${usd(priceUsdPerHour)} an hour`],
      ['Image', image === null ? unknown : html`<code>${image.slug ?? image.id}</code>`],
      ['Tags', tags.length === 0 ? none : html`${tags.map((tag) => html`<a href="/droplets?${new URLSearchParams({ tag }).toString()}"><code>${tag}</code></a> `)}`],
      ['Created', html`${ageOf(createdAt, now)} ago <span class="exact">${formatTime(createdAt)}</span>`],
      ['First seen', html`${ago(firstSeenAt, now)}`],
      [deletedAt === null ? 'Last seen' : 'Was last seen', html`${ago(lastSeenAt, now)} <span class="exact">${formatTime(lastSeenAt)}</span>`],
      ['Managed', isManaged ? html`yes${sagaId === null ? null : html`, by saga <a href="/sagas/${sagaId}"><code>${sagaId.slice(0, 8)}</code></a>`}` : html`no${sagaId === null ? null : html` longer; was provisioned by saga <a href="/sagas/${sagaId}"><code>${sagaId.slice(0, 8)}</code></a>`}`],
      ['Requested by', requestedBy === null ? (isManaged ? unknown : null) : html`<a href="/droplets?${new URLSearchParams({ requester: requestedBy }).toString()}"><code>${requestedBy}</code></a>`],
      ['Protection', isManaged ? (isProtected ? html`protected: nothing here destroys it` : none) : null],
      ['Lease', isManaged ? html`${leaseOf(record, now)}${exactLease}` : null],
      ['Desired', spec === null || !isManaged ? null : html`${Object.entries(spec).filter(([, value]) => value !== null).map(([field, value]) => html`${field} <code>${shortTextOf(value)}</code> `)}`],
    );
  }
  if (actions.why !== null) all.push(['Actions', html`${actions.why}`]);
  return html`<dl class="facts">${all.map(([name, value]) => (value === null ? null : html`<div><dt>${name}</dt><dd>${value}</dd></div>`))}</dl>`;
}

function driftOf({ record, now, actions }: DropletView): Html | null {
  if (record === null) return null;
  const rows = record.drift.map((drift) => {
    const { id, field, desired, actual, firstSeenAt, lastSeenAt, resolvedAt, resolution } = drift;
    const end = resolvedAt === null ? html`<b class="over">open</b>, last found ${ago(lastSeenAt, now)}` : html`${resolution?.replace('_', ' ') ?? 'resolved'} ${ago(resolvedAt, now)}`;
    return html`<tr><td>${id}</td><td>${field}</td><td><code>${desired}</code></td><td><code>${actual}</code></td><td>${ago(firstSeenAt, now)}</td><td>${end}</td><td>${acceptButton(actions, drift)}</td></tr>`;
  });
  const history = html`<div class="wide roomy" tabindex="0"><table><thead><tr><th scope="col">#</th><th scope="col">Field</th><th scope="col">Desired</th><th scope="col">Found</th><th scope="col">Since</th><th scope="col">State</th><th scope="col"><span class="unseen">Action</span></th></tr></thead><tbody>${rows}</tbody></table></div>`;
  const none = record.isManaged ? html`<p class="none">No sync has found a difference from its spec.</p>` : html`<p class="none">It has no spec to differ from.</p>`;
  return html`<section aria-labelledby="drift"><h2 id="drift">Drift</h2>${rows.length === 0 ? none : history}</section>`;
}

function sagasOf({ sagas, hasMoreSagas, held, surface, dropletId, now }: DropletView): Html {
  const rows = sagas.map((saga) => {
    const words = surface.words(saga);
    const end = saga.status === 'completed' || saga.status === 'compensated' ? describeEnd(words, saga).text : saga.status === 'stuck' ? words.stuck(saga) : statusWords[saga.status];
    return html`<tr><td>${badgeOf(saga, words, held.has(saga.id))}</td><td><a href="/sagas/${saga.id}">${saga.name} <code>${saga.saga8}</code></a></td><td>${end}</td><td>${saga.requestedBy === null ? null : html`<code>${saga.requestedBy}</code>`}</td><td>${ago(saga.createdAt, now)}</td></tr>`;
  });
  const table = html`<div class="wide roomy" tabindex="0"><table><thead><tr><th scope="col">Status</th><th scope="col">Saga</th><th scope="col">Result</th><th scope="col">Requested by</th><th scope="col">Started</th></tr></thead><tbody>${rows}</tbody></table></div>`;
  return html`<section aria-labelledby="sagas"><h2 id="sagas">Sagas</h2>${sagas.length === 0 ? html`<p class="none">No saga of this droplet is on record.</p>` : table}${hasMoreSagas ? html`<p><a href="/sagas?q=${dropletId}">All its sagas</a></p>` : null}</section>`;
}

function commands({ dropletId, record, actions }: DropletView): Html | null {
  const { can } = actions;
  const drift = record === null ? [] : openOf(record);
  const lines = [
    ...(can.renew ? [`arcadia renew ${dropletId} --ttl 4h`] : []),
    ...(can.protect ? [`arcadia protect ${dropletId}`] : []),
    ...(can.unprotect ? [`arcadia unprotect ${dropletId}`] : []),
    ...(can.accept ? drift.map(({ id }) => `arcadia drift accept ${id}`) : []),
    ...(can.adopt ? [`arcadia adopt ${dropletId}`] : []),
    ...(can.destroy ? [`arcadia destroy ${dropletId}`] : []),
  ];
  if (lines.length === 0) return null;
  return html`<section aria-labelledby="commands"><h2 id="commands">The same on the command line</h2><ul class="commands">${lines.map((line) => html`<li><code>${line}</code></li>`)}</ul></section>`;
}

function auditOf({ audit, now }: DropletView): Html {
  const rows = audit.map(({ at, actor, action, sagaId, detail }) => html`<tr><td>${ago(at, now)}</td><td><code>${actor}</code></td><td>${action}</td><td>${sagaId === null ? null : html`<a href="/sagas/${sagaId}"><code>${sagaId.slice(0, 8)}</code></a>`}</td><td>${shortTextOf(detail['reason'])}</td></tr>`);
  const table = html`<div class="wide roomy" tabindex="0"><table><thead><tr><th scope="col">When</th><th scope="col">Who</th><th scope="col">What</th><th scope="col">Saga</th><th scope="col">Why</th></tr></thead><tbody>${rows}</tbody></table></div>`;
  return html`<section aria-labelledby="audit"><h2 id="audit">Audit</h2>${audit.length === 0 ? html`<p class="none">No actions recorded.</p>` : table}</section>`;
}
