// The fields of a renewal: the possible durations, and what a renewal does.
import type { Html } from '../html.ts';
import { html } from '../html.ts';
import { exactTime } from './times.ts';

const choices: readonly (readonly [seconds: number, words: string])[] = [[3_600, '1 hour'], [14_400, '4 hours'], [86_400, '1 day'], [604_800, '7 days']];

/** What a renewal does, and the field `ttl_s` of its form. */
export function renewalFields(leaseLimit: Date | null): Html {
  const limit = leaseLimit === null ? null : html` No renewal goes beyond ${exactTime(leaseLimit)}.`;
  return html`<p>The lease lasts at least as long as you choose here. A renewal never shortens it.${limit}</p>
<label>From now <select name="ttl_s">${choices.map(([seconds, text]) => html`<option value="${seconds}">${text}</option>`)}</select></label>`;
}
