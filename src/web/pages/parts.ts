// The parts of a saga that both the list and a saga's page show.
import type { Saga, SagaStatus } from '../../saga/saga.ts';
import type { SagaWords } from '../../saga/saga-words.ts';
import { describeEnd, statusWords } from '../../saga/words.ts';
import type { Html } from '../html.ts';
import { html } from '../html.ts';

/** Renders the status as a sign and a word, not by color alone. */
export function badge(status: SagaStatus): Html {
  return html`<span class="badge ${status}">${statusWords[status]}</span>`;
}

/** Does the same for a known saga: shows how a finished one ended, and a held one as held, whatever its status. */
export function badgeOf(saga: Saga, words: SagaWords, isHeld: boolean): Html {
  if (isHeld) return html`<span class="badge held">held</span>`;
  if (saga.status !== 'compensated') return badge(saga.status);
  const { label, tone } = describeEnd(words, saga);
  return label === 'rolled back' ? badge(saga.status) : html`<span class="badge compensated ${tone}">${label}</span>`;
}

/** Returns the provider's id of the saga's subject; null: unknown. */
export function subjectIdOf(saga: Saga, words: SagaWords): string | null {
  return words.subject?.(saga).id ?? null;
}

/** Renders the id of a saga's subject: a link to its page, where it has one. */
export function subjectLink(saga: Saga, words: SagaWords, hasDroplets: boolean): Html | null {
  const subject = words.subject?.(saga);
  if (subject === undefined || subject.id === null) return null;
  const code = html`<code>${subject.id}</code>`;
  return hasDroplets && subject.kind === 'droplet' && /^[1-9]\d*$/.test(subject.id) ? html`<a href="/droplets/${subject.id}">${code}</a>` : code;
}

/** Renders step n of m, as dots and in words. For a rolled-back saga, how far it had come. */
export function progress(saga: Saga): Html {
  const at = saga.status === 'completed' ? saga.steps.length - 1 : saga.status === 'compensated' ? Math.max(0, saga.steps.indexOf(saga.error?.step ?? '')) : saga.cursor;
  const dots = saga.steps.map((_step, index) => html`<i class="${index < at || saga.status === 'completed' ? 'done' : index === at ? 'here' : ''}"></i>`);
  const name = saga.status === 'completed' ? null : html` <code>${saga.steps[at]}</code>`;
  return html`<span class="steps ${saga.status}" aria-hidden="true">${dots}</span> <span class="step">${at + 1} of ${saga.steps.length}${name}</span>`;
}

/** Renders a value that people copy. With the script, a button beside it does that. */
export function copied(value: string): Html {
  return html`<code data-copy>${value}</code>`;
}

/** Renders a text that also goes to the terminal, where backticks mark what is to be typed. A text of others may have one alone. */
export function withCode(text: string): Html[] {
  const parts = text.split('`');
  return parts.length % 2 === 0 ? [html`${text}`] : parts.map((part, index) => (index % 2 === 1 ? html`<code>${part}</code>` : html`${part}`));
}

/** Returns the text with its first letter in upper case. */
export function capital(text: string): string {
  return text.charAt(0).toUpperCase() + text.slice(1);
}

/** Renders DigitalOcean's id of a failed request, after what failed; null: none is known. */
export function requestNote(requestId: string | null): Html | null {
  return requestId === null ? null : html` <span class="request">request ${copied(requestId)}</span>`;
}

/** Renders the heading of a column by which a list can be sorted. `sorted`: how it is sorted by it now; null: it is not. */
export function sortHeading(words: string, href: string, sorted: 'ascending' | 'descending' | 'other' | null): Html {
  return html`<th scope="col"${sorted === null ? null : html` aria-sort="${sorted}"`}><a href="${href}">${words}</a></th>`;
}

/** Hidden fields of a form. */
export function hidden(fields: readonly (readonly [string, string])[]): Html[] {
  return fields.map(([name, value]) => html`<input type="hidden" name="${name}" value="${value}">`);
}
