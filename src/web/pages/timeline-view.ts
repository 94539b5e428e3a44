// Renders the timeline: one row per entry, with a bar that shows its time within the saga. The bars are SVG, because the
// policy forbids inline styles.
import { formatDuration, formatRunning } from '../../platform/duration.ts';
import type { Saga } from '../../saga/saga.ts';
import { isAtRest } from '../../saga/saga.ts';
import type { Html } from '../html.ts';
import { html } from '../html.ts';
import type { JobPlace } from '../ports.ts';
import { foldAttempts, foldNotes, partTimeline } from './fold-timeline.ts';
import { requestNote, withCode } from './parts.ts';
import type { Entry } from './timeline.ts';
import { formatTime } from './times.ts';

const WIDTH = 1_000;
const LEAST_WIDTH = 6;

/**
 * Renders the entries. The width is the saga's lifetime, or its lifetime so far. Attempts that failed alike are one entry. A
 * long timeline shows its first and newest entries; a button shows the rest.
 */
export function renderTimeline(saga: Saga, entries: readonly Entry[], now: Date, place: (job: NonNullable<Entry['job']>) => JobPlace): Html {
  const start = saga.createdAt.getTime();
  const ends = entries.map(({ from, to }) => (to ?? (isAtRest(saga.status) ? from : now)).getTime());
  const spanMs = Math.max(1, ...ends.map((end) => end - start), isAtRest(saga.status) ? 1 : now.getTime() - start);
  const { first, between, newest } = partTimeline(foldAttempts(entries));
  const rows = (some: readonly Entry[]) => some.map((entry) => renderEntry(entry, { start, spanMs, now, place }));
  const [from, until] = [between[0], between.at(-1)];
  const aside = from === undefined || until === undefined ? null : html`<li class="between"><details id="between"><summary>${between.length} more, ${clock(from.from)}–${clock(until.to ?? now)}</summary><ol class="timeline">${rows(between)}</ol></details></li>`;
  return html`<ol class="timeline">${rows(first)}${aside}${rows(newest)}</ol>`;
}

type Scale = Readonly<{ start: number; spanMs: number; now: Date; place: (job: NonNullable<Entry['job']>) => JobPlace }>;

function renderEntry(entry: Entry, scale: Scale): Html {
  const { kind, tone, title, from, to } = entry;
  const lengthMs = (to ?? scale.now).getTime() - from.getTime();
  const length = kind === 'mark' ? null : to === null ? html`<span class="length"><time datetime="${from.toISOString()}" data-for>${formatRunning(lengthMs)}</time></span>` : html`<span class="length">${formatDuration(lengthMs)}</span>`;
  const polls = entry.polls === null ? null : html`<span class="polls">${entry.polls} ${entry.polls === 1 ? 'poll' : 'polls'}</span>`;
  const sinceStart = from.getTime() - scale.start;
  return html`<li class="${kind} ${tone}"><time class="at" datetime="${from.toISOString()}" title="${formatTime(from)}">+${formatDuration(sinceStart)}</time>
<div class="told"><span class="sign" aria-hidden="true"></span><b>${title}</b> ${tone === 'bad' && kind === 'attempt' && entry.alike.length === 0 ? html`<span class="failed">failed</span>` : null} ${polls} ${length}${kind === 'mark' ? html`<span class="by">${entry.text}</span>` : null}</div>
${bar(entry, scale)}
${details(entry, scale)}
${kind === 'mark' ? null : texts(entry)}</li>`;
}

function details({ worker, job }: Entry, { place }: Scale): Html {
  const where = job === null ? null : place(job);
  return html`<div class="ran">${worker === null ? null : html`<span class="worker" title="worker ${worker}">${worker}</span>`}${where === null ? null : html` <a class="job" href="/queues/queue/${where.queue}/${where.id}">job</a>`}</div>`;
}

function texts({ text, requestId, notes, alike }: Entry): Html | null {
  if (text === null && notes.length === 0) return null;
  const list = foldNotes(notes).map(({ at, until, count, text: note }) => html`<li>${clock(at)}${count === 1 ? null : html`–${clock(until)}`} ${note}${count === 1 ? null : html` <span class="polls">${count} times</span>`}</li>`);
  return html`<div class="texts">${notes.length === 0 ? null : html`<ul>${list}</ul>`}${text === null ? null : html`<p>${withCode(text)}${requestNote(requestId)}</p>`}${attempts(alike)}</div>`;
}

/** The attempts that one entry stands for. */
function attempts(alike: readonly Entry[]): Html | null {
  const [first] = alike;
  if (first === undefined) return null;
  const list = alike.map(({ from, to, text, requestId, attempt }) => html`<li>${clock(from)} attempt ${attempt?.nth}, ${to === null ? null : formatDuration(to.getTime() - from.getTime())}: ${text}${requestNote(requestId)}</li>`);
  return html`<details id="alike-${first.from.getTime()}"><summary>Each of the ${alike.length} attempts</summary><ul>${list}</ul></details>`;
}

/** The time of the day: 06:54:01. */
function clock(time: Date): Html {
  return html`<time datetime="${time.toISOString()}" title="${formatTime(time)}" data-clock>${formatTime(time).slice(11, 19)}</time>`;
}

function bar({ kind, tone, from, to }: Entry, { start, spanMs, now }: Scale): Html {
  const scale = (time: Date) => Math.min(WIDTH, Math.max(0, ((time.getTime() - start) / spanMs) * WIDTH));
  const width = Math.max(LEAST_WIDTH, scale(to ?? now) - scale(from));
  const x = Math.min(scale(from), WIDTH - width);
  return html`<svg class="track" viewBox="0 0 ${WIDTH} 10" preserveAspectRatio="none" aria-hidden="true"><rect class="${kind} ${tone}" x="${x.toFixed(1)}" y="1" width="${width.toFixed(1)}" height="8"/></svg>`;
}
