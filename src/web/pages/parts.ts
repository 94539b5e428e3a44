// What both the list and a saga's page show of a saga.
import { textOf } from '../../json.ts';
import type { Saga, SagaStatus } from '../../saga/saga.ts';
import { currentStep, isAtRest } from '../../saga/saga.ts';
import type { Html } from '../html.ts';
import { html } from '../html.ts';

/** The status: told by a sign and the word, not by colour alone. */
export function badge(status: SagaStatus): Html {
  return html`<span class="badge ${status}">${status}</span>`;
}

/** Name of the droplet that it is about, or what is known instead. */
export function subjectOf(saga: Saga): string {
  const name = textOf(saga.input['name']);
  if (name !== '') return name;
  const id = dropletIdOf(saga);
  return id === null ? saga.saga8 : `droplet ${id}`;
}

/** DigitalOcean's id of its droplet. */
export function dropletIdOf(saga: Saga): string | null {
  return textOf(saga.context['droplet_id'] ?? saga.input['droplet_id']) || null;
}

/** Step n of m, as dots and as words. */
export function progress(saga: Saga): Html {
  const isDone = saga.status === 'completed';
  const dots = saga.steps.map((_step, index) => html`<i class="${isDone || index < saga.cursor ? 'done' : index === saga.cursor ? 'here' : ''}"></i>`);
  const words = isDone ? `all ${saga.steps.length} done` : `${saga.cursor + 1} of ${saga.steps.length}`;
  return html`<span class="steps ${saga.status}" aria-hidden="true">${dots}</span> <span class="step">${words}${isAtRest(saga.status) && saga.status !== 'stuck' ? null : html` · <code>${currentStep(saga)}</code>`}</span>`;
}

/** Hidden fields of a form. */
export function hidden(fields: readonly (readonly [string, string])[]): Html[] {
  return fields.map(([name, value]) => html`<input type="hidden" name="${name}" value="${value}">`);
}
