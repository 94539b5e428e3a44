// What both the list and a saga's page show of a saga.
import type { Saga, SagaStatus } from '../../saga/saga.ts';
import type { SagaWords } from '../../saga/words.ts';
import { describeEnd } from '../../saga/words.ts';
import type { Html } from '../html.ts';
import { html } from '../html.ts';

/** The status: told by a sign and the word, not by colour alone. */
export function badge(status: SagaStatus): Html {
  return html`<span class="badge ${status}">${status}</span>`;
}

/** The same for a saga that is known: of one that is over, how it ended; one that is held waits, whatever its status. */
export function badgeOf(saga: Saga, words: SagaWords, isHeld: boolean): Html {
  if (isHeld) return html`<span class="badge held">waiting</span>`;
  if (saga.status !== 'compensated') return badge(saga.status);
  const { label, tone } = describeEnd(words, saga);
  return label === 'rolled back' ? badge(saga.status) : html`<span class="badge compensated ${tone}">${label}</span>`;
}

/** What it is about, as its provider calls it; null: not known yet. */
export function subjectIdOf(saga: Saga, words: SagaWords): string | null {
  return words.subject?.(saga).id ?? null;
}

/** Step n of m, as dots and as words. Of one that was rolled back, how far it had come. */
export function progress(saga: Saga): Html {
  const at = saga.status === 'completed' ? saga.steps.length - 1 : saga.status === 'compensated' ? Math.max(0, saga.steps.indexOf(saga.error?.step ?? '')) : saga.cursor;
  const dots = saga.steps.map((_step, index) => html`<i class="${index < at || saga.status === 'completed' ? 'done' : index === at ? 'here' : ''}"></i>`);
  const name = saga.status === 'completed' ? null : html` <code>${saga.steps[at]}</code>`;
  return html`<span class="steps ${saga.status}" aria-hidden="true">${dots}</span> <span class="step">${at + 1} of ${saga.steps.length}${name}</span>`;
}

/** Hidden fields of a form. */
export function hidden(fields: readonly (readonly [string, string])[]): Html[] {
  return fields.map(([name, value]) => html`<input type="hidden" name="${name}" value="${value}">`);
}
