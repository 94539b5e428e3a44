// What is known of one saga: the facts above its timeline, and below it the audit, the input, the context and all events.
import type { SagaLease } from '../../inventory/lease.ts';
import { formatDuration } from '../../platform/duration.ts';
import { shortTextOf, withShortTexts } from '../../platform/text.ts';
import type { InspectedJob } from '../../queues/step-queues.ts';
import type { AuditRow } from '../../saga/audit.ts';
import type { StoredEvent } from '../../saga/events.ts';
import type { Saga } from '../../saga/saga.ts';
import { isAtRest } from '../../saga/saga.ts';
import type { Memo } from '../../saga/step.ts';
import { sagaTookMs } from '../../saga/took.ts';
import type { SagaWords } from '../../saga/saga-words.ts';
import type { Surface } from '../../saga/words.ts';
import type { Html } from '../html.ts';
import { html, longText } from '../html.ts';
import type { JobPlace } from '../ports.ts';
import { reasonOf } from './audit-reasons.ts';
import type { ListQuery } from './filter.ts';
import { capital, copied, progress, subjectLink } from './parts.ts';
import type { Entry } from './timeline.ts';
import { ago, exactTime, inTime } from './times.ts';

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
  /** Whether this person may renew leases. */
  mayRenew: boolean;
  /** Whether droplets have pages. */
  hasDroplets: boolean;
  /** The name of its subject where the saga itself does not say it; null: it does, or nobody knows. */
  subjectName: string | null;
  /** The list that it was opened from, and the sagas before and after it there; null: not opened from a list. */
  list: Readonly<{ query: ListQuery; previous: string | null; next: string | null }> | null;
  /** Names of the secrets that must be given again to run it again; null: it cannot be run again. */
  secretsToRerun: readonly string[] | null;
  /** The result of the action that led here; null: none did. */
  told: string | null;
}>;

// An input that a saga accepts is shown whole. There may be hundreds of events: the detail of one is cut earlier.
const DOCUMENT_LENGTH = 64 * 1024;
const EVENT_LENGTH = 10_000;

/** The facts in short. */
export function facts(view: SagaView): Html {
  const { saga, now } = view;
  const subject = view.words.subject?.(saga);
  const outputs = view.words.outputs?.(saga);
  const all: [string, Html | null][] = [
    ['Saga', html`${saga.name} ${copied(saga.id)}`],
    ['Step', html`${progress(saga)}${isAtRest(saga.status) && saga.status !== 'stuck' ? null : html` · attempt ${saga.status === 'stuck' ? saga.attempt : saga.attempt + 1}`}`],
    ...(subject === undefined ? [] : [[capital(subject.kind), subject.id === null ? code(null) : html`<span data-copy>${subjectLink(saga, view.words, view.hasDroplets)}</span>${view.subjectName === null ? null : html` ${view.subjectName}`} <a href="/sagas?q=${subject.id}">all its sagas</a>`] as [string, Html]]),
    ...(outputs === undefined ? [] : [[outputs.name, outputs.values.length === 0 ? code(null) : html`${outputs.values.map((value) => html`${copied(value)} `)}`] as [string, Html]]),
    ['Lease', view.lease === null ? null : leaseFact(view.lease, now)],
    ['Started', html`${ago(saga.createdAt, now)} ${exactTime(saga.createdAt)}`],
    ['Finished', saga.finishedAt === null ? null : html`${ago(saga.finishedAt, now)} <span class="exact">after ${formatDuration(sagaTookMs(saga) ?? 0)}</span>`],
    ['Requested by', code(saga.requestedBy)],
    ['Priority', saga.priority === 'normal' ? null : html`${saga.priority}`],
    ['Waits for', saga.waitsFor === null ? null : html`<a href="/sagas/${saga.waitsFor}">saga ${code(saga.waitsFor)}</a>`],
    ['Runs again', saga.rerunOf === null ? null : html`<a href="/sagas/${saga.rerunOf}">saga ${code(saga.rerunOf)}</a>, which was rolled back`],
    ['Was run again as', saga.rerunAs === null ? null : html`<a href="/sagas/${saga.rerunAs}">saga ${code(saga.rerunAs)}</a>`],
    ['Started by', saga.startedBy === null ? null : html`<span title="proven by credentials or by the database">${code(saga.startedBy)}</span>`],
    ['Idempotency key', saga.idempotencyKey === null ? code(null) : copied(saga.idempotencyKey)],
    ['Job', view.job === null ? null : jobLink(view)],
    ['In a terminal', copied(`arcadia saga ${saga.id}`)],
    ['As JSON', html`<a href="/v1/sagas/${saga.id}" download="saga-${saga.saga8}.json">Download</a>`],
  ];
  return html`<dl class="facts">${all.map(([name, value]) => (value === null ? null : html`<div><dt>${name}</dt><dd>${value}</dd></div>`))}</dl>`;
}

function leaseFact({ leaseUntil, expiredAt }: SagaLease, now: Date): Html {
  const exact = html` ${exactTime(leaseUntil)}`;
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

/** Everything else that is known of it. */
export function known({ saga, surface, audit, events, now }: SagaView): Html {
  const shown = surface.redact.saga(saga);
  const rows = audit.map(({ at, actor, databaseRole, action, detail }) => html`<tr><td>${ago(at, now)}</td><td><code>${actor}</code></td><td>${action}</td><td>${shortTextOf(reasonOf({ action, detail }, shown.input) ?? detail['path'])}</td><td>${databaseRole === null ? null : html`<code>${databaseRole}</code>`}</td></tr>`);
  const all = events.map((event) => html`<tr><td>${event.seq}</td><td>${exactTime(event.at)}</td><td>${event.kind}</td><td>${event.step}</td><td><code>${longText(JSON.stringify(withShortTexts(surface.redact.value(event.detail))), EVENT_LENGTH)}</code></td></tr>`);
  return html`<section aria-labelledby="audit"><h2 id="audit">Audit</h2>${audit.length === 0 ? html`<p class="none">No actions recorded.</p>` : html`<div class="wide" tabindex="0"><table><thead><tr><th scope="col">When</th><th scope="col">Who</th><th scope="col">What</th><th scope="col">Why</th><th scope="col">Database role</th></tr></thead><tbody>${rows}</tbody></table></div>`}</section>
<div class="two"><section aria-labelledby="input"><h2 id="input">Input</h2><pre tabindex="0">${longText(JSON.stringify(withShortTexts(shown.input), null, 2), DOCUMENT_LENGTH)}</pre></section>
<section aria-labelledby="context"><h2 id="context">Context</h2><pre tabindex="0">${longText(JSON.stringify(withShortTexts(shown.context), null, 2), DOCUMENT_LENGTH)}</pre></section></div>
<details id="events"><summary>${events.length === 1 ? '1 event' : `All ${events.length} events`}</summary><div class="wide" tabindex="0"><table><thead><tr><th scope="col">#</th><th scope="col">At</th><th scope="col">Event</th><th scope="col">Step</th><th scope="col">Detail</th></tr></thead><tbody>${all}</tbody></table></div></details>`;
}
