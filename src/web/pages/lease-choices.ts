// How long a renewal of a lease may be, for a form.
import type { Html } from '../html.ts';
import { html } from '../html.ts';

const choices: readonly (readonly [seconds: number, words: string])[] = [[3_600, '1 hour'], [14_400, '4 hours'], [86_400, '1 day'], [604_800, '7 days']];

/** The field `ttl_s` of a form. */
export function leaseField(): Html {
  return html`<label>From now <select name="ttl_s">${choices.map(([seconds, text]) => html`<option value="${seconds}">${text}</option>`)}</select></label>`;
}
